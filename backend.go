// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/tokencache"
)

const backendHelp = `
The Redox secrets engine hands out short-lived access tokens for Redox, the
healthcare interoperability platform. It signs for them with a private key that
is made in Vault and never leaves it.

Set it up in this order: write keys/NAME, register its public_jwk at an OAuth
API key in the Redox dashboard, write config with that API key's client_id and
the key's name, then read token.
`

// backend is one mount of the engine.
type backend struct {
	*framework.Backend

	storage    logical.Storage    // for work that no single request owns
	systemView logical.SystemView // asked directly, not what was remembered for routing
	now        func() tokencache.Instant

	writes      writeLock
	tokens      *tokencache.Cache[*token]
	openKeys    openKeys
	published   publishedSets
	connections connections
}

// Factory makes the backend of a mount. Vault also calls it just to learn the engine's version and paths, so nothing is
// started, read or asked here.
func Factory(ctx context.Context, c *logical.BackendConfig) (logical.Backend, error) {
	return newBackend(ctx, c, tokencache.Now)
}

func newBackend(ctx context.Context, c *logical.BackendConfig, now func() tokencache.Instant) (*backend, error) {
	b := &backend{storage: c.StorageView, systemView: c.System, now: now, writes: newWriteLock()}
	b.tokens = tokencache.New(tokencache.Options[*token]{Mint: b.mint, Pauses: mintPauses, Now: now})
	b.Backend = &framework.Backend{
		Help: strings.TrimSpace(backendHelp),
		Paths: slices.Concat(
			[]*framework.Path{b.pathToken(), b.pathConfig()},
			b.pathRoles(), b.pathKeys(),
			[]*framework.Path{b.pathKeysImport(), b.pathJWKS(), b.pathAssertion(), b.pathCheck(), b.pathInfo()},
		),
		PathsSpecial: &logical.Paths{
			Unauthenticated: []string{jwksPath, jwksPath + "/*"},
			SealWrapStorage: []string{keysStoragePrefix, wrappingKeyStorage},
		},
		Secrets:        []*framework.Secret{b.leasedToken()},
		BackendType:    logical.TypeLogical,
		RunningVersion: version,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	routing := *c
	if c.System != nil {
		routing.System = &routingView{SystemView: c.System}
	}
	if err := b.Setup(ctx, &routing); err != nil {
		return nil, err
	}
	return b, nil
}

// HandleRequest looks at the input before the framework does, and decides what errors look like.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if len(req.Data) > 0 && slices.Contains(inputOperations, req.Operation) {
		if path := b.Route(req.Path); path != nil {
			checked := *req
			if path.Fields[privateKeyField] != nil {
				checked.Data = flattenJWK(req.Data)
			}
			if err := checkInput(path, checked.Data); err != nil {
				return answer(nil, err)
			}
			req = &checked
		}
	}
	return answer(b.Backend.HandleRequest(ctx, req))
}

// HandleExistenceCheck leaves the input out: what exists is said by the path alone, and the framework's error about a
// malformed field would hold its value.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	pathOnly := *req
	pathOnly.Data = nil
	return b.Backend.HandleExistenceCheck(ctx, &pathOnly)
}

// invalidate follows a change of storage by another node. Vault does not call it for a node's own writes: the handlers
// call the same functions themselves.
func (b *backend) invalidate(_ context.Context, key string) {
	switch {
	case key == configStorageKey:
		b.configChanged()
	case strings.HasPrefix(key, rolesStoragePrefix):
		b.roleChanged(strings.TrimPrefix(key, rolesStoragePrefix))
	case strings.HasPrefix(key, keysStoragePrefix):
		b.keyChanged(strings.TrimPrefix(key, keysStoragePrefix))
	}
}

// clean ends background work. It does not wait: Vault holds a lock of every mount of the process meanwhile.
func (b *backend) clean(context.Context) {
	b.tokens.Close()
	b.connections.close()
}

// routingView keeps the replication state for a second. The framework asks for it in every request, to forward what a
// standby may not do, and the answer takes a call to Vault; writes fail on their own where they may not be done.
type routingView struct {
	logical.SystemView
	known atomic.Pointer[knownState]
}

type knownState struct {
	state consts.ReplicationState
	until time.Time
}

func (v *routingView) ReplicationState() consts.ReplicationState {
	now := time.Now()
	if known := v.known.Load(); known != nil && now.Before(known.until) {
		return known.state
	}
	state := v.SystemView.ReplicationState()
	v.known.Store(&knownState{state: state, until: now.Add(time.Second)})
	return state
}
