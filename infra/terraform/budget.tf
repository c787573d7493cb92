# Warnings only: nothing is switched off when the money is spent.
resource "google_monitoring_notification_channel" "budget" {
  for_each     = var.budget == null ? toset([]) : var.budget.emails
  display_name = "Budget: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  depends_on   = [google_project_service.needed]
}

resource "google_billing_budget" "month" {
  count           = var.budget == null ? 0 : 1
  billing_account = var.budget.billing_account
  display_name    = "${var.prefix} in ${var.project}"
  depends_on      = [google_project_service.needed]

  budget_filter {
    projects = ["projects/${data.google_project.this.number}"]
  }
  amount {
    specified_amount {
      units = floor(var.budget.amount)
    }
  }
  dynamic "threshold_rules" {
    for_each = [0.5, 0.9, 1.0]
    content {
      threshold_percent = threshold_rules.value
    }
  }
  threshold_rules {
    threshold_percent = 1.0
    spend_basis       = "FORECASTED_SPEND"
  }
  dynamic "all_updates_rule" {
    for_each = length(var.budget.emails) == 0 ? [] : [1]
    content {
      monitoring_notification_channels = [for channel in google_monitoring_notification_channel.budget : channel.id]
    }
  }
}
