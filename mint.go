// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// token is a minted access token with what its readers are told. It is shared and never changed.
type token struct {
	accessToken string
	tokenType   string
	scope       string
	clientID    string
	kid         string
	expireTime  string
	mintTime    string

	keyName string // whose change drops the token
	leased  bool
	warning string // for its readers; empty when all is as it should be
}

// minter makes tokens and assertions from roles: it resolves a role, signs, and asks the server. It writes nothing to
// storage; what it observes of clients goes to the keyring.
type minter struct {
	store     *store
	keys      *keyring
	node      *node
	telemetry *telemetry
	now       func() tokencache.Instant

	tokens      *tokencache.Cache[*token]
	connections connections
	// send asks the server for a token. Nil, as in production, is over the connection.
	send func(context.Context, redox.TokenRequest) (*redox.Token, error)
}

func newMinter(s *store, keys *keyring, n *node, t *telemetry, now func() tokencache.Instant) *minter {
	m := &minter{store: s, keys: keys, node: n, telemetry: t, now: now}
	m.tokens = tokencache.New(tokencache.Options[*token]{Mint: m.mint, Pauses: mintPauses, Ended: t.mintEnded, Now: now})
	return m
}

// dropTokensOf drops the tokens that were minted with a key.
func (m *minter) dropTokensOf(key string) {
	m.tokens.DropFunc(func(t *token) bool { return t.keyName == key })
}

// close ends the mints under way, and does not wait for them.
func (m *minter) close() {
	m.tokens.Close()
	m.connections.close()
}

// roleConfig is the configuration as it is for one role.
type roleConfig struct {
	config
	leased, disabled bool
}

// client returns what the server knows the role by.
func (c *roleConfig) client() rotation.Client {
	return rotation.Client{ClientID: c.ClientID, TokenURL: c.tokenURL()}
}

// resolved is a role with all that an assertion needs.
type resolved struct {
	roleConfig
	key        *keySnapshot
	generation uint64 // the store's, from before the key was read
}

// order returns the versions to sign with, best first.
func (c *resolved) order() []int { return c.key.rotation().Order(c.client()) }

// next returns the best version that is not among those asked, nil when all are.
func (c *resolved) next(asked map[int]bool) *keyVersion {
	for _, number := range c.order() {
		if !asked[number] {
			return c.key.version(number)
		}
	}
	return nil
}

// resolve reads what the role consists of; the empty name is the configuration alone. It has at least one version to
// sign with. What is missing is a userError.
func (m *minter) resolve(ctx context.Context, roleName string) (*resolved, error) {
	generation := m.store.generation()
	r, where := &role{}, "config"
	if roleName != "" {
		where = "roles/" + roleName + " or config"
		var err error
		if r, err = m.store.role(ctx, roleName); err != nil {
			return nil, err
		}
		if r == nil {
			return nil, fieldError("role", "create it with a write to roles/"+roleName+", or list roles to see which there are",
				"there is no role named %q", roleName)
		}
	}
	if r.Disabled {
		return nil, fieldError("disabled", "whoever disabled it can write disabled=false to roles/"+roleName,
			"role %q is disabled", roleName)
	}
	c, _, err := m.store.config(ctx)
	if err != nil {
		return nil, err
	}
	own := r.overlay(c)
	if own.ClientID == "" {
		return nil, fieldError("client_id", "set it with a write to "+where, "no client ID is configured")
	}
	if own.Key == "" {
		return nil, fieldError("key", "create a key with a write to keys/NAME and name it in "+where, "no signing key is configured")
	}
	key, err := m.keys.snapshot(ctx, own.Key)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fieldError("key", "create it, or name another in "+where, "the signing key %q does not exist", own.Key)
	}
	resolved := &resolved{roleConfig: own, key: key, generation: generation}
	if len(resolved.order()) == 0 {
		return nil, fieldError("key", "make a new version with a write to keys/"+own.Key+"/rotate",
			"the signing key %q has no version to sign with: all are destroyed", own.Key)
	}
	return resolved, nil
}

// assertion signs a new client assertion with a version of the role's key.
func (c *roleConfig) assertion(key *privatekey.Key, kid string, now time.Time) (string, error) {
	return signAssertion(key, assertionClaims{
		clientID: c.ClientID,
		audience: c.audience(),
		kid:      kid,
		jku:      c.JKU,
		now:      now,
		backdate: c.ClockSkew,
		lifetime: c.AssertionTTL,
	})
}

// signed is a client assertion to be handed out, with the kid of the version that signed it.
type signed struct {
	*resolved
	assertion, kid string
	expireTime     time.Time
}

// sign makes a client assertion for a role, without asking the server.
func (m *minter) sign(ctx context.Context, roleName string) (*signed, error) {
	c, err := m.resolve(ctx, roleName)
	if err != nil {
		return nil, err
	}
	v := c.next(nil)
	key, err := m.keys.open(c.key.signingKey, v, c.generation)
	if err != nil {
		return nil, err
	}
	now := m.now().Wall
	assertion, err := c.assertion(key, v.KID, now)
	if err != nil {
		return nil, err
	}
	return &signed{c, assertion, v.KID, now.Add(c.AssertionTTL)}, nil
}

