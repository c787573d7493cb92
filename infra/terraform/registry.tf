resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google's own keys encrypt it; keys of your own are a decision of your organisation
  repository_id = var.prefix
  location      = var.region
  format        = "DOCKER"
  description   = "Images of infra/docker."
  depends_on    = [google_project_service.needed]

  # Cleaning up never deletes what a policy keeps.
  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "7d"
    }
  }
  cleanup_policies {
    id     = "old"
    action = "DELETE"
    condition {
      older_than = "180d"
    }
  }
  cleanup_policies {
    id     = "newest"
    action = "KEEP"
    most_recent_versions {
      keep_count = 10
    }
  }
}
