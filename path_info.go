// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"runtime"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
)

// Set when a release is built: -ldflags "-X main.version=… -X main.commit=…". The version must be the one that the
// plugin is registered with in Vault's catalog, so it is always a semantic version with a leading v.
var (
	version = "v0.0.0-dev"
	commit  = "unknown"
)

// userAgent names the plugin to Redox.
func userAgent() string { return "vault-plugin-secrets-redox/" + version }

func (b *backend) pathInfo() *framework.Path {
	return &framework.Path{
		Pattern:      "info",
		DisplayAttrs: display("info"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.infoRead, "Read the plugin's version.", ok("The plugin's version.",
				map[string]*framework.FieldSchema{
					"version":    answerField(framework.TypeString, "Version of the plugin."),
					"commit":     answerField(framework.TypeString, "Commit it was built from."),
					"go_version": answerField(framework.TypeString, "Go version it was built with."),
					"algorithms": answerField(framework.TypeStringSlice, "Signature algorithms it knows."),
				})),
		},
		HelpSynopsis: "Version of the plugin.",
		HelpDescription: `
Tells which version of the plugin this is, what it was built from, and the
signature algorithms it knows. A report of a problem should have this in it.
`,
	}
}

func (b *backend) infoRead(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Data: map[string]any{
		"version":    version,
		"commit":     commit,
		"go_version": runtime.Version(),
		"algorithms": privatekey.Algorithms(),
	}}, nil
}
