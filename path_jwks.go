// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/singleflight"

	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/rotation"
)

const (
	jwksPath = "jwks"
	// jwksCacheControl lets a reader keep the set for a minute: a new key version is published well before it signs.
	jwksCacheControl = "public, max-age=60"
)

// jwkSets are the published JWK Sets (RFC 7517 section 5), as text: of each key, and of all. With them goes what the
// metrics tell of keys.
type jwkSets struct {
	all      []byte
	byKey    map[string][]byte
	versions []rotation.Version // of all keys
	unusable int                // keys whose entry can't be used
}

// publishedSets keeps the sets in memory: anybody may ask for them, so asking must cost next to nothing.
type publishedSets struct {
	mu      sync.RWMutex
	changes uint64
	sets    *jwkSets // nil until somebody asks, and after a change

	loads singleflight.Group // by changes
}

// jwksLoadWait bounds the reading of all keys.
const jwksLoadWait = 20 * time.Second

// get returns the sets. When they are not in memory they are loaded, once for all callers that ask meanwhile; one that
// gives up does not cancel it for the others. What was loaded is kept only if no key has changed since before it was
// read.
func (p *publishedSets) get(ctx context.Context, load func(context.Context) (*jwkSets, error)) (*jwkSets, error) {
	p.mu.RLock()
	sets, changes := p.sets, p.changes
	p.mu.RUnlock()
	if sets != nil {
		return sets, nil
	}
	loading := p.loads.DoChan(strconv.FormatUint(changes, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jwksLoadWait)
		defer cancel()
		sets, err := load(ctx)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.changes == changes {
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
	p.changes++
	p.sets = nil
}

func (b *backend) pathJWKS() *framework.Path {
	set := raw("A JWK Set (RFC 7517).", "application/json", map[string]*framework.FieldSchema{
		"keys": answerField(framework.TypeSlice, "The public keys, a JWK each."),
	})
	return &framework.Path{
		Pattern:      jwksPath + "(/" + framework.GenericNameRegex("key") + ")?$",
		Fields:       map[string]*framework.FieldSchema{"key": nameField("Name of a signing key. Left out: the public keys of all.")},
		DisplayAttrs: display("jwks|key-jwks"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.jwksRead, "Read the public keys as a JWK Set. No authentication is needed.", set),
		},
		HelpSynopsis: "The public keys as a JWK Set, without authentication.",
		HelpDescription: `
Gives the public keys as RFC 7517 has them, to anyone: this is the URL to save
as JWKS URL at an OAuth API key in the Redox dashboard, if Redox can reach it.
With a key's name it holds that key only. The answer is raw JSON:

    vault read -format=raw redox/jwks
`,
	}
}

// publishedKeys returns the sets from memory, or loads them.
func (b *backend) publishedKeys(ctx context.Context) (*jwkSets, error) {
	return b.published.get(ctx, func(ctx context.Context) (*jwkSets, error) { return b.loadSets(ctx, b.storage) })
}

func (b *backend) jwksRead(ctx context.Context, _ *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	sets, err := b.publishedKeys(ctx)
	if err != nil {
		return nil, err
	}
	body := sets.all
	if name := pathName(data, "key"); name != "" {
		body = sets.byKey[name]
		if body == nil {
			return nil, nil // Vault makes it a 404
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType:        "application/json",
		logical.HTTPCacheControlHeader: jwksCacheControl,
		logical.HTTPRawBody:            body,
		logical.HTTPStatusCode:         http.StatusOK,
	}}, nil
}

// loadSets reads all keys. One whose entry can't be used is logged and left out, so that it takes none of the others
// with it; a storage that fails is an error.
func (b *backend) loadSets(ctx context.Context, storage logical.Storage) (*jwkSets, error) {
	names, err := storage.List(ctx, keysStoragePrefix)
	if err != nil {
		return nil, err
	}
	sets := &jwkSets{byKey: make(map[string][]byte, len(names))}
	all := []*jwk.Public{}
	for _, name := range names {
		k, err := loadKey(ctx, storage, name)
		var own []*jwk.Public
		if err == nil && k != nil {
			own, err = k.published()
		}
		if unusable := (*unusableEntry)(nil); errors.As(err, &unusable) {
			b.Logger().Error("key is missing in the JWKS", "key", name, "error", err)
			sets.unusable++
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
