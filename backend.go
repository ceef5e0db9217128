// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
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
The Redox secrets engine hands out short-lived access tokens for Redox
(redoxengine.com), which connects healthcare applications. To get one, it signs
a request with a private key that is made in Vault and never leaves it; Redox
checks the signature with the public key that you have registered there.

To set it up, when it is enabled at redox/:

 1. Make a signing key, and print its public half:
      vault write -f redox/keys/main
      vault read -field=public_jwk redox/keys/main
 2. In the Redox dashboard, register that JWK at an OAuth API key. The API key's
    page shows its client ID.
 3. Tell the engine both:
      vault write redox/config client_id=CLIENT_ID key=main
 4. See whether Redox agrees, and if not, why:
      vault write -f redox/check
 5. Read tokens:
      vault read redox/token

More API keys, or teams with policies of their own, get a role each: write
roles/NAME, and read token/NAME.
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
	learned     learnedOutcomes
	worker      *worker
	metrics     *metrics
	events      eventQueue
	announcer   *worker // sends events
	trouble     mintTrouble
}

// Factory makes the backend of a mount. Vault also calls it just to learn the engine's version and paths, so nothing is
// started, read or asked here.
func Factory(ctx context.Context, c *logical.BackendConfig) (logical.Backend, error) {
	return newBackend(ctx, c, tokencache.Now)
}

func newBackend(ctx context.Context, c *logical.BackendConfig, now func() tokencache.Instant) (*backend, error) {
	b := &backend{
		storage: c.StorageView, systemView: c.System, now: now, writes: newWriteLock(),
		worker: newWorker(), announcer: newWorker(), metrics: newMetrics(),
	}
	b.tokens = tokencache.New(tokencache.Options[*token]{Mint: b.mint, Pauses: mintPauses, Ended: b.mintEnded, Now: now})
	b.Backend = &framework.Backend{
		Help: strings.TrimSpace(backendHelp),
		Paths: slices.Concat(
			[]*framework.Path{b.pathToken(), b.pathConfig()},
			b.pathRoles(), b.pathKeys(), b.pathKeysRotate(),
			[]*framework.Path{b.pathKeysImport(), b.pathWrappingKey(), b.pathJWKS(), b.pathAssertion(), b.pathCheck(), b.pathMetrics(), b.pathInfo()},
		),
		PathsSpecial: &logical.Paths{
			Unauthenticated: []string{jwksPath, jwksPath + "/*"},
			SealWrapStorage: []string{keysStoragePrefix, wrappingKeyStorage},
		},
		Secrets:        []*framework.Secret{b.leasedToken()},
		BackendType:    logical.TypeLogical,
		RunningVersion: version,
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
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
	if len(req.Data) > 0 {
		if path := b.Route(req.Path); path != nil && path.Operations[req.Operation] != nil {
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
	response, err := b.Backend.HandleRequest(ctx, req)
	if req.Operation == logical.HelpOperation {
		inlineSchemas(response)
	}
	return answer(response, err)
}

// HandleExistenceCheck leaves the input out: what exists is said by the path alone, and the framework's error about a
// malformed field would hold its value. A name that can't be, or an entry that can't be used, is no error yet: Vault
// would make "internal error" of it, and the operation that follows says what is wrong.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	pathOnly := *req
	pathOnly.Data = nil
	checkFound, exists, err = b.Backend.HandleExistenceCheck(ctx, &pathOnly)
	var user *userError
	var unusable *unusableEntry
	switch {
	case errors.As(err, &user):
		return checkFound, false, nil
	case errors.As(err, &unusable):
		return checkFound, true, nil
	default:
		return checkFound, exists, err
	}
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
	b.worker.stop()
	b.announcer.stop()
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
