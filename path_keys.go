// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	defaultAlgorithm = algorithmRS384
	defaultRSABits   = 3072
)

var rsaBitsAllowed = []int{2048, 3072, 4096}

// The states of a key version, in the order of its life.
const (
	statePending   = "pending"
	stateActive    = "active"
	stateRetired   = "retired"
	stateDestroyed = "destroyed"
)

// signingKey is a named key: a list of versions, of which one is active.
type signingKey struct {
	header

	name            string       // not stored: the storage key has it
	DeletionAllowed bool         `json:"deletion_allowed"`
	Versions        []keyVersion `json:"versions"` // oldest first
}

// keyVersion is one key pair. Its public half stays when the private one is destroyed.
type keyVersion struct {
	Version       int              `json:"version"` // from 1
	State         string           `json:"state"`
	Algorithm     string           `json:"algorithm"`
	KeyID         string           `json:"kid"`
	Imported      bool             `json:"imported"`
	PublicKey     []byte           `json:"public_key"` // PKIX DER
	PrivateKey    sealedPrivateKey `json:"private_key"`
	CreatedTime   time.Time        `json:"created_time"`
	ActivatedTime time.Time        `json:"activated_time,omitzero"`
}

// active gives the version that signs.
func (k *signingKey) active() (*keyVersion, error) {
	for i := range k.Versions {
		if k.Versions[i].State == stateActive {
			return &k.Versions[i], nil
		}
	}
	return nil, &unusableEntry{keysStoragePrefix + k.name, "has no active version; restore it from a snapshot of Vault"}
}

// jwk gives a version's public JWK.
func (k *signingKey) jwk(v *keyVersion) (*publicJWK, error) {
	public, err := x509.ParsePKIXPublicKey(v.PublicKey)
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	jwk, err := newPublicJWK(public, v.KeyID)
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	return jwk, nil
}

// published says whether the version belongs into the JWKS: Redox may have to verify with it.
func (v *keyVersion) published() bool {
	return v.State == statePending || v.State == stateActive || v.State == stateRetired
}

// newKeyVersion records a key pair as the first version, active at once. An empty kid stands for the thumbprint.
func newKeyVersion(key *privateKey, kid string, imported bool, now time.Time) (*keyVersion, error) {
	jwk, err := newPublicJWK(key.public(), kid)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.public())
	if err != nil {
		return nil, errors.New("the public key can't be encoded")
	}
	private, err := key.seal()
	if err != nil {
		return nil, err
	}
	return &keyVersion{
		Version: 1, State: stateActive, Algorithm: key.algorithm, KeyID: jwk.KeyID, Imported: imported,
		PublicKey: public, PrivateKey: private, CreatedTime: now.UTC(), ActivatedTime: now.UTC(),
	}, nil
}

// loadKey reads a signing key, nil when there is none.
func loadKey(ctx context.Context, storage logical.Storage, name string) (*signingKey, error) {
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	k := &signingKey{name: name}
	found, err := readEntry(ctx, storage, keysStoragePrefix+name, k)
	if err != nil || !found {
		return nil, err
	}
	return k, nil
}

// requireKey refuses a reference to a key that does not exist. The empty name refers to none.
func requireKey(ctx context.Context, storage logical.Storage, name string) error {
	if name == "" {
		return nil
	}
	k, err := loadKey(ctx, storage, name)
	if err == nil && k == nil {
		err = fieldError("key", "create it first with a write to keys/"+name, "there is no signing key named %q", name)
	}
	return err
}

var keyShownFields = map[string]*framework.FieldSchema{
	"name":             answerField(framework.TypeString, "Name of the key."),
	"algorithm":        answerField(framework.TypeString, "Algorithm of the active version."),
	"kid":              answerField(framework.TypeString, "Key ID of the active version, as Redox must know it."),
	"created_time":     answerField(framework.TypeTime, "When the active version was made or imported."),
	"public_jwk":       answerField(framework.TypeString, "Public JWK of the active version on one line, to paste into the Redox dashboard."),
	"public_pem":       answerField(framework.TypeString, "Public key of the active version as PEM."),
	"deletion_allowed": answerField(framework.TypeBool, "Whether the key may be deleted."),
	"versions":         answerField(framework.TypeMap, "By version number: state, algorithm, kid, times, whether imported, public_jwk."),
}

func (b *backend) pathKeys() []*framework.Path {
	shown := ok("The key's public half.", keyShownFields)
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
			Pattern: "keys/" + framework.GenericNameRegex("name"),
			Fields: map[string]*framework.FieldSchema{
				"name": nameField("Name of the key."),
				"algorithm": {Type: framework.TypeString, Default: defaultAlgorithm, AllowedValues: []any{algorithmRS384, algorithmES384},
					Description:  "Signature algorithm: RS384 or ES384, the two that Redox accepts. Can't be changed later.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Algorithm"}},
				"rsa_bits": {Type: framework.TypeInt, Default: defaultRSABits, AllowedValues: []any{2048, 3072, 4096},
					Description:  "Size of an RS384 key: 2048, 3072 or 4096. Can't be changed later.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "RSA bits"}},
				"kid": {Type: framework.TypeString,
					Description:  "Key ID under which Redox will know the public key. Default: its RFC 7638 thumbprint. Can't be changed later.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Key ID"}},
				"deletion_allowed": {Type: framework.TypeBool,
					Description:  "Whether the key may be deleted. Default: false.",
					DisplayAttrs: &framework.DisplayAttributes{Name: "Deletion allowed"}},
			},
			ExistenceCheck: b.keyExists,
			DisplayAttrs:   display("key"),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.CreateOperation: changing(b.keyWrite, "Generate a signing key.", shown),
				logical.UpdateOperation: changing(b.keyWrite, "Change a key's settings; never its key pair.", shown),
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

