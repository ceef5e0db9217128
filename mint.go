// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
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

	credential credential
	leased     bool
	warning    string // for its readers; empty when all is as it should be
}

// credential is what a token is made from. While it stays the same, so does the token: what else is written about its role
// does not matter to it.
type credential struct {
	clientID, tokenURL, audience, scope, jku string

	key         string
	keyCreated  time.Time
	compromised int // versions of the key: where one is, others may have signed with it
}

// credential returns what a token of the role is made from.
func (c *resolved) credential() credential {
	made := credential{c.ClientID, c.tokenURL(), c.audience(), c.Scope, c.JKU, c.Key, c.key.CreatedTime, 0}
	for _, v := range c.key.Versions {
		if v.Compromised {
			made.compromised++
		}
	}
	return made
}

// minter makes tokens and assertions from roles: it resolves a role, signs, and asks the server. It writes nothing to
// storage; what it observes of clients goes to the keyring.
type minter struct {
	store     *store
	keys      *keyring
	node      *node
	signer    *signer
	telemetry *telemetry
	now       func() tokencache.Instant

	tokens      *tokencache.Cache[*token]
	connections connections
	gates       gates
	reads       *gate.Gate // of storage, by mints
	searches    searches
	// requestToken asks the server for a token, and share spreads the times of tokens; only tests set others.
	requestToken func(context.Context, *roleConfig, redox.TokenRequest) (*redox.Token, error)
	share        func() float64
}

func newMinter(s *store, keys *keyring, n *node, signer *signer, t *telemetry, now func() tokencache.Instant) *minter {
	m := &minter{store: s, keys: keys, node: n, signer: signer, telemetry: t, now: now, share: rand.Float64,
		gates: gates{now: now}, reads: gate.New(gate.Limits{AtOnce: readsAtOnce()}, nil)}
	m.requestToken = m.overNetwork
	m.tokens = tokencache.New(tokencache.Options[*token]{Mint: m.mint, Pauses: mintPauses, Ended: t.mintEnded, Now: now,
		Share: func() float64 { return m.share() }})
	return m
}

// errActiveNodeMints is why a node that may not write has no token: the version that signs is rejected, and only the node
// that may write can learn what is taken. It is an error of its own since it is remembered, so that Redox is not asked again
// with each read; what goes to Vault is logical.ErrReadOnly, which makes it forward the request.
var errActiveNodeMints = fmt.Errorf("the version that signs is rejected, and this node may not learn another: %w", logical.ErrReadOnly)

// token gets the token of a role from the cache, by its Get or its Fresh.
func (m *minter) token(ctx context.Context, roleName string, get func(context.Context, string) (tokencache.Served[*token], error)) (tokencache.Served[*token], error) {
	served, err := get(ctx, roleName)
	if errors.Is(err, errActiveNodeMints) && m.node.mayWrite() { // it has become the active node since
		m.tokens.ForgetFailure(roleName)
		served, err = get(ctx, roleName)
	}
	if errors.Is(err, errActiveNodeMints) || errors.Is(served.Stale, errActiveNodeMints) {
		return tokencache.Served[*token]{}, logical.ErrReadOnly
	}
	return served, err
}

// dropTokensOf drops the tokens that were minted with a key.
func (m *minter) dropTokensOf(key string) {
	m.tokens.DropFunc(func(t *token) bool { return t.credential.key == key })
}

// doubtTokensOf has the tokens that were minted with a key confirmed before they are served again.
func (m *minter) doubtTokensOf(key string) {
	m.tokens.DoubtFunc(func(t *token) bool { return t.credential.key == key })
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
	key *keySnapshot
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
func (m *minter) resolve(ctx context.Context, roleName string) (c *resolved, err error) {
	err = atGate(ctx, m.reads, func() error {
		c, err = m.read(ctx, roleName)
		return err
	})
	return c, err
}

// read is resolve without waiting for others.
func (m *minter) read(ctx context.Context, roleName string) (*resolved, error) {
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
	client := own.client()
	key, err := m.keys.snapshotFor(ctx, own.Key, &client)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, fieldError("key", "create it, or name another in "+where, "the signing key %q does not exist", own.Key)
	}
	resolved := &resolved{roleConfig: own, key: key}
	if len(resolved.order()) == 0 {
		return nil, fieldError("key", "make a new version with a write to keys/"+own.Key+"/rotate",
			"the signing key %q has no version to sign with: all are destroyed", own.Key)
	}
	return resolved, nil
}

