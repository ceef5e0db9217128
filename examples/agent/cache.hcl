# Lets local programs read tokens without a Vault token of their own:
# curl http://127.0.0.1:8100/v1/redox/token/team-a

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  method "approle" {
    mount_path = "auth/approle"
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
      # By default Agent deletes the file, and can't log in after a restart.
      remove_secret_id_file_after_reading = false
    }
  }
}

listener "tcp" {
  address     = "127.0.0.1:8100"
  tls_disable = true # it listens on this machine only
}

cache {}

api_proxy {
  use_auto_auth_token = true
}
