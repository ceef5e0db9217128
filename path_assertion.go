// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
)

func (b *backend) pathAssertion() *framework.Path {
	return &framework.Path{
		Pattern:      optionalRole("assertion"),
		Fields:       roleFields(),
		DisplayAttrs: display("assertion|role-assertion"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: acting(b.assertionSign, "sign", "Sign a client assertion.", ok("A client assertion and the form fields that go with it.",
				map[string]*framework.FieldSchema{
					"client_assertion":      answerField(framework.TypeString, "The signed JWT. It works once."),
					"client_assertion_type": answerField(framework.TypeString, "Form field of the token request (RFC 7523 section 2.2)."),
					"grant_type":            answerField(framework.TypeString, "Form field of the token request (RFC 6749 section 4.4.2)."),
					"scope":                 answerField(framework.TypeString, "Form field of the token request; leave it out when empty."),
					"token_url":             answerField(framework.TypeString, "Where to post the form."),
					"client_id":             answerField(framework.TypeString, "Client ID in the assertion. No form field."),
					"kid":                   answerField(framework.TypeString, "kid of the key that signed."),
					"expire_time":           answerField(framework.TypeTime, "When the assertion ends."),
				})),
		},
		HelpSynopsis: "A signed client assertion, for a Vault that can't reach Redox.",
		HelpDescription: `
Signs a client assertion (RFC 7523) and gives it out with the form fields that
go with it. The caller posts them to token_url itself. Where Vault can reach
Redox, read token/ instead: it shares one token and says what is wrong.
`,
	}
}

func (b *backend) assertionSign(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	c, err := b.minter.sign(ctx, pathName(data, "role"))
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"client_assertion":      c.assertion,
		"client_assertion_type": redox.ClientAssertionType,
		"grant_type":            redox.GrantType,
		"scope":                 c.Scope,
		"token_url":             c.tokenURL(),
		"client_id":             c.ClientID,
		"kid":                   c.kid,
		"expire_time":           formatTime(c.expireTime),
	}}, nil
}