// claims returns what an assertion of the role holds, signed by a version with this kid.
func (c *roleConfig) claims(kid string, now time.Time) assertionClaims {
	return assertionClaims{
		clientID: c.ClientID,
		audience: c.audience(),
		kid:      kid,
		jku:      c.JKU,
		now:      now,
		backdate: c.ClockSkew,
		lifetime: c.AssertionTTL,
	}
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
	var now time.Time
	assertion, err := m.signer.sign(ctx, c.Key, v, func() assertionClaims {
		now = m.now().Wall
		return c.claims(v.KID, now)
	})
	if err != nil {
		return nil, err
	}
	return &signed{c, assertion, v.KID, now.Add(c.AssertionTTL)}, nil
}

// request asks the server for a token with one version of the named key. It also returns the moment before the request that succeeded.
func (m *minter) request(ctx context.Context, c *roleConfig, key string, v *keyVersion) (*redox.Token, tokencache.Instant, error) {
	var requestedAt tokencache.Instant
	answer, err := m.requestToken(ctx, c, redox.TokenRequest{
		TokenURL:   c.tokenURL(),
		Scope:      c.Scope,
		Timeout:    c.RequestTimeout,
		MaxRetries: c.MaxRetries,
		Gate:       m.gates.of(c.tokenURL(), c.limits()),
		Assertion: func() (string, error) { // once per attempt
			return m.signer.sign(ctx, key, v, func() assertionClaims {
				requestedAt = m.now()
				return c.claims(v.KID, requestedAt.Wall)
			})
		},
	})
	m.telemetry.metrics.exchange(answer, err)
	return answer, requestedAt, err
}

func (m *minter) overNetwork(ctx context.Context, c *roleConfig, request redox.TokenRequest) (*redox.Token, error) {
	connection, err := m.connections.get(c.CAPEM, m.now)
	if err != nil {
		return nil, err
	}
	return connection.RequestToken(ctx, request)
}

// isRejection reports whether the server has answered that it does not take an assertion, in whatever words. What else
// goes wrong says nothing of the version that signed.
func isRejection(err error) bool {
	var remote *redox.Error
	return errors.As(err, &remote) && remote.Kind == redox.Rejected && remote.StatusCode != 0
}

// exchanged is what came of asking the server for a token.
type exchanged struct {
	token       *redox.Token
	requestedAt tokencache.Instant
	kid         string // of the version that signed
	warning     string // for the users of the token
}

// exchange asks the server for a token: with the version that signs for the client, and when that is rejected with the
// others that are held, also one that was made meanwhile. If one is taken, the server knows the client, and the rejections
// are about the versions. If none is, something else is wrong, and the search rests. What was heard is noted.
//
// A node that may not write does not search: the one that may has to learn what is taken.
func (m *minter) exchange(ctx context.Context, c *resolved) (*exchanged, error) {
	var rejected error // of the version that signs
	own, news, asked := *c, heardOf{}, map[int]bool{}
	for {
		v := own.next(asked)
		if v == nil {
			m.readKeyAgain(ctx, &own)
			if v = own.next(asked); v == nil {
				m.searches.failed(&own, m.now(), rejected)
				m.keys.observe(own.key.signingKey, own.client(), news.doubted())
				return nil, rejected
			}
		}
		asked[v.Number] = true
		answer, requestedAt, err := m.request(ctx, &own.roleConfig, own.Key, v)
		switch {
		case err == nil:
			news[v.Number] = heard{taken: true, at: requestedAt}
			m.keys.observeMint(own.key.signingKey, own.client(), news)
			m.searches.forget(&own)
			result := &exchanged{token: answer, requestedAt: requestedAt, kid: v.KID}
			if rejected != nil {
				result.warning = fmt.Sprintf("Redox did not take the version of key %q that was to sign, so version %d with kid %s signed: "+
					"read keys/%s for what to do", own.Key, v.Number, v.KID, own.Key)
				m.telemetry.logger.Warn("Redox does not take the version that was to sign, it took another one", "key", own.Key,
					"client_id", own.ClientID, "version", v.Number, "kid", v.KID, "error", rejected)
			}
			return result, nil
		case !isRejection(err):
			return nil, err
		case !m.node.mayWrite():
			m.telemetry.logger.Debug("Redox does not take the version that signs, so the active node mints", "key", own.Key,
				"client_id", own.ClientID, "error", err)
			return nil, errActiveNodeMints
		}
		news[v.Number] = heard{at: m.now()}
		if rejected == nil {
			rejected = err
		}
		if m.searches.rest(&own, m.now()) {
			m.keys.observe(own.key.signingKey, own.client(), news.doubted())
			return nil, rejected
		}
	}
}

