// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/jwk"
	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
)

// How Redox learns of public keys without anybody pasting them: through its Platform API, or by a JWKS URL.

// registered is what is known of one public key at one OAuth API key that the engine manages. It is stored beside what
// Redox has accepted.
type registered struct {
	rotation.Client
	KID string `json:"kid"`
	// Confirmed is true when it was seen there after the wake-up that put it there. What was confirmed and is gone was
	// taken away by somebody. What is gone before that was lost to another's change: the Platform API knows no
	// precondition, so two writers that change a JWK set at once overwrite each other.
	Confirmed bool `json:"confirmed"`
	// Problem is why it is not as it should be, empty when it is.
	Problem string `json:"problem,omitempty"`

	// Unwanted is true for the public key of a compromised version: then Confirmed means that it was seen gone.
	Unwanted bool `json:"unwanted,omitempty"`
	// LeftTime is when the client was first found to be configured no more; zero while it is.
	LeftTime time.Time `json:"left_time,omitzero"`
}

// leftFor is how long the public keys at the API key of a client that left stay there: it may come back, as it does when
// Terraform replaces a role.
const leftFor = 24 * time.Hour

// registering is what public keys are registered for.
type registering int

const (
	inPass  registering = iota
	onAsked             // somebody waits for it
	putBack             // and wants back what was taken away
)

