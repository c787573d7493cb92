# The tracking server, for those whom IAP lets through. It keeps artefacts in the bucket, so that clients need no role there.
locals {
  mlflow_host = "${var.prefix}-mlflow-${data.google_project.this.number}.${var.region}.run.app"
  iap_agent   = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-iap.iam.gserviceaccount.com"
}

resource "google_cloud_run_v2_service" "mlflow" {
  count               = var.mlflow_image == "" ? 0 : 1
  name                = "${var.prefix}-mlflow"
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL"
  iap_enabled         = true
  deletion_protection = true
  depends_on          = [google_secret_manager_secret_iam_member.reads_password, google_sql_user.all]

  template {
    service_account                  = google_service_account.all["mlflow"].email
    max_instance_request_concurrency = 40
    scaling {
      min_instance_count = 1 # a start takes half a minute, longer than clients wait
      max_instance_count = 4
    }
    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.this.name
        subnetwork = google_compute_subnetwork.this.name
      }
    }
    containers {
      image   = var.mlflow_image
      command = ["mlflow", "server"]
      args = [
        "--host=0.0.0.0", "--port=8080", "--workers=2", "--serve-artifacts",
        "--artifacts-destination=gs://${google_storage_bucket.artefacts.name}/mlflow",
        "--allowed-hosts=${local.mlflow_host}", "--cors-allowed-origins=https://${local.mlflow_host}",
        "--app-name=ddsp", # opens for model training; by default it opens for language models
      ]
      ports {
        container_port = 8080
      }
      resources {
        limits            = { cpu = "2", memory = "4Gi" }
        startup_cpu_boost = true
      }
      startup_probe {
        period_seconds    = 10
        failure_threshold = 18
        http_get {
          path = "/health"
        }
      }
      dynamic "env" {
        for_each = {
          MLFLOW_BACKEND_STORE_URI           = "postgresql+psycopg:///mlflow" # the rest of the address is below
          MLFLOW_SERVER_ENABLE_JOB_EXECUTION = "false"
          MLFLOW_DISABLE_TELEMETRY           = "true"
          PGHOST                             = google_sql_database_instance.this[0].private_ip_address
          PGUSER                             = google_sql_user.all["mlflow"].name
          PGSSLMODE                          = "require"
        }
        content {
          name  = env.key
          value = env.value
        }
      }
      env {
        name = "PGPASSWORD"
        value_source {
          secret_key_ref {
            secret  = google_secret_manager_secret.password["mlflow"].secret_id
            version = google_secret_manager_secret_version.password["mlflow"].version
          }
        }
      }
    }
  }
}

# IAP calls the server; nobody else may.
resource "google_cloud_run_v2_service_iam_member" "iap" {
  count    = length(google_cloud_run_v2_service.mlflow)
  name     = google_cloud_run_v2_service.mlflow[0].name
  location = var.region
  role     = "roles/run.invoker"
  member   = local.iap_agent
}

resource "google_iap_web_cloud_run_service_iam_member" "users" {
  for_each               = var.mlflow_image == "" ? {} : merge({ for each in var.mlflow_users : each => each }, { trainer = local.member["trainer"] })
  cloud_run_service_name = google_cloud_run_v2_service.mlflow[0].name
  location               = var.region
  role                   = "roles/iap.httpsResourceAccessor"
  member                 = each.value
}

# The trainer signs the tokens that it shows to IAP.
resource "google_service_account_iam_member" "trainer_signs" {
  service_account_id = google_service_account.all["trainer"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.member["trainer"]
}
