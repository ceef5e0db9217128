// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// From a role's name to a token: what token/ mints through the cache, check/ tries without it, and assertion/ stops
// half-way of.

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
	warning string // for who reads it; empty when all is as it should be
}

// client is a role resolved to all that an assertion needs: the configuration as it is for the role, the key, and which
// of its versions is used.
type client struct {
	config
	role       *role
	signingKey *signingKey
	acceptance *rotation.Acceptance
	generation uint64 // of the open keys, from before the key was read

	version *keyVersion
	key     *privateKey // the version's
}

// user is what Redox knows the client by.
func (c *client) user() rotation.User {
	return rotation.User{ClientID: c.ClientID, TokenURL: c.tokenURL()}
}

// order gives the versions to sign with, best first.
func (c *client) order() []int {
	return rotation.Order(c.signingKey.records(), c.acceptance, c.user())
}

// use makes the client sign with a version.
func (b *backend) use(c *client, number int) (err error) {
	c.version = c.signingKey.version(number)
	c.key, err = b.openKeys.open(c.Key, c.version.PrivateKey, c.generation)
	return err
}

// resolve reads what the role consists of; the empty name is the configuration alone. What is missing is a userError.
func (b *backend) resolve(ctx context.Context, storage logical.Storage, roleName string) (*client, error) {
	generation := b.openKeys.generation()
	r, where := &role{}, "config"
	if roleName != "" {
		where = "roles/" + roleName + " or config"
		var err error
		if r, err = loadRole(ctx, storage, roleName); err != nil {
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
	c, _, err := loadConfig(ctx, storage)
	if err != nil {
		return nil, err
	}
	effective := r.overlay(*c)
	if effective.ClientID == "" {
		return nil, fieldError("client_id", "set it with a write to "+where, "no client ID is configured")
	}
	if effective.Key == "" {
		return nil, fieldError("key", "create a key with a write to keys/NAME and name it in "+where, "no signing key is configured")
	}
	k, err := loadKey(ctx, storage, effective.Key)
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, fieldError("key", "create it, or name another in "+where, "the signing key %q does not exist", effective.Key)
	}
	stored, err := b.acceptanceOf(ctx, storage, k)
	if err != nil {
		return nil, err
	}
	resolved := &client{config: effective, role: r, signingKey: k, acceptance: &stored.Acceptance, generation: generation}
	order := resolved.order()
	if len(order) == 0 {
		return nil, fieldError("key", "make a new version with a write to keys/"+k.name+"/rotate",
			"the signing key %q has no version to sign with: all are destroyed", k.name)
	}
	return resolved, b.use(resolved, order[0])
}

// assertion signs a new client assertion.
func (c *client) assertion(now time.Time) (string, error) {
	return c.key.sign(assertionClaims{
		clientID: c.ClientID,
		audience: c.audience(),
		kid:      c.version.KeyID,
		jku:      c.JKU,
		now:      now,
		backdate: c.ClockSkew,
		lifetime: c.AssertionTTL,
	})
}

// exchange asks Redox for a token. It also gives the moment before the request that succeeded.
func (b *backend) exchange(ctx context.Context, c *client) (*redox.Token, tokencache.Instant, error) {
	connection, err := b.connections.get(c.CAPEM, b.now)
	if err != nil {
		return nil, tokencache.Instant{}, err
	}
	var requestedAt tokencache.Instant
	answer, err := connection.RequestToken(ctx, redox.TokenRequest{
		TokenURL:   c.tokenURL(),
		Scope:      c.Scope,
		Timeout:    c.RequestTimeout,
		MaxRetries: c.MaxRetries,
		Assertion: func() (string, error) { // once per attempt
			requestedAt = b.now()
			return c.assertion(requestedAt.Wall)
		},
	})
	b.metrics.exchange(answer, err)
	return answer, requestedAt, err
}

// exchangeInOrder asks Redox for a token with one version after the other, until Redox knows one. Only "Public key not
// found" makes it go on: then the key was replaced at Redox, and a version that is still held may be what is there now,
// also one that was made meanwhile. What was learned is kept. The warning is for who uses the token.
func (b *backend) exchangeInOrder(ctx context.Context, c *client) (answer *redox.Token, requestedAt tokencache.Instant, warning string, err error) {
	var learned outcome
	var refused error // of the version that was best
	defer func() {
		if learned.apply(c.signingKey.records(), c.user(), c.acceptance) {
			b.learned.note(c.Key, c.user(), learned)
			b.worker.wakeUp()
		}
	}()
	tried := map[int]bool{}
	for {
		number := c.next(tried)
		if number == 0 && b.readKeyAgain(ctx, c) {
			number = c.next(tried)
		}
		if number == 0 {
			return nil, requestedAt, "", refused
		}
		tried[number] = true
		if err := b.use(c, number); err != nil {
			return nil, requestedAt, "", err
		}
		answer, requestedAt, err = b.exchange(ctx, c)
		var remote *redox.Error
		switch {
		case err == nil:
			learned.accepted, learned.acceptedTime = number, b.now().Wall
			if refused != nil {
				warning = fmt.Sprintf("Redox did not know the version of key %q that was to sign, so version %d with kid %s signed: "+
					"read keys/%s for what to do", c.Key, number, c.version.KeyID, c.Key)
				b.Logger().Warn("Redox does not know the version that was to sign, another one did", "key", c.Key,
					"client_id", c.ClientID, "version", number, "kid", c.version.KeyID, "error", refused)
			}
			return answer, requestedAt, warning, nil
		case errors.As(err, &remote) && remote.PublicKeyNotFound():
			if refused == nil {
				refused = err
			}
			if wanted := rotation.Wanted(c.signingKey.records()); wanted != nil && number == wanted.Number {
				learned.refused, learned.refusedTime, learned.answer = number, b.now().Wall, remote.Error()
			}
		default:
			return nil, requestedAt, "", err
		}
	}
}

// next gives the best version that was not tried, 0 when all were.
func (c *client) next(tried map[int]bool) int {
	for _, number := range c.order() {
		if !tried[number] {
			return number
		}
	}
	return 0
}

// readKeyAgain gives a client the versions that its key has now: a request that hung may have lasted longer than a
// rotation.
func (b *backend) readKeyAgain(ctx context.Context, c *client) bool {
	generation := b.openKeys.generation()
	k, err := loadKey(ctx, b.storage, c.Key)
	if err != nil || k == nil {
		return false // what Redox said is what counts
	}
	c.signingKey, c.generation = k, generation
	return true
}

// mint makes the token of a role, for the cache.
func (b *backend) mint(ctx context.Context, roleName string) (tokencache.Minted[*token], error) {
	nothing := tokencache.Minted[*token]{}
	c, err := b.resolve(ctx, b.storage, roleName)
	if err != nil {
		return nothing, err
	}
	if c.role.Leased && b.systemView.ReplicationState().HasState(consts.ReplicationPerformanceStandby) {
		// A standby can't register the lease; the active node mints.
		return nothing, logical.ErrReadOnly
	}
	best := c.version.KeyID
	answer, requestedAt, warning, err := b.exchangeInOrder(ctx, c)
	if errors.Is(err, context.Canceled) {
		return nothing, err // a change has superseded this mint, or the mount is closing: nothing failed
	}
	if err != nil {
		b.Logger().Warn("minting a token failed", "role", roleName, "key", c.Key, "kid", best, "error", err)
		return nothing, err
	}
	b.Logger().Debug("minted a token", "role", roleName, "key", c.Key, "kid", c.version.KeyID,
		"lifetime", answer.Lifetime.String(), "latency", answer.Latency.String())
	return tokencache.Minted[*token]{
		Value: &token{
			accessToken: answer.AccessToken,
			tokenType:   answer.TokenType,
			scope:       answer.Scope,
			clientID:    c.ClientID,
			kid:         c.version.KeyID,
			expireTime:  formatTime(requestedAt.Wall.Add(answer.Lifetime)),
			mintTime:    formatTime(requestedAt.Wall),
			keyName:     c.Key,
			leased:      c.role.Leased,
			warning:     warning,
		},
		RequestedAt: requestedAt,
		Lifetime:    answer.Lifetime,
		MinTTL:      c.MinTTL,
	}, nil
}

// mintEnded counts how a mint ended, and announces when a role begins to fail at Redox, and when that is over.
func (b *backend) mintEnded(roleName string, took time.Duration, err error) {
	b.metrics.mint(took, err)
	fails, _ := mintPauses(err)
	if err != nil && !fails || !b.trouble.change(roleName, fails) {
		return
	}
	path := strings.TrimSuffix("token/"+roleName, "/")
	if fails {
		b.announce(eventMintFail, path, "role", roleName, "cause", failureCause(err))
	} else {
		b.announce(eventMintRecover, path, "role", roleName)
	}
}

// mintPauses says which failures the cache remembers: those that reached for Redox. The others are settled by a look
// into storage, and end with the write that mends them.
func mintPauses(err error) (pause bool, least time.Duration) {
	var remote *redox.Error
	if errors.As(err, &remote) {
		return true, remote.RetryAfter
	}
	return errors.Is(err, tokencache.ErrExpired), 0
}

// connections holds the one HTTP client of the mount, so that connections to Redox are reused. Another set of trusted
// CAs makes another client.
type connections struct {
	mu     sync.Mutex
	caPEM  string
	client *redox.Client
}

func (c *connections) get(caPEM string, now func() tokencache.Instant) (*redox.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil && c.caPEM == caPEM {
		return c.client, nil
	}
	client, err := redox.NewClient(redox.Options{
		CAPEM: caPEM, UserAgent: userAgent(),
		Now: func() time.Time { return now().Wall },
	})
	if err != nil {
		return nil, fieldError("ca_pem", "write PEM certificates to config", "the configured CA certificates can't be used")
	}
	c.closeIdle()
	c.caPEM, c.client = caPEM, client
	return client, nil
}

// close gives idle connections back. Requests under way end with their context.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
	c.client = nil
}

func (c *connections) closeIdle() {
	if c.client != nil {
		c.client.Close()
	}
}
