// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
)

const (
	defaultAlgorithm = privatekey.RS384
	defaultRSABits   = 3072
)

var rsaBitsAllowed = []any{2048, 3072, maxGeneratedBits}

// keyRows are a key's settings. Its key pairs are no settings: they come and go with its versions.
var keyRows = []row[signingKey]{
	{"deletion_allowed", framework.TypeBool, "Deletion allowed",
		"Whether the key may be deleted.",
		func(k *signingKey) any { return &k.DeletionAllowed }},
	{"registration", framework.TypeString, "Registration",
		"How Redox learns of a new version's public key. manual: somebody pastes it into the Redox dashboard. jwks_url: " +
			"Redox reads jwks/NAME. platform: the engine puts it there through Redox's Platform API.",
		func(k *signingKey) any { return &k.Registration }},
	{"platform_role", framework.TypeString, "Platform role",
		"With registration=platform: name of a role whose tokens may manage API keys, which takes a user-level API key of Redox.",
		func(k *signingKey) any { return &k.PlatformRole }},
	{"public_jwks_url", framework.TypeString, "Public JWKS URL",
		"With registration=jwks_url: the URL under which Redox reads the JWKS. The engine looks there whether a new key is " +
			"served yet, before it tries it.",
		func(k *signingKey) any { return &k.PublicJWKSURL }},
	{"rotation_period", framework.TypeDurationSecond, "Rotation period",
		"Make a new version by itself, this long after the last one. At least 1h. Unset: not by period.",
		func(k *signingKey) any { return &k.RotationPeriod }},
	{"rotation_schedule", framework.TypeString, "Rotation schedule",
		"Make a new version by itself, at the times of this cron expression of five fields, in UTC, at least 1h apart.",
		func(k *signingKey) any { return &k.RotationSchedule }},
	{"rotation_window", framework.TypeDurationSecond, "Rotation window",
		"With rotation_schedule: how long after a scheduled time a rotation may still begin; after that it waits for the next. " +
			"At least 1h. Unset: however late.",
		func(k *signingKey) any { return &k.RotationWindow }},
	{"retire_grace", framework.TypeDurationSecond, "Grace period",
		"How long a retired version is kept and published, from when it was retired or was used last. From 1h to 8760h (a year).",
		func(k *signingKey) any { return &k.RetireGrace }},
}

func (b *backend) pathKeys() []*framework.Path {
	// OpenAPI has one operation for both.
	const writing = "Generate a signing key, or change a key's settings; never its key pair."
	shown := ok("The key's public half.", keyShownFields())
	fields := rowSchemas(keyRows, defaultKey())
	for name, schema := range map[string]*framework.FieldSchema{
		"name": nameField("Name of the key."),
		"algorithm": {Type: framework.TypeString, Default: defaultAlgorithm, AllowedValues: []any{privatekey.RS384, privatekey.ES384},
			Description:  "Signature algorithm: RS384 or ES384, the two that Redox accepts. Default: RS384. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Algorithm"}},
		"rsa_bits": {Type: framework.TypeInt, Default: defaultRSABits, AllowedValues: rsaBitsAllowed,
			Description:  "Size of an RS384 key: 2048, 3072 or 4096. Default: 3072. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "RSA bits"}},
		"kid": {Type: framework.TypeString,
			Description:  "Key ID under which Redox will know the public key. Default: its RFC 7638 thumbprint. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Key ID"}},
		forceField: deletionForce(),
	} {
		fields[name] = schema
	}
	fields["registration"].AllowedValues = []any{registrationManual, registrationJWKSURL, registrationPlatform}
	return []*framework.Path{
		{
			Pattern:      "keys/?$",
			DisplayAttrs: display("keys"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: reading(b.keysList, "List the signing keys.", listing("The names of the keys.",
					"By name: algorithm and kid of the active version, and whether a rotation is under way.")),
			},
			HelpSynopsis: "List the signing keys.",
			HelpDescription: `
Lists the names of all signing keys. With more of each:

    vault list -detailed redox/keys
`,
		},
		{
			Pattern:        "keys/" + framework.GenericNameRegex("name"),
			Fields:         fields,
			ExistenceCheck: b.keyExists,
			DisplayAttrs:   display("key"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: changing(b.keyWrite, writing, shown),
				logical.UpdateOperation: changing(b.keyWrite, writing, shown),
				logical.ReadOperation:   reading(b.keyRead, "Read a key's public half.", shown),
				logical.DeleteOperation: changing(b.keyDelete, "Delete a key.", noContent),
			},
			HelpSynopsis: "Signing keys, whose private half never leaves Vault.",
			HelpDescription: `
Writing a name that is not there yet generates a key pair. The private half is
kept in Vault's sealed storage and no endpoint gives it out. The answer has the
public half: register public_jwk at your OAuth API key in the Redox dashboard,
for example what this prints:

    vault read -field=public_jwk redox/keys/NAME

Writing a key that exists changes its settings and never makes a new key pair:
that is what keys/NAME/rotate is for. To bring a key that exists elsewhere, see
keys/NAME/import. A key is deleted only with deletion_allowed=true, and not while
the configuration or a role uses it. One whose stored entry can't be read is
deleted with force=true, and with it all that is known of its clients.
`,
		},
	}
}

