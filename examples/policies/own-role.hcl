# Copyright (c) vault-plugin-secrets-redox contributors
# SPDX-License-Identifier: MPL-2.0

# One policy for all teams: gets the tokens of the role that the metadata redox_role of the caller's entity names.

path "redox/token/{{identity.entity.metadata.redox_role}}" {
  capabilities = ["read", "update"]
}

path "redox/check/{{identity.entity.metadata.redox_role}}" {
  capabilities = ["update"]
}

# The platform_role of a key, whatever the metadata says.
path "redox/token/manager" {
  capabilities = ["deny"]
}
