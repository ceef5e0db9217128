// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"hash"
	"time"

	"vault-plugin-secrets-redox/internal/privatekey"
)

// formerWraps is how long keys that were wrapped under the former wrapping key can be imported.
const formerWraps = time.Hour

// wrappingKey is the entry of the key pairs under which private keys are wrapped for import.
type wrappingKey struct {
	header

	PrivateKey privatekey.Sealed  `json:"private_key"`
	Former     *privatekey.Sealed `json:"former_private_key,omitempty"`
	Replaced   time.Time          `json:"replaced_time,omitzero"`
}

// wrappingKeys are the opened keys of that entry.
type wrappingKeys struct {
	present  *privatekey.Key
	former   *privatekey.Key // nil when there is none
	replaced time.Time       // when the present one took its place
}

func generateWrappingKey() (*privatekey.Key, error) {
	return privatekey.Generate(privatekey.RS384, wrappingKeyBits)
}

// formerCounts reports whether a wrapping key that was replaced at a time can still be used. A time that lies ahead, since a
// clock did, counts as long ago.
func formerCounts(replaced, now time.Time) bool {
	age := now.Sub(replaced)
	return age >= 0 && age < formerWraps
}

// formerAt returns the former wrapping key while it can be used, else nil.
func (k *wrappingKeys) formerAt(now time.Time) *privatekey.Key {
	if !formerCounts(k.replaced, now) {
		return nil
	}
	return k.former
}

// unwrap returns the private key that was wrapped under the present key, or the former one while it can be used. Which of
// them was tried its error does not say.
func (k *wrappingKeys) unwrap(wrapped []byte, newHash func() hash.Hash, now time.Time) (*privatekey.Key, error) {
	key, err := k.present.Unwrap(wrapped, newHash())
	if former := k.formerAt(now); err != nil && former != nil {
		if key, formerErr := former.Unwrap(wrapped, newHash()); formerErr == nil {
			return key, nil
		}
	}
	return key, err
}

// wrappingKeys returns the mount's wrapping keys, nil when none has been made. A present one that can't be used is an
// unusableEntry; a former one is left out then.
func (s *store) wrappingKeys(ctx context.Context) (*wrappingKeys, error) {
	generation := s.generation()
	stored := &wrappingKey{}
	found, err := s.read(ctx, wrappingKeyStorage, stored)
	if err != nil {
		return nil, err
	}
	if s.generation() == generation {
		s.formerReplaced.Store(&stored.Replaced)
	}
	if !found {
		return nil, nil
	}
	keys := &wrappingKeys{replaced: stored.Replaced}
	if keys.present, err = stored.PrivateKey.Open(); err != nil || keys.present.RSABits() != wrappingKeyBits {
		return nil, unreadableEntry(wrappingKeyStorage)
	}
	if stored.Former != nil {
		if keys.former, err = stored.Former.Open(); err != nil || keys.former.RSABits() != wrappingKeyBits {
			keys.former = nil
		}
	}
	return keys, nil
}

// putWrappingKeys stores a mount's wrapping keys.
func (w *writing) putWrappingKeys(ctx context.Context, k *wrappingKeys) error {
	sealed, err := k.present.Seal()
	if err != nil {
		return err
	}
	entry := &wrappingKey{PrivateKey: sealed}
	if k.former != nil {
		former, err := k.former.Seal()
		if err != nil {
			return err
		}
		entry.Former, entry.Replaced = &former, k.replaced
	}
	return w.put(ctx, wrappingKeyStorage, entry)
}

// dropFormerWrappingKey deletes the former wrapping key when its time is over. Storage is read only after it has changed.
func (m *maintainer) dropFormerWrappingKey(ctx context.Context) error {
	now := m.now().Wall
	if replaced := m.store.formerReplaced.Load(); replaced != nil && (replaced.IsZero() || formerCounts(*replaced, now)) {
		return nil
	}
	keys, err := m.store.wrappingKeys(ctx)
	if err != nil || keys == nil || keys.replaced.IsZero() || formerCounts(keys.replaced, now) {
		return err
	}
	return m.store.write(ctx, func(w *writing) error {
		keys, err := w.wrappingKeys(ctx)
		if err != nil || keys == nil || formerCounts(keys.replaced, now) {
			return err
		}
		keys.former = nil
		return w.putWrappingKeys(ctx, keys)
	})
}
