# What Vault Proxy, and so each program that can reach it, may do: read the access token of one role.
path "redox/token/team-a" {
  capabilities = ["read"]
}
