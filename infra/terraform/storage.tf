# Recordings and datasets. What is under tmp/ and staging/ goes after a week; a published version is never rewritten, so
# there is nothing that versioning could keep. What is deleted can be restored for a week.
resource "google_storage_bucket" "data" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs say who did what; access logs in a bucket are the older way
  #checkov:skip=CKV_GCP_78:published versions are never rewritten, and deletion can be undone (soft_delete_policy)
  name                        = "${var.project}-${var.prefix}-data"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_project_service.needed]

  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 3600
  }
  lifecycle_rule {
    action { type = "Delete" }
    condition {
      age            = 7
      matches_prefix = ["tmp/", "staging/"]
    }
  }
  lifecycle_rule {
    action { type = "AbortIncompleteMultipartUpload" }
    condition { age = 7 }
  }
  lifecycle {
    prevent_destroy = true
  }
}

# Runs, checkpoints, and what MLflow keeps. Checkpoints are rewritten: the older state of a file is kept for a month.
resource "google_storage_bucket" "artefacts" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs say who did what; access logs in a bucket are the older way
  name                        = "${var.project}-${var.prefix}-artefacts"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  depends_on                  = [google_project_service.needed]

  versioning {
    enabled = true
  }
  soft_delete_policy {
    retention_duration_seconds = 0 # versioning does it
  }
  lifecycle_rule {
    action { type = "Delete" }
    condition {
      age            = 7
      matches_prefix = ["tmp/", "staging/"]
      with_state     = "LIVE"
    }
  }
  lifecycle_rule {
    action { type = "Delete" }
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
  }
  lifecycle_rule {
    action { type = "AbortIncompleteMultipartUpload" }
    condition { age = 7 }
  }
  lifecycle {
    prevent_destroy = true
  }
}
