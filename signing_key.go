// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// signingKey is a named key as it is stored: its settings, and a list of versions whose states internal/rotation
// decides about.
type signingKey struct {
	header

	name             string        // not stored: the storage key has it
	DeletionAllowed  bool          `json:"deletion_allowed"`
	Registration     string        `json:"registration"`
	PlatformRole     string        `json:"platform_role"`
	PublicJWKSURL    string        `json:"public_jwks_url"`
	RotationPeriod   time.Duration `json:"rotation_period"`
	RotationSchedule string        `json:"rotation_schedule"`
	RotationWindow   time.Duration `json:"rotation_window"`
	RetireGrace      time.Duration `json:"retire_grace"`

	NextRotationTime time.Time    `json:"next_rotation_time,omitzero"` // zero: none by itself
	Versions         []keyVersion `json:"versions"`                    // oldest first
}

// keyVersion is one key pair. Its public half stays when the private one is destroyed.
type keyVersion struct {
	rotation.Version

	Algorithm  string           `json:"algorithm"`
	PublicKey  []byte           `json:"public_key"` // PKIX DER
	PrivateKey sealedPrivateKey `json:"private_key"`
}

// How Redox learns of a public key.
const (
	registrationManual   = "manual"
	registrationJWKSURL  = "jwks_url"
	registrationPlatform = "platform"
)

func defaultKey() *signingKey {
	return &signingKey{Registration: registrationManual, RetireGrace: 24 * time.Hour}
}

// records returns the versions without their keys, as internal/rotation takes them.
func (k *signingKey) records() []rotation.Version {
	records := make([]rotation.Version, len(k.Versions))
	for i := range k.Versions {
		records[i] = k.Versions[i].Version
	}
	return records
}

// rotationKey returns the key as internal/rotation takes it, given what is known of its clients.
func (k *signingKey) rotationKey(clients rotation.Clients) rotation.Key {
	return rotation.Key{Versions: k.records(), Clients: clients, Grace: k.RetireGrace}
}

// setRecords replaces the public records of the versions by newer ones. The private keys of destroyed versions go.
func (k *signingKey) setRecords(records []rotation.Version) {
	for i := range k.Versions {
		k.Versions[i].Version = records[i]
		if !records[i].Held() {
			k.Versions[i].PrivateKey = sealedPrivateKey{}
		}
	}
}

// in returns the version in a state, nil when there is none. Of several retired ones it is the newest.
func (k *signingKey) in(state rotation.State) *keyVersion {
	if v, found := k.rotationKey(rotation.Clients{}).Find(state); found {
		return k.version(v.Number)
	}
	return nil
}

// version returns a version by its number, nil when there is none.
func (k *signingKey) version(number int) *keyVersion {
	for i := range k.Versions {
		if k.Versions[i].Number == number {
			return &k.Versions[i]
		}
	}
	return nil
}

// newest returns the version made last. A key has at least one.
func (k *signingKey) newest() *keyVersion { return &k.Versions[len(k.Versions)-1] }

// jwk returns a version's public JWK.
func (k *signingKey) jwk(v *keyVersion) (*publicJWK, error) {
	public, err := x509.ParsePKIXPublicKey(v.PublicKey)
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	jwk, err := newPublicJWK(public, v.KID)
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	return jwk, nil
}

// rsaBits returns the size of the modulus, 0 for EC keys.
func (v *keyVersion) rsaBits() int {
	public, err := x509.ParsePKIXPublicKey(v.PublicKey)
	if err != nil {
		return 0
	}
	return rsaSize(public)
}

// newKeyVersion records a key pair; its place among the versions is not decided yet. An empty kid stands for the
// thumbprint.
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
		Version:   rotation.Version{KID: jwk.KeyID, Imported: imported, CreatedTime: now.UTC()},
		Algorithm: key.algorithm, PublicKey: public, PrivateKey: private,
	}, nil
}

// add appends a version: pending, or active where no other is.
func (k *signingKey) add(v *keyVersion, cause string) (rotation.Transition, error) {
	next, transitions, err := k.rotationKey(rotation.Clients{}).Apply(rotation.Add{Version: v.Version, Cause: cause}, v.CreatedTime)
	if err != nil {
		return rotation.Transition{}, err
	}
	k.Versions = append(k.Versions, *v)
	k.setRecords(next.Versions)
	return transitions[0], nil
}

// loadKey reads a signing key, nil when there is none.
func loadKey(ctx context.Context, storage logical.Storage, name string) (*signingKey, error) {
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	k := defaultKey()
	k.name = name
	found, err := readEntry(ctx, storage, keysStoragePrefix+name, k)
	if err != nil || !found {
		return nil, err
	}
	if len(k.Versions) == 0 {
		return nil, unreadableEntry(keysStoragePrefix + name)
	}
	return k, nil
}

// requireKey refuses a reference to a key that does not exist. The empty name refers to none.
func requireKey(ctx context.Context, storage logical.Storage, name string) error {
	if name == "" {
		return nil
	}
	_, err := existingKey(ctx, storage, "key", name)
	return err
}

// existingKey is loadKey for a field that has to name a key.
func existingKey(ctx context.Context, storage logical.Storage, field, name string) (*signingKey, error) {
	k, err := loadKey(ctx, storage, name)
	if err == nil && k == nil {
		err = fieldError(field, "create it first with a write to keys/"+name, "there is no signing key named %q", name)
	}
	return k, err
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
			if v.KID == kid {
				return fieldError("kid", "give another kid", "key %q has this kid", name)
			}
		}
	}
	return nil
}
