# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# Reads public keys, settings and metrics, but no token. It changes nothing.

path "redox/config" {
  capabilities = ["read"]
}

path "redox/keys" {
  capabilities = ["list"]
}

path "redox/keys/+" {
  capabilities = ["read"]
}

path "redox/keys/+/versions" {
  capabilities = ["read", "list"]
}

path "redox/keys/+/clients" {
  capabilities = ["read", "list"]
}

path "redox/roles" {
  capabilities = ["list"]
}

path "redox/roles/+" {
  capabilities = ["read"]
}

path "redox/metrics" {
  capabilities = ["read"]
}

path "redox/info" {
  capabilities = ["read"]
}
