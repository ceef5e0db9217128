# A program that finds a Redox access token in the file secrets/redox-token.

job "redox-app" {
  group "app" {
    task "app" {
      driver = "exec"

      # Stands for your program, which opens the file whenever it needs a token.
      config {
        command = "/bin/sh"
        args    = ["-c", "while sleep 60; do ls -l $NOMAD_SECRETS_DIR/redox-token; done"]
      }

      # Who the task is to Vault: a JWT that Nomad signs, and the role that Vault has for it.
      identity {
        name = "vault_default"
        aud  = ["vault.io"]
        ttl  = "1h"
      }

      # Nomad reads the token. The task itself gets no Vault token, so it has no need to be restarted for a new one.
      vault {
        role         = "redox-app"
        env          = false
        disable_file = true
        change_mode  = "noop"
      }

      # The file is replaced every four and a half minutes. The default is to restart the task each time.
      template {
        data                 = "{{ with secret \"redox/token/team-a\" }}{{ .Data.access_token }}{{ end }}"
        destination          = "secrets/redox-token"
        change_mode          = "noop"
        error_on_missing_key = true
      }
    }
  }
}
