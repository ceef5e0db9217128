# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# Registers, mounts and upgrades the plugin. Whoever has this can put any program in the plugin's place: use it for an installation,
# not for daily work.

path "sys/plugins/catalog/secret/vault-plugin-secrets-redox" {
  capabilities = ["create", "read", "update", "delete", "sudo"]
}

path "sys/plugins/reload/backend" {
  capabilities = ["update"]
}

path "sys/mounts" {
  capabilities = ["read"]
}

path "sys/mounts/redox" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/redox/tune" {
  capabilities = ["read", "update"]
}

path "redox/info" {
  capabilities = ["read"]
}

path "redox/check" {
  capabilities = ["update"]
}
