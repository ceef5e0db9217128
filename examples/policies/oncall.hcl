# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# On call at night: finds out what is wrong, replaces a key that has leaked, stops a role. It gets no token and no assertion, and
# changes no configuration and no client ID.

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

path "redox/roles" {
  capabilities = ["list"]
}

# A role may be disabled and enabled again, and nothing else of it be changed.
path "redox/roles/+" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "disabled" = []
  }
}

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
