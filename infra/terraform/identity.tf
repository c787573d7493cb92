# CI without keys: a token of its issuer becomes the builder, if it was made for this repository and branch.
resource "google_iam_workload_identity_pool" "ci" {
  count                     = var.ci == null ? 0 : 1
  workload_identity_pool_id = "${var.prefix}-ci"
  depends_on                = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "ci" {
  count                              = var.ci == null ? 0 : 1
  workload_identity_pool_id          = google_iam_workload_identity_pool.ci[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "oidc"
  attribute_condition                = "assertion.repository == '${var.ci.repository}' && assertion.ref == '${var.ci.branch}'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }
  oidc {
    issuer_uri = var.ci.issuer
  }
}

resource "google_service_account_iam_member" "ci" {
  count              = var.ci == null ? 0 : 1
  service_account_id = google_service_account.all["builder"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.ci[0].name}/attribute.repository/${var.ci.repository}"
}
