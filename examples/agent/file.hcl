# Keeps a Redox access token in the file redox-token, and runs a command for each new one.

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

template {
  source               = "redox-token.ctmpl"
  destination          = "redox-token"
  perms                = "0600"
  error_on_missing_key = true

  exec {
    command = ["./on-change"]
  }
}
