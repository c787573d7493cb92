# One account per job, with the roles of the table in infra/README.md and no others. None has a key.
locals {
  accounts = {
    launcher = "Submits preparations to Dataflow"
    worker   = "Workers of Dataflow"
    trainer  = "Trainings and sweeps"
    mlflow   = "The tracking server"
    builder  = "Builds and pushes images"
  }
  project_roles = {
    launcher = ["roles/dataflow.developer"]
    worker   = ["roles/dataflow.worker"]
    trainer  = ["roles/logging.logWriter", "roles/monitoring.metricWriter"]
    mlflow   = []
    builder  = ["roles/logging.logWriter"]
  }
  bucket_roles = {
    launcher = { data = ["roles/storage.objectAdmin", "roles/storage.legacyBucketReader"] }
    worker   = { data = ["roles/storage.objectAdmin"] }
    trainer  = { data = ["roles/storage.objectViewer"], artefacts = ["roles/storage.objectAdmin"] }
    mlflow   = { artefacts = ["roles/storage.objectAdmin"] }
    builder  = {}
  }
  registry_roles = {
    launcher = "roles/artifactregistry.reader"
    worker   = "roles/artifactregistry.reader"
    trainer  = "roles/artifactregistry.reader"
    builder  = "roles/artifactregistry.writer"
  }
  buckets = {
    data      = google_storage_bucket.data.name
    artefacts = google_storage_bucket.artefacts.name
  }
  member = { for name, account in google_service_account.all : name => "serviceAccount:${account.email}" }
}

resource "google_service_account" "all" {
  for_each     = local.accounts
  account_id   = "${var.prefix}-${each.key}"
  display_name = each.value
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_member" "all" {
  for_each = { for each in flatten([
    for name, roles in local.project_roles : [for role in roles : { name = name, role = role }]
  ]) : "${each.name} ${each.role}" => each }

  project = var.project
  role    = each.value.role
  member  = local.member[each.value.name]
}

resource "google_storage_bucket_iam_member" "all" {
  for_each = { for each in flatten([
    for name, buckets in local.bucket_roles : [
      for bucket, roles in buckets : [for role in roles : { name = name, bucket = bucket, role = role }]
    ]
  ]) : "${each.name} ${each.bucket} ${each.role}" => each }

  bucket = local.buckets[each.value.bucket]
  role   = each.value.role
  member = local.member[each.value.name]
}

resource "google_artifact_registry_repository_iam_member" "all" {
  for_each   = local.registry_roles
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = each.value
  member     = local.member[each.key]
}

resource "google_service_account_iam_member" "launcher_starts_workers" {
  service_account_id = google_service_account.all["worker"].name
  role               = "roles/iam.serviceAccountUser"
  member             = local.member["launcher"]
}
