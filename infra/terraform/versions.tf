terraform {
  required_version = ">= 1.11" # write-only arguments: no password in the state

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.0"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }

  # The bucket is made by hand, once, and named by -backend-config: see README.md.
  backend "gcs" {
    prefix = "ddsp"
  }
}

provider "google" {
  project               = var.project
  region                = var.region
  billing_project       = var.project
  user_project_override = true # the API of budgets asks for a project that pays
  default_labels        = { application = "ddsp" }
}

data "google_project" "this" {
  depends_on = [google_project_service.needed]
}

resource "google_project_service" "needed" {
  for_each = toset(concat([
    "artifactregistry", "billingbudgets", "cloudbuild", "cloudresourcemanager", "compute", "dataflow", "iam",
    "iamcredentials", "iap", "logging", "monitoring", "run", "secretmanager", "servicenetworking", "sqladmin", "storage",
    "sts",
  ], var.cluster ? ["container"] : []))

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false
}