Writing a key that exists never makes a new key pair. To bring a key that exists
elsewhere, see keys/NAME/import. A key is deleted only with
deletion_allowed=true, and not while the configuration or a role uses it.
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
	return k.show()
}

// show answers with the public side of a key.
func (k *signingKey) show() (*logical.Response, error) {
	active, err := k.active()
	if err != nil {
		return nil, err
	}
	jwk, err := k.jwk(active)
	if err != nil {
		return nil, err
	}
	versions := make(map[string]any, len(k.Versions))
	for i := range k.Versions {
		v := &k.Versions[i]
		jwk, err := k.jwk(v)
		if err != nil {
			return nil, err
		}
		versions[strconv.Itoa(v.Version)] = map[string]any{
			"state":          v.State,
			"algorithm":      v.Algorithm,
			"kid":            v.KeyID,
			"imported":       v.Imported,
			"created_time":   formatTime(v.CreatedTime),
			"activated_time": formatTime(v.ActivatedTime),
			"public_jwk":     jwk.compact(),
		}
	}
	return &logical.Response{Data: map[string]any{
		"name":             k.name,
		"algorithm":        active.Algorithm,
		"kid":              active.KeyID,
		"created_time":     formatTime(active.CreatedTime),
		"public_jwk":       jwk.compact(),
		"public_pem":       string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: active.PublicKey})),
		"deletion_allowed": k.DeletionAllowed,
		"versions":         versions,
	}}, nil
}

// formatTime writes a time as RFC 3339 in UTC, to the second.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (b *backend) keyWrite(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name := pathName(data, "name")
	k, err := loadKey(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	var generated *keyVersion
	if k == nil {
		// Before the lock: an RSA key takes a while, and nobody need wait for it.
		if generated, err = b.generateVersion(data); err != nil {
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
	switch {
	case k == nil && generated == nil:
		return nil, fieldError("name", "write it once more to create it", "the key was deleted at the same moment")
	case k == nil:
		if err := requireFreeKeyID(ctx, req.Storage, generated.KeyID); err != nil {
			return nil, err
		}
		k = &signingKey{name: name, Versions: []keyVersion{*generated}}
	default:
		if err := k.refuseChange(data); err != nil {
			return nil, err
		}
	}
	if allowed, named := data.GetOk("deletion_allowed"); named {
		k.DeletionAllowed, _ = allowed.(bool)
	}
	return b.storeKey(ctx, req.Storage, k)
}

// storeKey writes the key and answers with its public side. The caller holds the write lock.
func (b *backend) storeKey(ctx context.Context, storage logical.Storage, k *signingKey) (*logical.Response, error) {
	defer b.keyChanged(k.name)
	if err := writeEntry(ctx, storage, keysStoragePrefix+k.name, k); err != nil {
		return nil, err
	}
	return k.show()
}

// generateVersion makes the key pair that the request describes.
func (b *backend) generateVersion(data *framework.FieldData) (*keyVersion, error) {
	algorithm, _ := data.Get("algorithm").(string)
	if !slices.Contains(algorithms, algorithm) {
		return nil, fieldError("algorithm", "give RS384 or ES384", "the value is not an algorithm that Redox accepts")
	}
	bits, _ := data.Get("rsa_bits").(int)
	if _, named := data.GetOk("rsa_bits"); named && algorithm != algorithmRS384 {
		return nil, fieldError("rsa_bits", "leave it out", "it is for RS384 keys only")
	}
	if !slices.Contains(rsaBitsAllowed, bits) {
		return nil, fieldError("rsa_bits", "give 2048, 3072 or 4096", "the size is not one of those offered")
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
	active, err := k.active()
	if err != nil {
		return err
	}
	const wayOut = "leave the field out, or create a key under another name"
	if algorithm, named := data.GetOk("algorithm"); named && algorithm != active.Algorithm {
		return fieldError("algorithm", wayOut, "this key exists and is %s; writing it never makes a new key pair", active.Algorithm)
	}
	if kid, _ := data.Get("kid").(string); kid != "" && kid != active.KeyID {
		return fieldError("kid", wayOut, "this key exists and its kid is %q; writing it never changes that", active.KeyID)
	}
	if bits, named := data.GetOk("rsa_bits"); named && bits != active.rsaBits() {
		return fieldError("rsa_bits", wayOut, "this key exists with another size; writing it never makes a new key pair")
	}
	return nil
}

// rsaBits is the size of the modulus, 0 for EC keys.
func (v *keyVersion) rsaBits() int {
	public, err := x509.ParsePKIXPublicKey(v.PublicKey)
	if err != nil {
		return 0
	}
	return rsaSize(public)
}

// requireFreeKeyID refuses a kid that a key of this mount has: Redox tells keys apart by it.
func requireFreeKeyID(ctx context.Context, storage logical.Storage, kid string) error {
	names, err := storage.List(ctx, keysStoragePrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		k, err := loadKey(ctx, storage, name)
		if err != nil {
			return err
		}
		if k == nil {
			continue
		}
		for _, v := range k.Versions {
			if v.KeyID == kid {
				return fieldError("kid", "give another kid", "key %q has this kid", name)
			}
		}
	}
	return nil
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
	return nil, req.Storage.Delete(ctx, keysStoragePrefix+name)
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

// keyChanged forgets what was derived from the key.
func (b *backend) keyChanged(name string) {
	b.published.drop()
	b.openKeys.forget(name)
	b.tokens.DropFunc(func(t *token) bool { return t.keyName == name })
}
