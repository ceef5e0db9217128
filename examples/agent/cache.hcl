# Lets local programs read tokens without a Vault token of their own:
# VAULT_ADDR=http://127.0.0.1:8100 vault read redox/token/team-a

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
  # Keeps out programs that can be talked into fetching a URL: those don't send the header X-Vault-Request.
  require_request_header = true
}

cache {}

api_proxy {
  use_auto_auth_token = true
}
