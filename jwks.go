// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/rotation"
)

// jwkSets are the published JWK Sets (RFC 7517 section 5), as text: of each key, and of all. With them goes what the
// metrics tell of keys.
type jwkSets struct {
	all      []byte
	byKey    map[string][]byte
	versions []rotation.Version // of all keys
	unusable map[string]error   // why the entries of the other keys can't be used
}

// publishedSets keeps the sets in memory: anybody may ask for them, so asking must cost next to nothing.
type publishedSets struct {
	mu   sync.RWMutex
	sets *jwkSets // nil until somebody asks, and after a change

	loads singleflight.Group // by the store's generation
}

// jwksLoadWait bounds the reading of all keys.
const jwksLoadWait = 20 * time.Second

// get returns the sets. When they are not in memory they are loaded, once for all who ask meanwhile; a reader that gives up
// does not cancel it for the others. What was loaded is kept only if nothing stored has changed since before it was read.
func (p *publishedSets) get(ctx context.Context, generation func() uint64, load func(context.Context) (*jwkSets, error)) (*jwkSets, error) {
	p.mu.RLock()
	sets, before := p.sets, generation()
	p.mu.RUnlock()
	if sets != nil {
		return sets, nil
	}
	loading := p.loads.DoChan(strconv.FormatUint(before, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jwksLoadWait)
		defer cancel()
		sets, err := load(ctx)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if generation() == before {
			p.sets = sets
		}
		return sets, nil
	})
	select {
	case loaded := <-loading:
		sets, _ := loaded.Val.(*jwkSets)
		return sets, loaded.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *publishedSets) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sets = nil
}

// jwkSets returns the published sets, from memory where nothing has changed.
func (r *keyring) jwkSets(ctx context.Context) (*jwkSets, error) {
	return r.published.get(ctx, r.store.generation, r.loadSets)
}

// loadSets reads all keys. One whose entry can't be used is logged and left out, so that it takes none of the others
// with it; a storage that fails is an error.
func (r *keyring) loadSets(ctx context.Context) (*jwkSets, error) {
	names, err := r.store.keyNames(ctx)
	if err != nil {
		return nil, err
	}
	sets := &jwkSets{byKey: make(map[string][]byte, len(names)), unusable: map[string]error{}}
	all := []*jwk.Public{}
	for _, name := range names {
		k, err := r.store.key(ctx, name)
		var own []*jwk.Public
		if err == nil && k != nil {
			own, err = k.published()
		}
		if asUnusable(err) != nil {
			r.logger.Error("key is missing in the JWKS", "key", name, "error", err)
			sets.unusable[name] = err
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == nil { // deleted since it was listed
			continue
		}
		all = append(all, own...)
		sets.byKey[name] = encodeSet(own)
		sets.versions = append(sets.versions, k.records()...)
	}
	sets.all = encodeSet(all)
	return sets, nil
}

// published returns the public JWKs of the versions that Redox may have to verify with.
func (k *signingKey) published() ([]*jwk.Public, error) {
	jwks := []*jwk.Public{}
	for i := range k.Versions {
		if !k.Versions[i].Held() {
			continue
		}
		public, err := k.jwk(&k.Versions[i])
		if err != nil {
			return nil, err
		}
		jwks = append(jwks, public)
	}
	return jwks, nil
}

func encodeSet(keys []*jwk.Public) []byte {
	text, _ := json.Marshal(struct { // strings only: can't fail
		Keys []*jwk.Public `json:"keys"`
	}{keys})
	return text
}
