# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# Scrapes the metrics, which hold no name of a role or a key.

path "redox/metrics" {
  capabilities = ["read"]
}
