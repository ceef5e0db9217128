// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/tokencache"
)

const leasedTokenType = "redox_token"

var tokenFields = map[string]*framework.FieldSchema{
	"access_token":        answerField(framework.TypeString, "The access token: send it to Redox as Authorization: Bearer."),
	"token_type":          answerField(framework.TypeString, "Bearer."),
	"scope":               answerField(framework.TypeString, "Scope that Redox granted."),
	"client_id":           answerField(framework.TypeString, "Client ID the token was issued to."),
	"kid":                 answerField(framework.TypeString, "kid of the key that signed for it."),
	"expire_time":         answerField(framework.TypeTime, "When Redox stops to accept the token."),
	"ttl":                 answerField(framework.TypeInt64, "Seconds for which to keep the token. Who comes back later gets a newer one."),
	"rotation_period":     answerField(framework.TypeInt64, "Seconds from one token to the next."),
	"last_vault_rotation": answerField(framework.TypeTime, "When the token was minted."),
}

func (b *backend) pathToken() *framework.Path {
	minted := ok("An access token.", tokenFields)
	return &framework.Path{
		Pattern:      optionalRole("token"),
		Fields:       roleFields(),
		DisplayAttrs: display("token|role-token"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   reading(b.tokenRead, "Read the access token that all readers share.", minted),
			logical.UpdateOperation: acting(b.tokenMint, "mint", "Mint a fresh access token.", minted),
		},
		HelpSynopsis: "A short-lived Redox access token.",
		HelpDescription: `
Reading gives a Redox access token that lives about five minutes. All readers
of a role share it, and it is renewed before it ends: just read it again
whenever you need one, at the latest after ttl seconds.

    vault read -field=access_token redox/token/ROLE

Writing (vault write -f redox/token/ROLE) makes a fresh token and shares that
from then on. Do this once when Redox answers 401 to a token you have just read.
`,
	}
}

// leasedToken is the secret type of tokens that a role hands out with a lease.
func (b *backend) leasedToken() *framework.Secret {
	return &framework.Secret{
		Type:   leasedTokenType,
		Fields: tokenFields,
		// Redox can't revoke a token, and others may share it: it ends by itself. Revocation must not fail nor wait for
		// anything, else leases pile up.
		Revoke: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
			return nil, nil
		},
	}
}

func (b *backend) tokenRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return b.tokenResponse(b.minter.token(ctx, pathName(data, "role"), b.minter.tokens.Get))
}

func (b *backend) tokenMint(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	return b.tokenResponse(b.minter.token(ctx, pathName(data, "role"), b.minter.tokens.Fresh))
}

// tokenResponse is the same for all readers of one token, but for ttl: a consumer may take any other change for a new
// token.
func (b *backend) tokenResponse(served tokencache.Served[*token], err error) (*logical.Response, error) {
	b.telemetry.metrics.read(&served, err)
	if err != nil {
		return nil, err
	}
	t, ttl := served.Value, served.TTL()
	data := map[string]any{
		"access_token":        t.accessToken,
		"token_type":          t.tokenType,
		"scope":               t.scope,
		"client_id":           t.clientID,
		"kid":                 t.kid,
		"expire_time":         t.expireTime,
		"ttl":                 ttl,
		"rotation_period":     served.RotationPeriod(),
		"last_vault_rotation": t.mintTime,
	}
	response := &logical.Response{Data: data}
	if t.leased {
		response = b.Secret(leasedTokenType).Response(data, nil)
		response.Secret.TTL = leaseTTL(served)
		response.Secret.MaxTTL = response.Secret.TTL
	}
	if t.warning != "" {
		response.AddWarning(t.warning)
	}
	if served.Stale != nil {
		response.AddWarning(fmt.Sprintf("This token ends in %d seconds and getting a newer one failed: %s",
			int(served.Remaining.Seconds()), served.Stale))
	}
	return response, nil
}

// leaseTTL is ttl, but two seconds where that would be one and the token lives that long. consul-template comes back
// after 85 % to 95 % of a lease, and drops what it reads twice in one second of the clock: after a lease of one second that
// can be the new token, and it would keep the old one past its end.
func leaseTTL(served tokencache.Served[*token]) time.Duration {
	const least = 2 * time.Second
	ttl := time.Duration(served.TTL()) * time.Second
	if ttl < least && served.Remaining >= least {
		return least
	}
	return ttl
}
