# The mount, its signing key, its configuration, a role, and a policy for those who read the role's tokens.

terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source = "hashicorp/vault"
    }
  }
}

variable "plugin_version" {
  description = "Version of the plugin, as it is in Vault's catalog."
  type        = string
}

variable "client_id" {
  description = "Client ID of the Redox OAuth API key."
  type        = string
}

variable "base_url" {
  description = "Where Redox is. For Canada: https://api.ca.redoxengine.com."
  type        = string
  default     = "https://api.redoxengine.com"
}

# Where Vault is and who you are come from VAULT_ADDR and VAULT_TOKEN: nothing of that is kept in the state.
provider "vault" {}

resource "vault_mount" "redox" {
  path           = "redox"
  type           = "vault-plugin-secrets-redox"
  plugin_version = var.plugin_version
  description    = "Redox access tokens"

  # Unmounting destroys the private keys for good.
  lifecycle {
    prevent_destroy = true
  }
}

# Vault makes the private key, and gives out the public half only. A write to a key that exists never makes a new one.
resource "vault_generic_endpoint" "key" {
  path                 = "${vault_mount.redox.path}/keys/main"
  ignore_absent_fields = true # a read has more than what is written here

  data_json = jsonencode({
    algorithm = "RS384"
  })
}

resource "vault_generic_endpoint" "config" {
  path                 = "${vault_mount.redox.path}/config"
  ignore_absent_fields = true

  data_json = jsonencode({
    base_url  = var.base_url
    client_id = var.client_id
    key       = "main"
  })

  depends_on = [vault_generic_endpoint.key]
}

resource "vault_generic_endpoint" "team_a" {
  path                 = "${vault_mount.redox.path}/roles/team-a"
  ignore_absent_fields = true

  data_json = jsonencode({
    min_ttl = 60 # seconds as a number, which is how a read gives them; "60s" would be changed in every plan
  })

  depends_on = [vault_generic_endpoint.config]
}

resource "vault_policy" "team_a" {
  name   = "redox-team-a"
  policy = file("${path.module}/../policies/team-a.hcl") # for the mount redox and the role team-a
}