// request asks the server for a token with one version. It also returns the moment before the request that succeeded.
func (m *minter) request(ctx context.Context, c *roleConfig, key *privatekey.Key, kid string) (*redox.Token, tokencache.Instant, error) {
	send := m.send
	if send == nil {
		connection, err := m.connections.get(c.CAPEM, m.now)
		if err != nil {
			return nil, tokencache.Instant{}, err
		}
		send = connection.RequestToken
	}
	var requestedAt tokencache.Instant
	answer, err := send(ctx, redox.TokenRequest{
		TokenURL:   c.tokenURL(),
		Scope:      c.Scope,
		Timeout:    c.RequestTimeout,
		MaxRetries: c.MaxRetries,
		Assertion: func() (string, error) { // once per attempt
			requestedAt = m.now()
			return c.assertion(key, kid, requestedAt.Wall)
		},
	})
	m.telemetry.metrics.exchange(answer, err)
	return answer, requestedAt, err
}

// exchanged is what came of asking the server for a token.
type exchanged struct {
	token       *redox.Token
	requestedAt tokencache.Instant
	kid         string // of the version that signed
	warning     string // for the users of the token
}

// exchange asks the server for a token with one version after the other, until it knows one. Only "Public key not found"
// makes it go on: then the key was replaced at the server, and a version that is still held may be what is there now,
// also one that was made meanwhile. What is observed is noted.
func (m *minter) exchange(ctx context.Context, c *resolved) (*exchanged, error) {
	var observed outcome
	var rejected error // of the version that was best
	own := *c
	defer func() { m.observe(&own, observed) }()
	asked := map[int]bool{}
	for {
		v := own.next(asked)
		if v == nil {
			m.readKeyAgain(ctx, &own)
			if v = own.next(asked); v == nil {
				return nil, rejected
			}
		}
		asked[v.Number] = true
		key, err := m.keys.open(own.key.signingKey, v, own.generation)
		if err != nil {
			return nil, err
		}
		answer, requestedAt, err := m.request(ctx, &own.roleConfig, key, v.KID)
		var remote *redox.Error
		switch {
		case err == nil:
			observed.accepted, observed.acceptedTime = v.Number, m.now().Wall
			result := &exchanged{token: answer, requestedAt: requestedAt, kid: v.KID}
			if rejected != nil {
				result.warning = fmt.Sprintf("Redox did not know the version of key %q that was to sign, so version %d with kid %s signed: "+
					"read keys/%s for what to do", own.Key, v.Number, v.KID, own.Key)
				m.telemetry.logger.Warn("Redox does not know the version that was to sign, another one did", "key", own.Key,
					"client_id", own.ClientID, "version", v.Number, "kid", v.KID, "error", rejected)
			}
			return result, nil
		case errors.As(err, &remote) && remote.PublicKeyNotFound():
			if rejected == nil {
				rejected = err
			}
			if wanted, found := own.key.rotation().Wanted(); found && v.Number == wanted.Number {
				observed.rejected, observed.rejectedTime, observed.answer = v.Number, m.now().Wall, remote.Error()
			}
		default:
			return nil, err
		}
	}
}

// observe notes what was observed of a role's client, if that is news.
func (m *minter) observe(c *resolved, o outcome) {
	after, _, err := c.key.rotation().Replay(o.events(c.client()))
	if err == nil && !after.Clients.Equal(c.key.clients) {
		m.keys.observeMint(c.Key, c.client(), o)
	}
}

// readKeyAgain replaces the versions of a role's key by those that it has now: a request that hung may have lasted longer
// than a rotation. What is known of clients stays. It does nothing if the key can't be read: then what the server said
// is what counts.
func (m *minter) readKeyAgain(ctx context.Context, c *resolved) {
	generation := m.store.generation()
	k, err := m.store.key(ctx, c.Key)
	if err != nil || k == nil {
		return
	}
	c.key, c.generation = &keySnapshot{signingKey: k, stored: c.key.stored, clients: c.key.clients}, generation
}

// mint makes the token of a role, for the cache.
func (m *minter) mint(ctx context.Context, roleName string) (tokencache.Minted[*token], error) {
	nothing := tokencache.Minted[*token]{}
	c, err := m.resolve(ctx, roleName)
	if err != nil {
		return nothing, err
	}
	if c.leased && m.node.isStandby() {
		// A standby can't register the lease; the active node mints.
		return nothing, logical.ErrReadOnly
	}
	result, err := m.exchange(ctx, c)
	if errors.Is(err, context.Canceled) {
		return nothing, err // a change has superseded this mint, or the mount is closing: nothing failed
	}
	if err != nil {
		m.telemetry.logger.Warn("minting a token failed", "role", roleName, "key", c.Key, "kid", c.next(nil).KID, "error", err)
		return nothing, err
	}
	answer := result.token
	m.telemetry.logger.Debug("minted a token", "role", roleName, "key", c.Key, "kid", result.kid,
		"lifetime", answer.Lifetime.String(), "latency", answer.Latency.String())
	return tokencache.Minted[*token]{
		Value: &token{
			accessToken: answer.AccessToken,
			tokenType:   answer.TokenType,
			scope:       answer.Scope,
			clientID:    c.ClientID,
			kid:         result.kid,
			expireTime:  formatTime(result.requestedAt.Wall.Add(answer.Lifetime)),
			mintTime:    formatTime(result.requestedAt.Wall),
			keyName:     c.Key,
			leased:      c.leased,
			warning:     result.warning,
		},
		RequestedAt: result.requestedAt,
		Lifetime:    answer.Lifetime,
		MinTTL:      c.MinTTL,
	}, nil
}

// mintPauses reports whether the cache remembers a failure, and for how long at least: it remembers those that reached
// for the server. The others are settled by a look into storage, and end with the write that mends them.
func mintPauses(err error) (pause bool, least time.Duration) {
	var remote *redox.Error
	if errors.As(err, &remote) {
		return true, remote.RetryAfter
	}
	return errors.Is(err, tokencache.ErrExpired), 0
}
