output "data" {
  description = "Folder for recordings and datasets."
  value       = "gs://${google_storage_bucket.data.name}"
}

output "artefacts" {
  description = "Folder for runs."
  value       = "gs://${google_storage_bucket.artefacts.name}"
}

output "images" {
  description = "First part of the names of images."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.name}"
}

output "accounts" {
  description = "Addresses of the accounts, by job."
  value       = { for name, account in google_service_account.all : name => account.email }
}

output "dataflow_options" {
  description = "What to add to ddsp prepare --runner dataflow after the double dash."
  value = join(" ", [
    "--project=${var.project}", "--region=${var.region}", "--temp_location=gs://${google_storage_bucket.data.name}/tmp",
    "--service_account_email=${google_service_account.all["worker"].email}",
    "--subnetwork=regions/${var.region}/subnetworks/${google_compute_subnetwork.this.name}",
  ])
}

output "mlflow" {
  description = "Address of the tracking server: MLFLOW_TRACKING_URI."
  value       = one([for service in google_cloud_run_v2_service.mlflow : "https://${local.mlflow_host}"])
}

output "sweep_storage" {
  description = "DDSP_SWEEP_STORAGE; the password is in the secret, for PGPASSWORD."
  value       = one([for instance in google_sql_database_instance.this : "postgresql://sweeps@${instance.private_ip_address}/sweeps?sslmode=require"])
}

output "sweep_secret" {
  description = "Secret with the password of sweeps."
  value       = one([for name, secret in google_secret_manager_secret.password : secret.secret_id if name == "sweeps"])
}

output "ci_provider" {
  description = "Name of the provider that the CI shows its token to."
  value       = one(google_iam_workload_identity_pool_provider.ci[*].name)
}
