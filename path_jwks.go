// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	jwksPath = "jwks"
	// jwksCacheControl lets a reader keep the set for a minute: a new key version is published well before it signs.
	jwksCacheControl = "public, max-age=60"
)

func (b *backend) pathJWKS() *framework.Path {
	set := raw("A JWK Set (RFC 7517).", "application/json", map[string]*framework.FieldSchema{
		"keys": answerField(framework.TypeSlice, "The public keys, a JWK each."),
	})
	return &framework.Path{
		Pattern:      jwksPath + "(/" + framework.GenericNameRegex("key") + ")?$",
		Fields:       map[string]*framework.FieldSchema{"key": nameField("Name of a signing key. Left out: the public keys of all.")},
		DisplayAttrs: display("jwks|key-jwks"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.jwksRead, "Read the public keys as a JWK Set. No authentication is needed.", set),
		},
		HelpSynopsis: "The public keys as a JWK Set, without authentication.",
		HelpDescription: `
Gives the public keys as RFC 7517 has them, to anyone: this is the URL to save
as JWKS URL at an OAuth API key in the Redox dashboard, if Redox can reach it.
With a key's name it holds that key only. The answer is raw JSON:

    vault read -format=raw redox/jwks
`,
	}
}

func (b *backend) jwksRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	sets, err := b.keys.jwkSets(ctx)
	if err != nil {
		return nil, err
	}
	body := sets.all
	if name := pathName(data, "key"); name != "" {
		body = sets.byKey[name]
		if body == nil {
			return nil, sets.unusable[name] // without an error Vault makes it a 404
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType:        "application/json",
		logical.HTTPCacheControlHeader: jwksCacheControl,
		logical.HTTPRawBody:            body,
		logical.HTTPStatusCode:         http.StatusOK,
	}}, nil
}
