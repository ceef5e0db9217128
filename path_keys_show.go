// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/pem"
	"slices"
	"strings"

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
		"The client IDs for which Redox has not accepted the version that is to sign, with the reason; keys/NAME/clients has more."),
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

// showChanged is showKey for the result of a change.
func showChanged(k *keySnapshot, err error) (*logical.Response, error) {
	if err != nil {
		return nil, err
	}
	return showKey(k)
}

// showKey answers with the settings and the public side of a key, and with what a rotation waits for.
func showKey(k *keySnapshot) (*logical.Response, error) {
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
			data["public_pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.PublicKey}))
		case rotation.Pending:
			data["pending_version"] = v.Number
			data["pending_kid"], data["pending_public_jwk"] = v.KID, public.Compact()
		case rotation.Retired:
			retired = append(retired, v.Number)
		}
	}
	data["name"], data["retired_versions"], data["blocked_by"] = k.name, retired, blockedBy(k)
	data["next_step"] = nextStep(k)
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

// blockedBy returns the client IDs that the wanted version is not accepted for, each with the reason in a few words,
// sorted.
func blockedBy(k *keySnapshot) []string {
	blocked := []string{}
	wanted, _ := k.rotation().Wanted()
	for _, standing := range k.rotation().Waiting() {
		reason := "not asked yet"
		if standing.Probe.Version == wanted.Number {
			reason, _, _ = strings.Cut(standing.Probe.Answer, ":")
		}
		blocked = append(blocked, standing.ClientID+": "+reason)
	}
	for _, r := range k.registrations() {
		if r.Problem != "" {
			reason, _, _ := strings.Cut(r.Problem, ":")
			blocked = append(blocked, r.ClientID+": "+reason)
		}
	}
	slices.Sort(blocked)
	return slices.Compact(blocked)
}

// nextStep returns what somebody has to do so that a rotation goes on, empty when nothing.
func nextStep(k *keySnapshot) string {
	for _, r := range k.registrations() {
		if r.Problem != "" {
			return "Client ID " + r.ClientID + ": " + r.Problem + "."
		}
	}
	if k.in(rotation.Active) == nil && k.in(rotation.Pending) == nil {
		return "The key has no version to sign with: write to keys/" + k.name + "/rotate."
	}
	if k.in(rotation.Pending) == nil {
		for _, s := range k.clients.Standings {
			if k.Registration != registrationPlatform && s.Probe.Version == s.Accepted {
				return "Client ID " + s.ClientID + ": Redox rejects the version that it had accepted. Its kid was taken away there, or Redox " +
					"can't read the JWKS URL: mend that; or this Vault was restored from an older state: write to keys/" + k.name + "/rotate."
			}
		}
		if len(k.rotation().Waiting()) > 0 {
			return "Redox does not accept the active version for every client ID: read keys/" + k.name + "/clients, and register public_jwk there."
		}
		return ""
	}
	then := " It takes over by itself once Redox accepts it for every client ID, at most 15 minutes later; keys/" + k.name + "/activate tries at once."
	switch k.Registration {
	case registrationJWKSURL:
		return "Redox has to read the new public key from the JWKS URL; there is nothing to do." + then
	case registrationPlatform:
		return "The engine registers the new public key through the Platform API; there is nothing to do." + then
	default:
		return "Add pending_public_jwk in the Redox dashboard, beside the JWK that is there, at the OAuth API key of each client ID." +
			then
	}
}