// readKeyAgain replaces the versions of a role's key by those that it has now: a request that hung may have lasted longer
// than a rotation. What is known of the client stays. It does nothing if the key can't be read, or was made anew: then
// what the server said is what counts.
func (m *minter) readKeyAgain(ctx context.Context, c *resolved) {
	k, err := m.store.key(ctx, c.Key)
	if err != nil || k == nil || !k.CreatedTime.Equal(c.key.CreatedTime) {
		return
	}
	c.key = &keySnapshot{signingKey: k, stored: c.key.stored, clients: c.key.clients}
}

// searchRest is how long a role that Redox takes no version from is asked about with the version that signs only.
const searchRest = 5 * time.Minute

// searches remembers the searches that found no version that Redox takes, so that a role that is mistyped does not cost
// a request for each version with each read.
type searches struct {
	mu     sync.Mutex
	inVain map[search]vain
}

// search is what a role asks Redox with.
type search struct{ key, clientID, tokenURL, scope, jku string }

// vain is a search that found nothing.
type vain struct {
	at     tokencache.Instant
	newest int    // version: a new one is worth another search
	answer string // to the version that signs
}

// vainKept is how long a search in vain is remembered, to be shown.
const vainKept = 24 * time.Hour

func (c *resolved) search() search {
	return search{c.Key, c.ClientID, c.tokenURL(), c.Scope, c.JKU}
}

// rest reports whether a role's search has been in vain lately.
func (s *searches) rest(c *resolved, now tokencache.Instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, found := s.inVain[c.search()]
	return found && last.newest == c.key.newest().Number && last.at.Age(now) < searchRest
}

// failed notes that a role's search was in vain.
func (s *searches) failed(c *resolved, now tokencache.Instant, answer error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.inVain, func(_ search, last vain) bool { return last.at.Age(now) >= vainKept })
	if s.inVain == nil {
		s.inVain = map[search]vain{}
	}
	s.inVain[c.search()] = vain{now, c.key.newest().Number, answer.Error()}
}

// vainFor returns the searches with a key that were in vain, by client, with the answer.
func (s *searches) vainFor(key string) map[rotation.Client]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := map[rotation.Client]string{}
	for search, last := range s.inVain {
		if search.key == key {
			answers[rotation.Client{ClientID: search.clientID, TokenURL: search.tokenURL}] = last.answer
		}
	}
	return answers
}

// forget drops what is remembered of a role: Redox takes a version from it, or somebody wants to know.
func (s *searches) forget(c *resolved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inVain, c.search())
}

// mint makes the token of a role, or confirms the one that is held, for the cache.
func (m *minter) mint(ctx context.Context, roleName string, demand tokencache.Demand[*token]) (tokencache.Minted[*token], error) {
	nothing := tokencache.Minted[*token]{}
	ctx = gate.With(ctx, gate.Place{Class: gate.Ahead, Waited: demand.Since.Age(m.now()), Raised: demand.Awaited})
	c, err := m.resolve(ctx, roleName)
	if err != nil {
		return nothing, err
	}
	if c.leased && m.node.isStandby() {
		// A standby can't register the lease; the active node mints.
		return nothing, logical.ErrReadOnly
	}
	if held := demand.Held; held != nil && held.Value.credential == c.credential() {
		confirmed, value := *held, *held.Value
		value.leased = c.leased
		confirmed.Value, confirmed.MinTTL, confirmed.Confirmed = &value, c.MinTTL, true
		return confirmed, nil
	}
	result, err := m.exchange(ctx, c)
	if errors.Is(err, context.Canceled) || errors.Is(err, errActiveNodeMints) {
		// A change has superseded this mint, the mount is closing, or another node mints: nothing failed.
		return nothing, err
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
			credential:  c.credential(),
			leased:      c.leased,
			warning:     result.warning,
		},
		RequestedAt: result.requestedAt,
		Lifetime:    answer.Lifetime,
		MinTTL:      c.MinTTL,
	}, nil
}

// mintPauses reports whether the cache remembers a failure, and for how long at least: it remembers those that reached
// for the server, and that the active node has to mint. The others are settled by a look into storage, and end with the write that mends them.
func mintPauses(err error) (pause bool, least time.Duration) {
	var remote *redox.Error
	if errors.As(err, &remote) {
		return true, remote.RetryAfter
	}
	return errors.Is(err, tokencache.ErrExpired) || errors.Is(err, errActiveNodeMints), 0
}
