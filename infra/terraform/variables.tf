variable "project" {
  description = "ID of the project; it exists and is billed."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project is an ID of 6 to 30 small letters, digits and hyphens, not a number or a title."
  }
}

variable "region" {
  description = "Where everything is, buckets too: reading from another region costs."
  type        = string
  default     = "europe-west4"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is such as europe-west4; europe-west4-a is a zone, EU a multi-region."
  }
}

variable "prefix" {
  description = "First part of all names. Names of buckets are PROJECT-PREFIX-data and so on."
  type        = string
  default     = "ddsp"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,13}[a-z0-9]$", var.prefix))
    error_message = "prefix has 2 to 15 small letters, digits and hyphens and starts with a letter."
  }
}

variable "mlflow_image" {
  description = "Image of the tracking server with its digest or tag, from infra/docker. Empty: no server and no database yet."
  type        = string
  default     = ""
  validation {
    condition     = var.mlflow_image == "" || can(regex("^[^:]+/[^:]+(:[^:/]+|@sha256:[0-9a-f]{64})$", var.mlflow_image))
    error_message = "mlflow_image is such as europe-west4-docker.pkg.dev/PROJECT/ddsp/ddsp:1, with its tag or digest."
  }
}

variable "mlflow_users" {
  description = "Who may use the tracking server through IAP."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for each in var.mlflow_users : can(regex("^(user|group|domain|serviceAccount):[^ ]+$", each))])
    error_message = "mlflow_users are members of IAM, such as group:music@example.org."
  }
}

variable "database_tier" {
  description = "Machine of PostgreSQL, for MLflow and sweeps."
  type        = string
  default     = "db-custom-2-7680"
  validation {
    condition     = can(regex("^db-(custom-[0-9]+-[0-9]+|perf-optimized-N-[0-9]+)$", var.database_tier))
    error_message = "database_tier is such as db-custom-2-7680 (2 cores, 7680 MB)."
  }
}

variable "database_available" {
  description = "A second PostgreSQL in another zone that takes over: twice the price."
  type        = bool
  default     = false
}

variable "password_version" {
  description = "Raise it to give the users of PostgreSQL new passwords."
  type        = number
  default     = 1
}

variable "cluster" {
  description = "A private GKE cluster (Autopilot) for infra/kubernetes."
  type        = bool
  default     = false
}

variable "cluster_admins" {
  description = "Networks from which kubectl reaches the cluster, by name, such as {office = \"203.0.113.0/24\"}."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for each in values(var.cluster_admins) : can(cidrhost(each, 0)) && !endswith(each, "/0")])
    error_message = "cluster_admins are networks such as 203.0.113.0/24, and not the whole internet."
  }
}

variable "trainer_identity" {
  description = "NAMESPACE/NAME of the Kubernetes service account that becomes the trainer."
  type        = string
  default     = "default/trainer"
  validation {
    condition     = can(regex("^[a-z0-9-]+/[a-z0-9-]+$", var.trainer_identity))
    error_message = "trainer_identity is NAMESPACE/NAME, such as default/trainer."
  }
}

variable "ci" {
  description = "The CI that may push images: issuer of its OIDC tokens, and the repository that its tokens must name."
  type        = object({ issuer = string, repository = string, branch = optional(string, "refs/heads/main") })
  default     = null
  validation {
    condition     = var.ci == null || can(regex("^https://[^ ]+$", var.ci.issuer)) && can(regex("^[^/ ']+/[^ ']+$", var.ci.repository))
    error_message = "ci has an issuer such as https://token.actions.githubusercontent.com and a repository OWNER/NAME."
  }
}

variable "budget" {
  description = "Whom to warn when a month costs more: the billing account, the amount in its currency, addresses of e-mail."
  type        = object({ billing_account = string, amount = number, emails = optional(set(string), []) })
  default     = null
  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}(-[0-9A-F]{6}){2}$", var.budget.billing_account)) && try(var.budget.amount > 0, false)
    error_message = "budget has a billing_account such as 012345-6789AB-CDEF01 and an amount above 0."
  }
}
