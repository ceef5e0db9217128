// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/pem"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

const (
	defaultAlgorithm = algorithmRS384
	defaultRSABits   = 3072
)

var rsaBitsAllowed = []any{2048, 3072, 4096}

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
	"next_step":          answerField(framework.TypeString, "What you have to do, if anything, so that a rotation goes on."),
	"next_rotation_time": answerField(framework.TypeString, "When a new version will be made by itself, if it will."),
	"versions":           answerField(framework.TypeMap, "By version number: state, algorithm, kid, times, whether imported, public_jwk."),
	"registrations":      answerField(framework.TypeSlice, "With registration=platform: where each public key is registered, or why not."),
	"users": answerField(framework.TypeSlice, "The client IDs that Redox has accepted the key from: which version, since when, "+
		"and what came of trying the next one."),
}

func keyShownFields() map[string]*framework.FieldSchema {
	shown := responseFields(rowSchemas(keyRows, &signingKey{}))
	for name, schema := range keyShown {
		shown[name] = schema
	}
	return shown
}

func (b *backend) pathKeys() []*framework.Path {
	// OpenAPI has one operation for both.
	const writing = "Generate a signing key, or change a key's settings; never its key pair."
	shown := ok("The key's public half.", keyShownFields())
	fields := rowSchemas(keyRows, defaultKey())
	for name, schema := range map[string]*framework.FieldSchema{
		"name": nameField("Name of the key."),
		"algorithm": {Type: framework.TypeString, Default: defaultAlgorithm, AllowedValues: []any{algorithmRS384, algorithmES384},
			Description:  "Signature algorithm: RS384 or ES384, the two that Redox accepts. Default: RS384. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Algorithm"}},
		"rsa_bits": {Type: framework.TypeInt, Default: defaultRSABits, AllowedValues: rsaBitsAllowed,
			Description:  "Size of an RS384 key: 2048, 3072 or 4096. Default: 3072. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "RSA bits"}},
		"kid": {Type: framework.TypeString,
			Description:  "Key ID under which Redox will know the public key. Default: its RFC 7638 thumbprint. Can't be changed later.",
			DisplayAttrs: &framework.DisplayAttributes{Name: "Key ID"}},
	} {
		fields[name] = schema
	}
	fields["registration"].AllowedValues = []any{registrationManual, registrationJWKSURL, registrationPlatform}
	return []*framework.Path{
		{
			Pattern:      "keys/?$",
			DisplayAttrs: display("keys"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: reading(b.keysList, "List the signing keys.", listing("The names of the keys.")),
			},
			HelpSynopsis:    "List the signing keys.",
			HelpDescription: "Lists the names of all signing keys.",
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
the configuration or a role uses it.
`,
		},
	}
}

func (b *backend) keysList(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := req.Storage.List(ctx, keysStoragePrefix)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) keyExists(ctx context.Context, req *logical.Request, data *framework.FieldData) (bool, error) {
	k, err := loadKey(ctx, req.Storage, pathName(data, "name"))
	return k != nil, err
}

func (b *backend) keyRead(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	k, err := loadKey(ctx, req.Storage, pathName(data, "name"))
	if err != nil || k == nil {
		return nil, err
	}
	return b.showStored(ctx, req.Storage, k)
}

// showStored is showKey with what is known of the key's clients now.
func (b *backend) showStored(ctx context.Context, storage logical.Storage, k *signingKey) (*logical.Response, error) {
	stored, err := b.acceptanceOf(ctx, storage, k)
	if err != nil {
		return nil, err
	}
	return showKey(k, stored)
}

// showKey answers with the public side of a key and what is known of its clients.
func showKey(k *signingKey, stored *storedAcceptance) (*logical.Response, error) {
	data := showRows(keyRows, k)
	for name := range keyShown {
		data[name] = ""
	}
	versions := make(map[string]any, len(k.Versions))
	for i := range k.Versions {
		v := &k.Versions[i]
		jwk, err := k.jwk(v)
		if err != nil {
			return nil, err
		}
		switch v.State {
		case rotation.Active:
			data["algorithm"], data["kid"], data["public_jwk"] = v.Algorithm, v.KID, jwk.compact()
			data["created_time"] = formatTime(v.CreatedTime)
			data["public_pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.PublicKey}))
		case rotation.Pending:
			data["pending_kid"], data["pending_public_jwk"] = v.KID, jwk.compact()
		}
		versions[strconv.Itoa(v.Number)] = showVersion(v, jwk)
	}
	data["name"], data["versions"] = k.name, versions
	data["users"] = showClients(k, stored.Clients)
	data["registrations"] = showRegistrations(k.registrations(stored))
	data["next_step"] = nextStep(k, stored)
	data["next_rotation_time"] = formatTime(k.NextRotationTime)
	return &logical.Response{Data: data}, nil
}

// showVersion has the times that are known.
func showVersion(v *keyVersion, jwk *publicJWK) map[string]any {
	shown := map[string]any{
		"state":        string(v.State),
		"algorithm":    v.Algorithm,
		"kid":          v.KID,
		"imported":     v.Imported,
		"forced":       v.Forced,
		"compromised":  v.Compromised,
		"created_time": formatTime(v.CreatedTime),
		"public_jwk":   jwk.compact(),
	}
	for name, moment := range map[string]time.Time{
		"activated_time": v.ActivatedTime, "retired_time": v.RetiredTime, "destroyed_time": v.DestroyedTime,
	} {
		if !moment.IsZero() {
			shown[name] = formatTime(moment)
		}
	}
	return shown
}

// showClients returns for each client which version signs for it, and how far the next one is.
func showClients(k *signingKey, clients rotation.Clients) []any {
	shown := []any{}
	for _, standing := range clients.Standings {
		client := map[string]any{
			"client_id":        standing.ClientID,
			"token_url":        standing.TokenURL,
			"accepted_version": standing.Accepted,
			"accepted_time":    formatTime(standing.AcceptedTime),
		}
		if v := k.version(standing.Accepted); v != nil {
			client["accepted_kid"] = v.KID
		}
		if probe := standing.Probe; probe.Asked > 0 {
			client["refused_version"], client["refused_since"] = probe.Version, formatTime(probe.FirstTime)
			client["last_tried_time"], client["last_answer"] = formatTime(probe.LastTime), probe.Answer
		}
		shown = append(shown, client)
	}
	return shown
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
	k, err := loadKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	var generated *keyVersion
	if k == nil {
		// Before the lock: an RSA key takes a while, and nobody need wait for it.
		if generated, err = b.generateVersion(data, defaultAlgorithm, defaultRSABits); err != nil {
			return nil, err
		}
	}

	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err = loadKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	created := k == nil
	switch {
	case created && generated == nil:
		return nil, fieldError("name", "write it once more to create it", "the key was deleted at the same moment")
	case created:
		k = defaultKey()
		k.name = name
	default:
		if err := k.refuseChange(data); err != nil {
			return nil, err
		}
	}
	before := k.rotationTimes()
	if err := applyRows(keyRows, data, k, defaultKey()); err != nil {
		return nil, err
	}
	if err := b.validateKey(ctx, req.Storage, k); err != nil {
		return nil, err
	}
	if created {
		return b.storeNewVersion(ctx, req.Storage, k, generated, "created by an operator")
	}
	if k.rotationTimes() != before {
		k.scheduleRotation(b.now().Wall)
	}
	stored, err := b.acceptanceOf(ctx, req.Storage, k)
	if err != nil {
		return nil, err
	}
	defer b.keyChanged(name) // also after a failed Put: it may have been carried out
	if err := writeEntry(ctx, req.Storage, keysStoragePrefix+name, k); err != nil {
		return nil, err
	}
	b.changed(eventKeyUpdate, req.Path, req.Operation, "key", name)
	return showKey(k, stored)
}

// storeNewVersion adds a version to a key and stores both. The caller holds the write lock.
func (b *backend) storeNewVersion(ctx context.Context, storage logical.Storage, k *signingKey, v *keyVersion, cause string) (*logical.Response, error) {
	if err := requireFreeKeyID(ctx, storage, v.KID); err != nil {
		return nil, err
	}
	created := len(k.Versions) == 0
	transition, err := k.add(v, cause)
	if err != nil {
		return nil, explain(k, err)
	}
	k.scheduleRotation(b.now().Wall)
	stored, err := b.acceptanceOf(ctx, storage, k)
	if err != nil {
		return nil, err
	}
	if err := b.storeTransitions(ctx, storage, k, []rotation.Transition{transition}); err != nil {
		return nil, err
	}
	if created {
		b.changed(eventKeyCreate, keysStoragePrefix+k.name, logical.CreateOperation, "key", k.name)
	}
	b.worker.wakeUp() // to register and probe it
	return showKey(k, stored)
}

// generateVersion makes the key pair that the request describes, with defaults for what it leaves open. Zero bits
// stand for the default of all keys.
func (b *backend) generateVersion(data *framework.FieldData, algorithm string, bits int) (*keyVersion, error) {
	if isGiven(data, "algorithm") {
		algorithm, _ = data.Get("algorithm").(string)
	}
	if !slices.Contains(algorithms, algorithm) {
		return nil, fieldError("algorithm", "give RS384 or ES384", "the value is not an algorithm that Redox accepts")
	}
	if named, _ := data.Get("rsa_bits").(int); isGiven(data, "rsa_bits") {
		if algorithm != algorithmRS384 {
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
	key, err := generatePrivateKey(algorithm, bits)
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

// validateKey checks a key's settings.
func (b *backend) validateKey(ctx context.Context, storage logical.Storage, k *signingKey) error {
	if err := firstError(
		checkReference("platform_role", k.PlatformRole),
		checkURL("public_jwks_url", k.PublicJWKSURL, queryAllowed),
		checkRange("retire_grace", k.RetireGrace, time.Hour, 365*24*time.Hour),
		k.checkRotationTimes(b.now().Wall),
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
	r, err := loadRole(ctx, storage, k.PlatformRole)
	if err == nil && r == nil {
		err = fieldError("platform_role", "create it first with a write to roles/"+k.PlatformRole, "there is no role named %q", k.PlatformRole)
	}
	if err != nil {
		return err
	}
	c, _, err := loadConfig(ctx, storage)
	if err == nil && r.overlay(*c).Key == k.name {
		// Its own public key nobody could register, once the one that Redox knows is gone.
		err = fieldError("platform_role", "give it a key of its own in roles/"+k.PlatformRole, "role %q signs with this key itself", k.PlatformRole)
	}
	return err
}

func (b *backend) keyDelete(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	k, err := loadKey(ctx, req.Storage, name)
	if err != nil || k == nil {
		return nil, err
	}
	if !k.DeletionAllowed {
		return nil, fieldError("deletion_allowed", "write deletion_allowed=true to keys/"+name+" first",
			"key %q is protected from deletion", name)
	}
	users, err := usersOfKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, fieldError("name", "give them another key first", "key %q is used by %s", name, someOf(users))
	}
	defer b.keyChanged(name)
	// What was accepted goes first: without its key it would be taken for that of a later key of this name.
	if err := req.Storage.Delete(ctx, acceptanceStoragePrefix+name); err != nil {
		return nil, err
	}
	b.learned.take(name)
	if err := req.Storage.Delete(ctx, keysStoragePrefix+name); err != nil {
		return nil, err
	}
	b.changed(eventKeyDelete, req.Path, req.Operation, "key", name)
	return nil, nil
}

// usersOfKey names the configuration and the roles that name the key themselves.
func usersOfKey(ctx context.Context, storage logical.Storage, name string) ([]string, error) {
	c, _, err := loadConfig(ctx, storage)
	if err != nil {
		return nil, err
	}
	var users []string
	if c.Key == name {
		users = append(users, "config")
	}
	roles, err := storage.List(ctx, rolesStoragePrefix)
	if err != nil {
		return nil, err
	}
	for _, roleName := range roles {
		r, err := loadRole(ctx, storage, roleName)
		if err != nil {
			return nil, err
		}
		if r != nil && r.Key == name {
			users = append(users, rolesStoragePrefix+roleName)
		}
	}
	return users, nil
}

// keysRegisteredBy names the keys that are registered with the tokens of a role.
func keysRegisteredBy(ctx context.Context, storage logical.Storage, role string) ([]string, error) {
	names, err := storage.List(ctx, keysStoragePrefix)
	if err != nil {
		return nil, err
	}
	var managed []string
	for _, name := range names {
		k, err := loadKey(ctx, storage, name)
		if err != nil {
			return nil, err
		}
		if k != nil && k.PlatformRole == role {
			managed = append(managed, keysStoragePrefix+name)
		}
	}
	return managed, nil
}
