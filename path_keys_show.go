// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What keys/NAME answers: a table that fits a terminal. It has no maps, which the CLI prints as Go does.

// keyShown is what is shown of a key besides its settings.
var keyShown = map[string]*framework.FieldSchema{
	"name":               answerField(framework.TypeString, "Name of the key."),
	"algorithm":          answerField(framework.TypeString, "Algorithm of the active version."),
	"kid":                answerField(framework.TypeString, "Key ID of the active version, as Redox must know it."),
	"created_time":       answerField(framework.TypeString, "When the active version was made or imported."),
	"public_jwk":         answerField(framework.TypeString, "Public JWK of the active version on one line, to paste into the Redox dashboard."),
	"public_pem":         answerField(framework.TypeString, "Public key of the active version as PEM."),
	"pending_kid":        answerField(framework.TypeString, "Key ID of the pending version, if there is one."),
	"pending_public_jwk": answerField(framework.TypeString, "Public JWK of the pending version, if there is one."),
	"retired_versions":   answerField(framework.TypeCommaIntSlice, "Numbers of the retired versions, which are still held and published."),
	"next_step":          answerField(framework.TypeString, "What you have to do, if anything, so that a rotation goes on."),
	"next_rotation_time": answerField(framework.TypeString, "When a new version will be made by itself, if it will."),
	"blocked_by": answerField(framework.TypeStringSlice,
		"The client IDs that a rotation of the key waits for, with the reason; keys/NAME/clients has more."),
}

// keyShownWhenThere is what is left out of the answer where there is no such version.
var keyShownWhenThere = map[string]*framework.FieldSchema{
	"active_version":  {Type: framework.TypeInt, Description: "Number of the active version, if there is one."},
	"pending_version": {Type: framework.TypeInt, Description: "Number of the pending version, if there is one."},
}

func keyShownFields() map[string]*framework.FieldSchema {
	shown := responseFields(rowSchemas(keyRows, &signingKey{}))
	for name, schema := range keyShown {
		shown[name] = schema
	}
	for name, schema := range keyShownWhenThere {
		shown[name] = schema
	}
	return shown
}

// showChanged is showKey for the result of a change. The change is done, so it is no error when the clients can't be found.
func (b *backend) showChanged(ctx context.Context, k *keySnapshot, err error) (*logical.Response, error) {
	if err != nil {
		return nil, err
	}
	response, err := b.showKey(ctx, k)
	if err != nil {
		b.telemetry.logger.Error("a key was changed, but its clients can't be found", "key", k.name, "error", err)
		return b.showKeyOf(k, &keyClients{})
	}
	return response, nil
}

// showKey answers with the settings and the public side of a key, and with what a rotation waits for.
func (b *backend) showKey(ctx context.Context, k *keySnapshot) (*logical.Response, error) {
	clients, err := b.maintainer.directory.of(ctx, k.name)
	if err != nil {
		return nil, err
	}
	return b.showKeyOf(k, clients)
}

func (b *backend) showKeyOf(k *keySnapshot, clients *keyClients) (*logical.Response, error) {
	waiting := &waiting{k, k.rotation(), clients, b.minter.searches.vainFor(k.name), b.maintainer.unserved.of(k.name), b.now().Wall}
	data := showRows(keyRows, k.signingKey)
	for name := range keyShown {
		data[name] = ""
	}
	retired := []int{}
	for i := range k.Versions {
		v := &k.Versions[i]
		public, err := k.jwk(v)
		if err != nil {
			return nil, err
		}
		switch v.State {
		case rotation.Active:
			data["active_version"] = v.Number
			data["algorithm"], data["kid"], data["public_jwk"] = v.Algorithm, v.KID, public.Compact()
			data["created_time"] = formatTime(v.CreatedTime)
			data["public_pem"] = v.publicPEM()
		case rotation.Pending:
			data["pending_version"] = v.Number
			data["pending_kid"], data["pending_public_jwk"] = v.KID, public.Compact()
		case rotation.Retired:
			retired = append(retired, v.Number)
		}
	}
	data["name"], data["retired_versions"], data["blocked_by"] = k.name, retired, waiting.blockedBy()
	data["next_step"] = waiting.nextStep()
	data["next_rotation_time"] = formatTime(k.NextRotationTime)
	return &logical.Response{Data: data}, nil
}

// summary is what a list of keys has of each.
func (k *signingKey) summary() map[string]any {
	summary := map[string]any{"algorithm": "", "kid": "", "rotation": "none"}
	if v := k.in(rotation.Active); v != nil {
		summary["algorithm"], summary["kid"] = v.Algorithm, v.KID
	}
	if k.in(rotation.Pending) != nil {
		summary["rotation"] = string(rotation.Pending)
	}
	return summary
}