func (b *backend) keysList(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := b.store.keyNames(ctx)
	if err != nil {
		return nil, err
	}
	about := make(map[string]any, len(names))
	for _, name := range names {
		k, err := b.store.key(ctx, name)
		if asUnusable(err) != nil {
			about[name] = map[string]any{"algorithm": "", "kid": "", "rotation": "unreadable"}
			continue
		}
		if err != nil {
			return nil, err
		}
		if k != nil { // else it was deleted since it was listed
			about[name] = k.summary()
		}
	}
	return logical.ListResponseWithInfo(names, about), nil
}

func (b *backend) keyExists(ctx context.Context, _ *logical.Request, data *framework.FieldData) (bool, error) {
	k, err := b.store.key(ctx, pathName(data, "name"))
	return k != nil, err
}

func (b *backend) keyRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	k, err := b.keys.snapshot(ctx, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	return b.showKey(ctx, k)
}

// formatTime writes a time as RFC 3339 in UTC, to the second, and no time as nothing.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (b *backend) keyWrite(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	there, err := b.store.key(ctx, name)
	if err != nil {
		return nil, err
	}
	clients, err := b.maintainer.directory.of(ctx, name) // to answer with, read while nothing is changed yet
	if err != nil {
		return nil, err
	}
	var generated *keyVersion
	if there == nil {
		// Before the write: an RSA key takes a while, and nobody need wait for it.
		if generated, err = b.generateVersion(data, defaultAlgorithm, defaultRSABits); err != nil {
			return nil, err
		}
	}
	updated := false
	k, err := b.keys.edit(ctx, name, func(w *writing, k *signingKey) (*edit, error) {
		created := len(k.Versions) == 0
		if created && generated == nil {
			return nil, fieldError("name", "write it once more to create it", "the key was deleted at the same moment")
		}
		if !created {
			if err := k.refuseChange(data); err != nil {
				return nil, err
			}
		}
		before := k.rotationTimes()
		if err := applyRows(keyRows, data, k, defaultKey()); err != nil {
			return nil, err
		}
		if err := k.validate(ctx, w.store, b.now().Wall); err != nil {
			return nil, err
		}
		if created {
			return &edit{version: generated, cause: "created by an operator"}, nil
		}
		if k.rotationTimes() != before {
			k.scheduleRotation(b.now().Wall)
		}
		updated = true
		return &edit{}, nil
	})
	if err != nil {
		return nil, err
	}
	if updated {
		b.telemetry.changed(eventKeyUpdate, req.Path, req.Operation, "key", name)
	}
	return b.showKeyOf(k, clients)
}

// generateVersion makes the key pair that the request describes, with defaults for what it leaves open. Zero bits
// stand for the default of all keys.
func (b *backend) generateVersion(data *framework.FieldData, algorithm string, bits int) (*keyVersion, error) {
	if isGiven(data, "algorithm") {
		algorithm, _ = data.Get("algorithm").(string)
	}
	if !slices.Contains(privatekey.Algorithms(), algorithm) {
		return nil, fieldError("algorithm", "give RS384 or ES384", "the value is not an algorithm that Redox accepts")
	}
	if named, _ := data.Get("rsa_bits").(int); isGiven(data, "rsa_bits") {
		if algorithm != privatekey.RS384 {
			return nil, fieldError("rsa_bits", "leave it out", "it is for RS384 keys only")
		}
		if !slices.Contains(rsaBitsAllowed, any(named)) {
			return nil, fieldError("rsa_bits", "give 2048, 3072 or 4096", "the size is not one of those offered")
		}
		bits = named
	}
	if bits == 0 {
		bits = defaultRSABits
	}
	kid, _ := data.Get("kid").(string)
	if err := checkText("kid", kid); err != nil {
		return nil, err
	}
	key, err := privatekey.Generate(algorithm, bits)
	if err != nil {
		return nil, err
	}
	return newKeyVersion(key, kid, false, b.now().Wall)
}

