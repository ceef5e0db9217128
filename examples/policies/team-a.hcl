# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# Gets the tokens of the role team-a. "update" is for a fresh one, when Redox rejected the other.

path "redox/token/team-a" {
  capabilities = ["read", "update"]
}

path "redox/check/team-a" {
  capabilities = ["update"]
}
