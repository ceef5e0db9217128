# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# A pipeline that tests against Redox: it reads the shared token of the role ci, and can't have fresh ones minted.

path "redox/token/ci" {
  capabilities = ["read"]
}

path "redox/check/ci" {
  capabilities = ["update"]
}
