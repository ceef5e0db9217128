// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/pem"
	"time"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
)

// signingKey is a named key as it is stored: its settings, and a list of versions whose states internal/rotation
// decides about.
type signingKey struct {
	header

	name             string        // not stored: the storage key has it
	CreatedTime      time.Time     `json:"created_time"`
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

	Algorithm  string            `json:"algorithm"`
	PublicKey  []byte            `json:"public_key"` // PKIX DER
	PrivateKey privatekey.Sealed `json:"private_key"`
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

// setRecords replaces the public records of the versions by newer ones, of which some may be left out. The private keys of
// destroyed versions go.
func (k *signingKey) setRecords(records []rotation.Version) {
	versions := make([]keyVersion, 0, len(records))
	for _, record := range records {
		v := *k.version(record.Number)
		v.Version = record
		if !record.Held() {
			v.PrivateKey = privatekey.Sealed{}
		}
		versions = append(versions, v)
	}
	k.Versions = versions
}

// in returns the version in a state, nil when there is none. Of several retired ones it is the newest.
func (k *signingKey) in(state rotation.State) *keyVersion {
	if v, found := k.rotationKey(nil).Find(state); found {
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

// jwk returns a version's public JWK. An entry whose public key can't be read is an unusableEntry.
func (k *signingKey) jwk(v *keyVersion) (*jwk.Public, error) {
	public, err := jwk.FromPKIX(v.PublicKey, v.KID)
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + k.name)
	}
	return public, nil
}

// publicPEM returns the public key as PEM (RFC 7468 section 13).
func (v *keyVersion) publicPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.PublicKey}))
}

// rsaBits returns the size of the modulus in bits, 0 for EC keys and for a public key that can't be read.
func (v *keyVersion) rsaBits() int {
	public, err := jwk.FromPKIX(v.PublicKey, v.KID)
	if err != nil {
		return 0
	}
	return public.RSABits()
}

// maxGeneratedBits is the size of the largest RSA key that is generated. Imported ones may be larger; but to make one of
// those takes long, and nothing can end it.
const maxGeneratedBits = 4096

// generatedBits returns the size of the RSA key that is generated for the next version: as before, but not too large.
// It is 0 after an EC key.
func (k *signingKey) generatedBits() int { return min(k.newest().rsaBits(), maxGeneratedBits) }

// newKeyVersion records a key pair; its place among the versions is not decided yet. An empty kid stands for the
// thumbprint (RFC 7638).
func newKeyVersion(key *privatekey.Key, kid string, imported bool, now time.Time) (*keyVersion, error) {
	described, err := jwk.New(key.Public(), kid)
	if err != nil {
		return nil, err
	}
	public, err := jwk.MarshalPKIX(key.Public())
	if err != nil {
		return nil, err
	}
	private, err := key.Seal()
	if err != nil {
		return nil, err
	}
	return &keyVersion{
		Version:   rotation.Version{KID: described.KID, Imported: imported, CreatedTime: now.UTC()},
		Algorithm: key.Algorithm(), PublicKey: public, PrivateKey: private,
	}, nil
}

// bring adds a version: pending, or active where none is held. One that was here before and is retired becomes pending
// again; one that was destroyed is a new version, with nothing known of it.
func (k *signingKey) bring(v *keyVersion, cause string) ([]rotation.Transition, error) {
	for i := range k.Versions {
		known := &k.Versions[i]
		switch {
		case known.KID != v.KID:
		case !bytes.Equal(known.PublicKey, v.PublicKey):
			return nil, fieldError("kid", "give another kid", "version %d of key %q has this kid", known.Number, k.name)
		case known.Compromised:
			return nil, fieldError("name", "make another key pair", "version %d of key %q is this key pair, and was marked compromised", known.Number, k.name)
		case known.State == rotation.Retired:
			return k.revive(known.Number, v.CreatedTime, cause)
		case known.Held():
			return nil, fieldError("name", "there is nothing to do", "version %d of key %q is this key pair, and is %s", known.Number, k.name, known.State)
		}
	}
	next, transitions, err := k.rotationKey(nil).Apply(rotation.Add{Version: v.Version, Cause: cause}, v.CreatedTime)
	if err != nil {
		return nil, err
	}
	added := *v
	added.Version = next.Versions[len(next.Versions)-1]
	k.Versions = append(k.Versions, added)
	k.setRecords(next.Versions)
	return transitions, nil
}

// revive makes a retired version pending again.
func (k *signingKey) revive(number int, now time.Time, cause string) ([]rotation.Transition, error) {
	next, transitions, err := k.rotationKey(nil).Apply(rotation.Revive{Version: number, Cause: cause}, now)
	if err != nil {
		return nil, err
	}
	k.setRecords(next.Versions)
	return transitions, nil
}
