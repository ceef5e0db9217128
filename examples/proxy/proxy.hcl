# Lets programs on this machine read the Redox access token of one role, without a Vault token of their own.

vault {
  address = "http://127.0.0.1:8200"
}

auto_auth {
  method "approle" {
    mount_path = "auth/approle"
    config = {
      role_id_file_path   = "role-id"
      secret_id_file_path = "secret-id"
      # By default Proxy deletes the file, and can't log in after a restart.
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

api_proxy {
  # Each request is made with Proxy's own token, whatever Vault token a program has and sends.
  use_auto_auth_token = "force"
}

# Redox tokens pass through it: each read gets the token that is up to date.
cache {}
