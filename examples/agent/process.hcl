# Runs a program with a Redox access token in its environment, and restarts it for each new one.

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

env_template "REDOX_ACCESS_TOKEN" {
  contents             = "{{ with secret \"redox/token/team-a\" }}{{ .Data.access_token }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command                   = ["./program"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
