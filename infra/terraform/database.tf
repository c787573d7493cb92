# PostgreSQL for MLflow and for the studies of sweeps, inside the private network. Passwords are made here, written to
# Secret Manager and to PostgreSQL, and are in no state and no plan.
locals {
  databases = var.mlflow_image == "" ? toset([]) : toset(["mlflow", "sweeps"])
}

resource "google_sql_database_instance" "this" {
  #checkov:skip=CKV_GCP_6:all connections are encrypted; certificates of clients would be one more secret to keep
  #checkov:skip=CKV_GCP_79:people plan the step to another major version
  #checkov:skip=CKV_GCP_108:a look-up of names at each connection, and all come from the private network
  #checkov:skip=CKV_GCP_110:only MLflow and Optuna log in here; log_statement keeps what changes tables
  #checkov:skip=CKV2_GCP_13:a line for each statement says little and may hold parameters of trials
  count               = var.mlflow_image == "" ? 0 : 1
  name                = var.prefix
  database_version    = "POSTGRES_17"
  region              = var.region
  deletion_protection = true
  depends_on          = [google_service_networking_connection.services]

  settings {
    edition                     = "ENTERPRISE"
    tier                        = var.database_tier
    availability_type           = var.database_available ? "REGIONAL" : "ZONAL"
    disk_autoresize             = true
    deletion_protection_enabled = true # against the console and gcloud, too

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }
    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      start_time                     = "03:00"
      backup_retention_settings {
        retained_backups = 14
      }
    }
    maintenance_window {
      day          = 7
      hour         = 4
      update_track = "stable"
    }
    insights_config {
      query_insights_enabled = true
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_connections"
      value = "on"
    }
    database_flags {
      name  = "log_disconnections"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }
    database_flags {
      name  = "log_statement"
      value = "ddl"
    }
  }
}

resource "google_sql_database" "all" {
  for_each = local.databases
  name     = each.key
  instance = google_sql_database_instance.this[0].name
}

ephemeral "random_password" "all" {
  for_each = local.databases
  length   = 32
  special  = false # it may stand in an address
}

resource "google_secret_manager_secret" "password" {
  for_each  = local.databases
  secret_id = "${var.prefix}-${each.key}-database"
  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }
  depends_on = [google_project_service.needed]
}

resource "google_secret_manager_secret_version" "password" {
  for_each               = local.databases
  secret                 = google_secret_manager_secret.password[each.key].id
  secret_data_wo         = ephemeral.random_password.all[each.key].result
  secret_data_wo_version = var.password_version
}

# Read back, so that an apply that broke off in between cannot leave two different passwords.
ephemeral "google_secret_manager_secret_version" "password" {
  for_each = local.databases
  secret   = google_secret_manager_secret.password[each.key].secret_id
  version  = google_secret_manager_secret_version.password[each.key].version
}

resource "google_sql_user" "all" {
  for_each            = local.databases
  name                = each.key
  instance            = google_sql_database_instance.this[0].name
  password_wo         = ephemeral.google_secret_manager_secret_version.password[each.key].secret_data
  password_wo_version = var.password_version
}

resource "google_secret_manager_secret_iam_member" "reads_password" {
  for_each  = { for database, account in { mlflow = "mlflow", sweeps = "trainer" } : database => account if contains(local.databases, database) }
  secret_id = google_secret_manager_secret.password[each.key].id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.member[each.value]
}
