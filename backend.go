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

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/rotation"
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

// backend is one mount of the engine: its paths, and what others tell it of changes. What it knows is in the four types
// that own it.
type backend struct {
	*framework.Backend

	store      *store
	keys       *keyring
	minter     *minter
	maintainer *maintainer
	telemetry  *telemetry
	now        func() tokencache.Instant
	// newWrappingKey generates one, which takes seconds; only tests set another.
	newWrappingKey func() (*privatekey.Key, error)
}

// Factory makes the backend of a mount. Vault also calls it just to learn the engine's version and paths, so nothing is
// started, read or asked here.
func Factory(ctx context.Context, c *logical.BackendConfig) (logical.Backend, error) {
	return newBackend(ctx, c, &signer{gate: signing}, tokencache.Now)
}

func newBackend(ctx context.Context, c *logical.BackendConfig, signer *signer, now func() tokencache.Instant) (*backend, error) {
	logger, thisNode := c.Logger, &node{c.System}
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	b := &backend{store: newStore(c.StorageView), now: now, newWrappingKey: generateWrappingKey}
	b.telemetry = newTelemetry(logger, b)
	b.keys = newKeyring(b.store, thisNode, now, logger, b.keyChanged)
	b.minter = newMinter(b.store, b.keys, thisNode, signer, b.telemetry, now)
	b.maintainer = newMaintainer(b.store, b.keys, b.minter, thisNode, b.telemetry, now)
	b.Backend = &framework.Backend{
		Help: strings.TrimSpace(backendHelp),
		Paths: slices.Concat(
			[]*framework.Path{b.pathToken(), b.pathConfig()},
			b.pathRoles(), b.pathKeys(), b.pathKeysRotate(), b.pathWrappingKey(),
			[]*framework.Path{b.pathKeysVersions(), b.pathKeysClients(), b.pathKeysImport(), b.pathJWKS(), b.pathAssertion(), b.pathCheck(), b.pathMetrics(), b.pathInfo()},
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

// initialize begins background work. Vault calls it once for a mount that serves requests, not in metadata mode.
func (b *backend) initialize(context.Context, *logical.InitializationRequest) error {
	b.maintainer.worker.start(b.maintainer.pass)
	b.telemetry.sender.start(b.telemetry.sendEvents)
	return nil
}

// periodic is called by Vault once a minute, under a lock that sealing waits for: so it only wakes the worker.
func (b *backend) periodic(context.Context, *logical.Request) error {
	b.maintainer.worker.wakeUp()
	return nil
}

// HandleRequest looks at the input before the framework does, and decides what errors look like.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if len(req.Data) > 0 {
		if path := b.Route(req.Path); path != nil && path.Operations[req.Operation] != nil {
			checked := *req
			if path.Fields[privateKeyField] != nil {
				checked.Data = flattenJWK(req.Data)
			}
			if err := checkInput(path, req.Operation, checked.Data); err != nil {
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
	switch {
	case errors.As(err, &user):
		return checkFound, false, nil
	case asUnusable(err) != nil:
		return checkFound, true, nil
	default:
		return checkFound, exists, err
	}
}

// keyChanged follows a change that this node has made to a key, and tells of it.
func (b *backend) keyChanged(c keyChange) {
	if c.observed {
		b.maintainer.worker.wakeUp() // to store it
		return
	}
	if c.endTokens {
		b.minter.dropTokensOf(c.key)
	}
	for _, t := range c.transitions {
		if t.To == rotation.Active {
			b.minter.tokens.ForgetFailures() // the server takes this version: a role that was rejected with another need not wait
		}
		if t.From == "" {
			b.maintainer.worker.wakeUp() // to register and probe it
		}
	}
	b.telemetry.transitions(c.key, c.transitions)
	if c.created {
		b.telemetry.changed(eventKeyCreate, keysStoragePrefix+c.key, logical.CreateOperation, "key", c.key)
	}
}

// invalidate follows a change of storage by another node. Vault does not call it for a node's own writes.
func (b *backend) invalidate(_ context.Context, key string) {
	b.store.changed(key)
	switch {
	case key == configStorageKey:
		b.minter.tokens.DoubtAll()
	case strings.HasPrefix(key, rolesStoragePrefix):
		b.minter.tokens.Doubt(strings.TrimPrefix(key, rolesStoragePrefix))
	case strings.HasPrefix(key, keysStoragePrefix):
		b.keys.invalidateKeys()
		b.minter.doubtTokensOf(strings.TrimPrefix(key, keysStoragePrefix))
	case strings.HasPrefix(key, clientsStoragePrefix):
		b.keys.invalidateClients(strings.TrimPrefix(key, clientsStoragePrefix))
	}
}

// clean ends background work. It does not wait: Vault holds a lock of every mount of the process meanwhile.
func (b *backend) clean(context.Context) {
	b.maintainer.worker.stop()
	b.telemetry.sender.stop()
	b.minter.close()
}

// node is what this node may do. It asks Vault, not what is remembered for routing.
type node struct{ view logical.SystemView }

// mayWrite reports whether this node may write to storage.
func (n *node) mayWrite() bool {
	state := n.view.ReplicationState()
	return !state.HasState(consts.ReplicationDRSecondary|consts.ReplicationPerformanceStandby) &&
		(n.view.LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary))
}

// isStandby reports whether this node is a performance standby, which can't register leases.
func (n *node) isStandby() bool {
	return n.view.ReplicationState().HasState(consts.ReplicationPerformanceStandby)
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