// register sees to it that the OAuth API key of each client holds the public keys that sign or are to sign, and none of
// the engine's own that are destroyed, or any when the client has left a day ago. Foreign keys stay as they are; imported
// ones are taken away only when they are compromised, since something else may use them. In a pass, what was looked at lately
// rests; for somebody who asks, only what is settled does; and with putBack nothing does, and what somebody took away is put
// back. It does nothing for a key that is registered by other means. What is wrong at Redox is no error here: it is stored, to
// be shown, and tried again.
func (m *maintainer) register(ctx context.Context, s *keySnapshot, clients map[rotation.Client]*roleConfig, how registering) error {
	if s.Registration != registrationPlatform {
		return nil
	}
	ctx = gate.With(ctx, gate.Place{Class: gate.Upkeep})
	waited, err := m.takeTurn(ctx, s.name)
	if err != nil {
		return err
	}
	defer func() { <-m.registering }()
	if waited || how != inPass { // whoever was waited for has changed it
		if s, err = m.keys.existing(ctx, "name", s.name); err != nil {
			return err
		}
	}
	ordered := slices.SortedFunc(maps.Keys(clients), func(a, b rotation.Client) int {
		return cmp.Or(strings.Compare(a.ClientID, b.ClientID), strings.Compare(a.TokenURL, b.TokenURL))
	})
	platformRole, err := m.store.rememberedRole(ctx, s.PlatformRole)
	if err != nil {
		platformRole = nil // whoever needs its token finds out
	}
	key := s.rotationKey(s.stored.Clients)
	outcomes := make([][]registered, len(ordered))
	var failed, overload firstFailure
	atOnce(m.concurrent, len(ordered), func(i int) (more bool) {
		client, c := ordered[i], clients[ordered[i]]
		r := &reconciliation{k: s.signingKey, key: key, client: client, putBack: how == putBack, before: s.stored.Registrations}
		wanted := r.fingerprint(c, platformRole)
		if how != putBack && m.rests.rest(s.name, client, wanted, how == inPass, m.now()) {
			outcomes[i] = recordsOf(r.before, client)
			return true
		}
		err := failed.get()
		if err == nil {
			err = m.lookAfter(ctx, r, c, &failed)
		}
		switch {
		case ctx.Err() != nil:
			return false
		case isOverload(err): // which is nobody's problem, and passes
			overload.note(err)
			outcomes[i] = recordsOf(r.before, client)
		default:
			outcomes[i] = r.outcome(m.words(err))
			m.rests.looked(s.name, client, wanted, outcomes[i], i, len(ordered), m.now())
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := overload.get(); err != nil {
		m.telemetry.logger.Warn("public keys are looked after later, since Redox limits requests", "key", s.name, "error", err)
	}
	m.rests.keep(s.name, clients)
	records := slices.Concat(outcomes...)
	left, err := m.leave(ctx, s, clients, failed.get())
	if err != nil {
		return err
	}
	records = append(records, left...)
	if !m.node.mayWrite() {
		return nil
	}
	slices.SortFunc(records, compareRegistered)
	before, err := m.keys.putRegistrations(ctx, s.name, records)
	if err != nil {
		return err
	}
	m.tellOfProblems(s.name, before, records)
	return nil
}

// takeTurn waits until nobody else registers public keys: two that replace a JWK set lose each other's changes. It reports
// whether there was somebody.
func (m *maintainer) takeTurn(ctx context.Context, key string) (waited bool, err error) {
	select {
	case m.registering <- struct{}{}:
		return false, nil
	default:
	}
	select {
	case m.registering <- struct{}{}:
		return true, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return true, logical.CodedError(http.StatusGatewayTimeout, "public keys are being registered at Redox, which takes long; try again in some minutes, "+
				"and see keys/"+key+"/clients for what is done")
		}
		return true, ctx.Err()
	}
}

// lookAfter reconciles one API key. It notes what would fail for each further one, too.
func (m *maintainer) lookAfter(ctx context.Context, r *reconciliation, c *roleConfig, failed *firstFailure) error {
	accessToken, err := m.platformToken(ctx, r.k) // each time: many API keys can take longer than a token lives
	if err != nil {
		failed.note(err)
		return err
	}
	if err = m.reconcile(ctx, r, c, accessToken); unanswered(err) {
		failed.note(err) // waiting once is enough: other work waits behind this
	}
	return err
}

// firstFailure is the first of several failures.
type firstFailure struct {
	mu  sync.Mutex
	err error
}

func (f *firstFailure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *firstFailure) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = cmp.Or(f.err, err)
}

// recordsOf returns what is known of a client.
func recordsOf(records []registered, client rotation.Client) []registered {
	return slices.DeleteFunc(slices.Clone(records), func(r registered) bool { return r.Client != client })
}

// leave looks after the API keys of clients that are configured no more: after a day the engine's public keys there are
// taken away. It returns what is still to be done, and is shown.
func (m *maintainer) leave(ctx context.Context, s *keySnapshot, clients map[rotation.Client]*roleConfig, failed error) (left []registered, err error) {
	stays := map[string]bool{} // client IDs: the same API key may be at another URL
	for client := range clients {
		stays[client.ClientID] = true
	}
	now := m.now().Wall
	byClient := map[rotation.Client][]registered{}
	for _, r := range s.stored.Registrations {
		if stays[r.ClientID] {
			continue
		}
		if r.LeftTime.IsZero() {
			r.LeftTime, r.Problem = now.UTC(), "" // nothing is to be done about it yet
		}
		byClient[r.Client] = append(byClient[r.Client], r)
	}
	for client, records := range byClient {
		if passed := now.Sub(records[0].LeftTime); passed >= 0 && passed < leftFor {
			left = append(left, records...)
			continue
		}
		if m.rests.rest(s.name, client, hasLeft, true, m.now()) {
			left = append(left, records...)
			continue
		}
		if failed == nil {
			failed, err = m.takeAway(ctx, s.signingKey, client.ClientID)
			if err != nil {
				return nil, err
			}
			if failed == nil {
				continue
			}
		}
		for _, r := range records {
			r.Problem = "no role names this client ID any more, and our public key " + r.KID + " may still be registered there (" +
				inShort(m.words(failed)) + "): it is tried again; or take it away in the Redox dashboard"
			left = append(left, r)
		}
		m.rests.looked(s.name, client, hasLeft, left[len(left)-len(records):], 0, 1, m.now())
		if !unanswered(failed) {
			failed = nil // it concerns this one only
		}
	}
	return left, nil
}

// takeAway removes the engine's public keys of a key from an API key, but for those that were imported and are not
// compromised. failed is what is wrong at Redox.
func (m *maintainer) takeAway(ctx context.Context, k *signingKey, clientID string) (failed, err error) {
	c, _, err := m.store.config(ctx)
	if err != nil {
		return nil, err
	}
	accessToken, err := m.platformToken(ctx, k)
	if err != nil {
		return err, ctx.Err()
	}
	connection, err := m.minter.connections.get(c.CAPEM, m.now)
	if err != nil {
		return err, nil
	}
	request := m.platformRequest(c, accessToken, clientID)
	r := &reconciliation{k: k}
	for attempt := 0; ; attempt++ {
		there, err := connection.ReadAPIKey(ctx, request)
		if remote := (*redox.Error)(nil); errors.As(err, &remote) && remote.StatusCode == http.StatusNotFound {
			return nil, nil // what was registered there is gone with it
		}
		if err != nil {
			return err, ctx.Err()
		}
		rest := slices.DeleteFunc(slices.Clone(there.JWKSet), func(jwk json.RawMessage) bool {
			return slices.ContainsFunc(k.Versions, func(v keyVersion) bool { return (!v.Imported || v.Compromised) && r.isOurs(&v)(jwk) })
		})
		switch {
		case len(rest) == len(there.JWKSet):
			return nil, nil
		case attempt > 0:
			return fieldError("", "it is tried again", "somebody else changed the JWK set at the same moment"), nil
		case !m.node.mayWrite():
			return logical.ErrReadOnly, nil
		}
		if err := connection.ReplaceJWKSet(ctx, request, rest); err != nil {
			return err, ctx.Err()
		}
	}
}

// deregistering bounds how long the deletion of a key waits for its public keys to be taken away.
const deregistering = 30 * time.Second

// deregister takes the public keys of a key away before it is deleted. It returns what may be left, for whoever deletes it.
func (m *maintainer) deregister(ctx context.Context, s *keySnapshot) (left []string) {
	ctx, cancel := context.WithTimeout(ctx, deregistering)
	defer cancel()
	m.rests.keep(s.name, nil)
	byClient := map[string][]string{}
	for _, r := range s.registrations() {
		if !r.Unwanted || !r.Confirmed {
			byClient[r.ClientID] = append(byClient[r.ClientID], r.KID)
		}
	}
	var failed error
	for _, clientID := range slices.Sorted(maps.Keys(byClient)) {
		if !unanswered(failed) {
			var err error
			if failed, err = m.takeAway(ctx, s.signingKey, clientID); err != nil {
				failed = err
			}
		}
		if failed != nil {
			left = append(left, fmt.Sprintf("client ID %s: kid %s (%s)", clientID, someOf(byClient[clientID]), inShort(m.words(failed))))
			m.telemetry.logger.Warn("a public key of a deleted key may still be registered at Redox", "key", s.name, "client_id", clientID,
				"kids", byClient[clientID], "error", failed)
		}
	}
	return left
}

// registerAgain registers a key's public keys now, also those that somebody took away.
func (m *maintainer) registerAgain(ctx context.Context, name string) (*keySnapshot, error) {
	s, err := m.keys.existing(ctx, "name", name)
	if err != nil {
		return nil, err
	}
	if s.Registration != registrationPlatform {
		return nil, fieldError("registration", "add the JWK in the Redox dashboard, or set registration=platform",
			"key %q is registered by other means (%s)", name, s.Registration)
	}
	if s.unusable != nil { // it says what was registered before
		return nil, s.unusable
	}
	clients, err := m.directory.of(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := m.register(ctx, s, clients.roleConfigs(), putBack); err != nil {
		return nil, err
	}
	return m.keys.snapshotOf(ctx, s.signingKey, nil)
}

// tellOfProblems logs and announces what is wrong with the registration of a key, where that is new.
func (m *maintainer) tellOfProblems(key string, before, records []registered) {
	for _, r := range records {
		known := find(before, r.Client, r.KID)
		if r.Problem != "" && (known == nil || known.Problem != r.Problem) {
			m.telemetry.logger.Warn("a public key is not registered at Redox", "key", key, "kid", r.KID,
				"client_id", r.ClientID, "problem", r.Problem)
			m.telemetry.announce(eventRegistrationFail, keysStoragePrefix+key, "key", key, "kid", r.KID, "client_id", r.ClientID)
		}
	}
}

// unanswered reports whether Redox gave no answer, or wants no more requests now.
func unanswered(err error) bool {
	var remote *redox.Error
	return isOverload(err) || errors.As(err, &remote) && remote.StatusCode == 0 && (remote.Kind == redox.Timeout || remote.Kind == redox.Unavailable)
}

// notSent reports whether no request was sent, since Redox wants no more.
func notSent(err error) bool {
	var remote *redox.Error
	return errors.As(err, &remote) && remote.NotSent
}

// isOverload reports whether Redox wants no more requests now.
func isOverload(err error) bool {
	var remote *redox.Error
	return errors.As(err, &remote) && (remote.NotSent || remote.StatusCode == http.StatusTooManyRequests)
}

// registrations returns those of the key's present way of registration: what is stored of an earlier one counts no more.
func (s *keySnapshot) registrations() []registered {
	if s.Registration != registrationPlatform {
		return nil
	}
	return s.stored.Registrations
}

func compareRegistered(a, b registered) int {
	return slices.Compare([]string{a.ClientID, a.TokenURL, a.KID}, []string{b.ClientID, b.TokenURL, b.KID})
}

// reconciliation is one look at an OAuth API key's JWK set, and what is to become of it.
type reconciliation struct {
	k       *signingKey
	key     rotation.Key // k with what is known of its clients
	client  rotation.Client
	putBack bool
	before  []registered

	wanted   []registered      // the outcome, of the versions that should be there
	unwanted []registered      // the same, of the compromised ones
	set      []json.RawMessage // what is to be there
	change   bool              // set is not what is there
}

// compromised returns the versions whose public keys must not be there.
func (r *reconciliation) compromised() []*keyVersion {
	var versions []*keyVersion
	for i := range r.k.Versions {
		if v := &r.k.Versions[i]; v.Compromised {
			versions = append(versions, v)
		}
	}
	return versions
}

// seeCompromised notes which of the compromised public keys are there.
func (r *reconciliation) seeCompromised(there []json.RawMessage) {
	r.unwanted = nil
	for _, v := range r.compromised() {
		record := registered{Client: r.client, KID: v.KID, Unwanted: true, Confirmed: true}
		if slices.ContainsFunc(there, r.isOurs(v)) {
			record.Confirmed, record.Problem = false, r.stillThere(v, "it was taken away, and is there again")
		}
		r.unwanted = append(r.unwanted, record)
	}
}

// notSeenGone returns what is to be said of the compromised public keys when the API key could not be looked at.
func (r *reconciliation) notSeenGone(problem string) []registered {
	var records []registered
	for _, v := range r.compromised() {
		record := registered{Client: r.client, KID: v.KID, Unwanted: true}
		if known := find(r.before, r.client, v.KID); known != nil && known.Unwanted && known.Confirmed {
			record.Confirmed = true
		} else {
			record.Problem = r.stillThere(v, problem)
		}
		records = append(records, record)
	}
	return records
}

func (r *reconciliation) stillThere(v *keyVersion, problem string) string {
	return "the public key of the compromised version " + strconv.Itoa(v.Number) + ", kid " + v.KID + ", may still be registered there (" +
		inShort(problem) + "): it is tried again; or take it away in the Redox dashboard"
}

// reconciling bounds the requests about one API key: while a server limits requests, other work is not to wait for it.
const reconciling = time.Minute

// reconcile reads the API key's JWK set, changes it where that is needed, and reads it again.
func (m *maintainer) reconcile(ctx context.Context, r *reconciliation, c *roleConfig, accessToken string) error {
	ctx, cancel := context.WithTimeout(ctx, reconciling)
	defer cancel()
	connection, err := m.minter.connections.get(c.CAPEM, m.now)
	if err != nil {
		return err
	}
	request := m.platformRequest(&c.config, accessToken, c.ClientID)
	there, err := connection.ReadAPIKey(ctx, request)
	if err != nil {
		return err
	}
	if there.JWKSURL != "" {
		return fieldError("", "set registration=jwks_url, or take the URL out in the Redox dashboard",
			"this OAuth API key reads a JWKS URL, which the engine does not replace by a JWK set")
	}
	r.plan(there.JWKSet)
	if !r.change || !m.node.mayWrite() {
		return nil
	}
	if err := connection.ReplaceJWKSet(ctx, request, r.set); err != nil {
		return err
	}
	// Only what is read again counts: somebody else may have replaced the set at the same moment.
	if there, err = connection.ReadAPIKey(ctx, request); err != nil {
		return err
	}
	for i, v := range r.versions() {
		if r.wanted[i].Problem == "" && !slices.ContainsFunc(there.JWKSet, r.isOurs(v)) {
			r.wanted[i].Confirmed = false
			r.wanted[i].Problem = "it was registered, but is not there: somebody else changed the JWK set at the " +
				"same moment; it is tried again"
		}
	}
	r.seeCompromised(there.JWKSet)
	m.telemetry.logger.Info("the public keys registered at Redox were changed", "key", r.k.name, "client_id", r.client.ClientID)
	return nil
}

// platformRequest is a request about an OAuth API key.
func (m *maintainer) platformRequest(c *config, accessToken, clientID string) redox.PlatformRequest {
	return redox.PlatformRequest{PlatformURL: c.platformURL(), AccessToken: accessToken, APIKeyID: clientID,
		Timeout: c.RequestTimeout, Gate: m.minter.gates.of(c.platformURL(), c.limits())}
}

// fingerprint returns what is wanted of the API key and how it is asked for: it is another one after each change here that
// matters to it.
func (r *reconciliation) fingerprint(c *roleConfig, platformRole *role) string {
	hash := sha256.New()
	fmt.Fprintf(hash, "%+v %+v %s", c.config, platformRole, r.k.PlatformRole)
	for _, v := range r.k.Versions {
		fmt.Fprintf(hash, " %d %s %s %t", v.Number, v.KID, v.State, v.Compromised)
	}
	return string(hash.Sum(nil))
}

// outcome returns what is to be stored: with a problem that concerns all, what was known before.
func (r *reconciliation) outcome(problem string) []registered {
	if problem == "" {
		return append(r.wanted, r.unwanted...)
	}
	records := r.notSeenGone(problem)
	for _, v := range r.versions() {
		records = append(records, registered{Client: r.client, KID: v.KID, Confirmed: r.confirmed(v), Problem: problem})
	}
	return records
}

// versions returns those that should be there: what signs, and what is to sign next.
func (r *reconciliation) versions() []*keyVersion {
	var versions []*keyVersion
	for _, state := range []rotation.State{rotation.Active, rotation.Pending} {
		if v := r.k.in(state); v != nil {
			versions = append(versions, v)
		}
	}
	return versions
}

// find returns what is known of a public key at an OAuth API key, nil for nothing.
func find(records []registered, client rotation.Client, kid string) *registered {
	for i := range records {
		if records[i].Client == client && records[i].KID == kid {
			return &records[i]
		}
	}
	return nil
}

// confirmed reports whether a version has been seen there. Of one that the engine has not looked after so far, its being
// used shows it. Of the others it does not: what was used right after it was put there may have been lost right after.
func (r *reconciliation) confirmed(v *keyVersion) bool {
	if known := find(r.before, r.client, v.KID); known != nil {
		return known.Confirmed
	}
	_, proven := r.key.Of(r.client).Proven(v.Number)
	return proven
}

// plan decides what the JWK set is to be.
func (r *reconciliation) plan(there []json.RawMessage) {
	r.set = slices.DeleteFunc(slices.Clone(there), func(jwk json.RawMessage) bool {
		return slices.ContainsFunc(r.k.Versions, func(v keyVersion) bool {
			return !v.Held() && (!v.Imported || v.Compromised) && !r.isHeld(&v) && r.isOurs(&v)(jwk)
		})
	})
	r.change = len(r.set) != len(there)
	r.seeCompromised(there)
	for _, v := range r.versions() {
		record := registered{Client: r.client, KID: v.KID}
		isOurs, hasKID := r.isOurs(v), hasKID(v.KID)
		switch {
		case slices.ContainsFunc(there, func(jwk json.RawMessage) bool { return hasKID(jwk) && !isOurs(jwk) }):
			record.Problem = "another public key is registered there under this kid: take it away, or rotate with another kid"
		case slices.ContainsFunc(there, isOurs):
			record.Confirmed = true
		case r.confirmed(v) && !r.putBack:
			record.Confirmed = true
			record.Problem = "it was there and was taken away by somebody (or this Vault was restored from an older state): " +
				"if it is to be there, write to keys/" + r.k.name + "/register"
		default:
			if public, err := r.k.jwk(v); err == nil {
				r.set = append(r.set, json.RawMessage(public.Compact()))
				r.change = true
			}
		}
		r.wanted = append(r.wanted, record)
	}
}

// isHeld reports whether a destroyed version's key pair is here again: it was imported once more.
func (r *reconciliation) isHeld(destroyed *keyVersion) bool {
	return slices.ContainsFunc(r.k.Versions, func(v keyVersion) bool {
		return v.Held() && v.KID == destroyed.KID && bytes.Equal(v.PublicKey, destroyed.PublicKey)
	})
}

// isOurs returns a function that reports whether a JWK is a version's public key, under the version's kid.
func (r *reconciliation) isOurs(v *keyVersion) func(json.RawMessage) bool {
	own, err := r.k.jwk(v)
	return func(raw json.RawMessage) bool {
		var public jwk.Public
		return err == nil && json.Unmarshal(raw, &public) == nil && public.KID == v.KID &&
			public.KeyType == own.KeyType && public.Thumbprint() == own.Thumbprint()
	}
}

func hasKID(kid string) func(json.RawMessage) bool {
	return func(raw json.RawMessage) bool {
		var jwk struct {
			KID string `json:"kid"`
		}
		return json.Unmarshal(raw, &jwk) == nil && jwk.KID == kid
	}
}

// platformToken returns a token of the key's platform role. A role that signs with the key itself is refused: once Redox
// no longer knew the key, nothing could make Redox know the next version.
func (m *maintainer) platformToken(ctx context.Context, k *signingKey) (string, error) {
	served, err := m.minter.token(ctx, k.PlatformRole, m.minter.tokens.Get)
	if err != nil {
		return "", fmt.Errorf("no token of the platform_role: %w", err)
	}
	if served.Value.credential.key == k.name {
		return "", fieldError("platform_role", "give role "+k.PlatformRole+" a key of its own",
			"the role signs with this key itself")
	}
	return served.Value.accessToken, nil
}

// words returns an error as it may be shown, and nothing for none. Only errors that are made to be shown are; others are
// storage's, and logged.
func (m *maintainer) words(err error) string {
	var user *userError
	var remote *redox.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &user), errors.As(err, &remote):
		return err.Error()
	}
	m.telemetry.logger.Error("a public key can't be looked after", "error", err)
	return "it could not be looked after: see the server's log"
}
