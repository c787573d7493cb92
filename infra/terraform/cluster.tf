# A cluster for infra/kubernetes: Autopilot makes nodes for the pods that ask for them, GPUs and TPUs too.
resource "google_container_cluster" "this" {
  #checkov:skip=CKV_GCP_65:groups of a domain are a decision of your organisation
  count               = var.cluster ? 1 : 0
  name                = var.prefix
  location            = var.region
  enable_autopilot    = true
  deletion_protection = true
  network             = google_compute_network.this.id
  subnetwork          = google_compute_subnetwork.this.id
  resource_labels     = { application = "ddsp" }
  depends_on          = [google_project_service.needed]

  ip_allocation_policy {
    cluster_secondary_range_name  = google_compute_subnetwork.this.secondary_ip_range[0].range_name
    services_secondary_range_name = google_compute_subnetwork.this.secondary_ip_range[1].range_name
  }
  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = length(var.cluster_admins) == 0
  }
  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.cluster_admins
      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }
  release_channel {
    channel = "REGULAR"
  }
  secret_manager_config {
    enabled = true
  }
}

resource "google_service_account_iam_member" "trainer_in_cluster" {
  count              = var.cluster ? 1 : 0
  service_account_id = google_service_account.all["trainer"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${google_container_cluster.this[0].workload_identity_config[0].workload_pool}[${var.trainer_identity}]"
}
