# What a pod may do: read the access token of one role.
path "redox/token/team-a" {
  capabilities = ["read"]
}
