// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command vault-plugin-secrets-redox is a secrets engine for HashiCorp Vault that hands out short-lived Redox access
// tokens. Vault starts it; it can't be used by itself.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "-version" || os.Args[1] == "--version") {
		fmt.Println(version)
		return
	}
	// Vault reads the log from stderr and filters it by its own level.
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	// Vault and the plugin make their mutual TLS by themselves (AutoMTLS), so no TLS provider is given.
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: Factory, Logger: logger}); err != nil {
		logger.Error("the plugin can't be served", "error", err)
		os.Exit(1)
	}
}
