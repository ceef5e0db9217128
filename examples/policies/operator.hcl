# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# Sets the engine up and looks after its keys, but gets no token and no assertion.

path "redox/config" {
  capabilities = ["create", "read", "update", "delete"]
}

path "redox/keys" {
  capabilities = ["list"]
}

path "redox/keys/+" {
  capabilities = ["create", "read", "update", "delete"]
}

path "redox/keys/+/versions" {
  capabilities = ["read", "list"]
}

path "redox/keys/+/clients" {
  capabilities = ["read", "list"]
}

# Each verb by its name: whatever a later version adds is refused until you decide.
path "redox/keys/+/import" {
  capabilities = ["update"]
}

path "redox/keys/+/rotate" {
  capabilities = ["update"]
}

path "redox/keys/+/activate" {
  capabilities = ["update"]
}

path "redox/keys/+/abandon" {
  capabilities = ["update"]
}

path "redox/keys/+/retire" {
  capabilities = ["update"]
}

path "redox/keys/+/register" {
  capabilities = ["update"]
}

path "redox/wrapping_key" {
  capabilities = ["read", "delete"]
}

path "redox/wrapping_key/rotate" {
  capabilities = ["update"]
}

path "redox/roles" {
  capabilities = ["list"]
}

path "redox/roles/+" {
  capabilities = ["create", "read", "update", "delete"]
}

# Tries to get a token, and says only what was learned.
path "redox/check" {
  capabilities = ["update"]
}

path "redox/check/+" {
  capabilities = ["update"]
}

path "redox/metrics" {
  capabilities = ["read"]
}

path "redox/info" {
  capabilities = ["read"]
}