// refuseChange refuses a write that asks for another key pair than the one that is there.
func (k *signingKey) refuseChange(data *framework.FieldData) error {
	wayOut := "leave the field out, or make a new version with keys/" + k.name + "/rotate"
	newest := k.newest()
	if isGiven(data, "algorithm") && data.Get("algorithm") != newest.Algorithm {
		return fieldError("algorithm", wayOut, "this key exists and is %s; writing it never makes a new key pair", newest.Algorithm)
	}
	if kid, _ := data.Get("kid").(string); kid != "" && kid != newest.KID {
		return fieldError("kid", wayOut, "this key exists and its kid is %q; writing it never changes that", newest.KID)
	}
	if isGiven(data, "rsa_bits") && data.Get("rsa_bits") != newest.rsaBits() {
		return fieldError("rsa_bits", wayOut, "this key exists with another size; writing it never makes a new key pair")
	}
	return nil
}

// validate checks a key's settings.
func (k *signingKey) validate(ctx context.Context, s *store, now time.Time) error {
	if err := firstError(
		checkReference("platform_role", k.PlatformRole),
		checkURL("public_jwks_url", k.PublicJWKSURL, queryAllowed),
		checkRange("retire_grace", k.RetireGrace, time.Hour, 365*24*time.Hour),
		k.checkRotationTimes(now),
	); err != nil {
		return err
	}
	switch k.Registration {
	case registrationManual, registrationJWKSURL:
	case registrationPlatform:
		if k.PlatformRole == "" {
			return fieldError("platform_role", "name a role whose tokens may manage API keys", "registration=platform needs it")
		}
	default:
		return fieldError("registration", "give manual, jwks_url or platform", "the value is not a way of registration")
	}
	if k.PlatformRole == "" {
		return nil
	}
	r, err := s.role(ctx, k.PlatformRole)
	if err == nil && r == nil {
		err = fieldError("platform_role", "create it first with a write to roles/"+k.PlatformRole, "there is no role named %q", k.PlatformRole)
	}
	if err != nil {
		return err
	}
	c, _, err := s.config(ctx)
	if err != nil {
		return err
	}
	if own := r.overlay(c); own.Key == k.name {
		// Its own public key nobody could register, once the one that Redox knows is gone.
		return fieldError("platform_role", "give it a key of its own in roles/"+k.PlatformRole, "role %q signs with this key itself", k.PlatformRole)
	}
	return nil
}

func (b *backend) keyDelete(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	mayBeDeleted := func(s *store, k *signingKey) error {
		if !k.DeletionAllowed {
			return fieldError("deletion_allowed", "write deletion_allowed=true to keys/"+name+" first",
				"key %q is protected from deletion", name)
		}
		references, unusable, err := s.referencesTo(ctx, name)
		if err != nil {
			return err
		}
		if len(references) > 0 {
			return fieldError("name", "give them another key first", "key %q is used by %s", name, someOf(references))
		}
		return mayBeUsedBy(fmt.Sprintf("key %q", name), unusable)
	}
	var left []string
	k, err := b.keys.snapshot(ctx, name)
	if err != nil && asUnusable(err) == nil {
		return nil, err
	}
	if k != nil && len(k.registrations()) > 0 && mayBeDeleted(b.store, k.signingKey) == nil {
		left = b.maintainer.deregister(ctx, k)
	}
	deleted, err := b.keys.delete(ctx, name, func(w *writing, k *signingKey) error { return mayBeDeleted(w.store, k) })
	if asUnusable(err) != nil {
		if err = forced(err, data); err == nil {
			deleted, err = b.keys.deleteUnusable(ctx, name)
		}
	}
	if err != nil || !deleted {
		return nil, err
	}
	b.telemetry.changed(eventKeyDelete, req.Path, req.Operation, "key", name)
	if len(left) == 0 {
		return nil, nil
	}
	response := &logical.Response{}
	for _, one := range left {
		response.AddWarning("A public key of the deleted key may still be registered at Redox; take it away in the dashboard: " + one)
	}
	return response, nil
}
