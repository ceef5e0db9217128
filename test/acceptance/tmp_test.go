package acceptance

import _ "github.com/hashicorp/vault/api"
