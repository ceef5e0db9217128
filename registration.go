// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
)

// How Redox learns of public keys without anybody pasting them: through its Platform API, or by a JWKS URL.

// registered is what is known of one public key at one OAuth API key that the engine manages. It is stored beside what
// Redox has accepted.
type registered struct {
	rotation.User
	KeyID string `json:"kid"`
	// Confirmed says that it was seen there after the wake-up that put it there. What was confirmed and is gone was
	// taken away by somebody. What is gone before that was lost to another's change: the Platform API knows no
	// precondition, so two who change a JWK set at once overwrite each other.
	Confirmed bool `json:"confirmed"`
	// Problem is why it is not there, empty when it is.
	Problem string `json:"problem,omitempty"`
}

// register sees to it that the OAuth API key of each user holds the public keys that sign or are to sign, and none of
// the engine's own that are destroyed. Foreign keys stay as they are; imported ones are never taken away, since
// something else may use them. With putBack, what somebody took away is put back. It does nothing for a key that is
// registered by other means. What is wrong at Redox is no error here: it is stored, to be shown, and tried again.
func (b *backend) register(ctx context.Context, k *signingKey, clients map[rotation.User]*client, putBack bool) error {
	if k.Registration != registrationPlatform {
		return nil
	}
	stored, err := loadAcceptance(ctx, b.storage, k.name)
	if err != nil {
		return err
	}
	var records []registered
	for user, c := range clients {
		r := &reconciliation{k: k, user: user, putBack: putBack, acceptance: &stored.Acceptance, before: stored.Registrations}
		problem := b.reconcile(ctx, r, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if problem != "" {
			b.Logger().Warn("a public key can't be registered at Redox", "key", k.name, "client_id", user.ClientID, "problem", problem)
		}
		records = append(records, r.outcome(problem)...)
	}
	slices.SortFunc(records, compareRegistered)
	return b.storeRegistrations(ctx, k.name, records)
}

// showRegistrations tells of each public key whether it is registered.
func showRegistrations(records []registered) []any {
	shown := []any{}
	for _, r := range records {
		shown = append(shown, map[string]any{
			"client_id": r.ClientID, "token_url": r.TokenURL, "kid": r.KeyID, "registered": r.Problem == "", "problem": r.Problem,
		})
	}
	return shown
}

func compareRegistered(a, b registered) int {
	return slices.Compare([]string{a.ClientID, a.TokenURL, a.KeyID}, []string{b.ClientID, b.TokenURL, b.KeyID})
}

// storeRegistrations replaces what is stored of a key's registrations, if it is different.
func (b *backend) storeRegistrations(ctx context.Context, key string, records []registered) error {
	unlock, err := b.writes.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := loadAcceptance(ctx, b.storage, key)
	if err != nil || slices.Equal(stored.Registrations, records) {
		return err
	}
	stored.Registrations = records
	return writeEntry(ctx, b.storage, acceptanceStoragePrefix+key, stored)
}

// reconciliation is one look at an OAuth API key's JWK set, and what is to become of it.
type reconciliation struct {
	k          *signingKey
	user       rotation.User
	putBack    bool
	acceptance *rotation.Acceptance
	before     []registered

	wanted []registered      // the outcome, of the versions that should be there
	set    []json.RawMessage // what is to be there
	change bool              // set is not what is there
}

// reconcile reads the API key's JWK set, changes it where that is needed, and reads it again. It gives the problem that
// kept it from doing so.
func (b *backend) reconcile(ctx context.Context, r *reconciliation, c *client) (problem string) {
	request, connection, err := b.platformRequest(ctx, r.k.PlatformRole, c)
	if err != nil {
		return words(err)
	}
	there, err := connection.ReadAPIKey(ctx, request)
	if err != nil {
		return words(err)
	}
	if there.JWKSURL != "" {
		return "this OAuth API key reads a JWKS URL, which the engine does not replace by a JWK set: set registration=jwks_url, " +
			"or take the URL out in the Redox dashboard"
	}
	r.plan(there.JWKSet)
	if !r.change || !b.mayWrite() {
		return ""
	}
	if _, err := connection.ReplaceJWKSet(ctx, request, r.set); err != nil {
		return words(err)
	}
	// Only what is read again counts: somebody else may have replaced the set at the same moment.
	if there, err = connection.ReadAPIKey(ctx, request); err != nil {
		return words(err)
	}
	for i := range r.wanted {
		if r.wanted[i].Problem == "" && !slices.ContainsFunc(there.JWKSet, hasKeyID(r.wanted[i].KeyID)) {
			r.wanted[i].Problem = "it was registered, but somebody else changed the JWK set at the same moment; it is tried again"
		}
	}
	b.Logger().Info("public keys were registered at Redox", "key", r.k.name, "client_id", r.user.ClientID)
	return ""
}

// outcome gives what is to be stored: with a problem that concerns all, what was known before.
func (r *reconciliation) outcome(problem string) []registered {
	if problem == "" {
		return r.wanted
	}
	var records []registered
	for _, v := range r.versions() {
		known := r.known(v.KeyID)
		records = append(records, registered{User: r.user, KeyID: v.KeyID, Confirmed: known != nil && known.Confirmed, Problem: problem})
	}
	return records
}

// versions are those that should be there: what signs, and what is to sign next.
func (r *reconciliation) versions() []*keyVersion {
	var versions []*keyVersion
	for _, state := range []rotation.State{rotation.Active, rotation.Pending} {
		if v := r.k.in(state); v != nil {
			versions = append(versions, v)
		}
	}
	return versions
}

// known gives what was known before, nil for nothing.
func (r *reconciliation) known(kid string) *registered {
	for i := range r.before {
		if r.before[i].User == r.user && r.before[i].KeyID == kid {
			return &r.before[i]
		}
	}
	return nil
}

// plan decides what the JWK set is to be.
func (r *reconciliation) plan(there []json.RawMessage) {
	r.set = slices.DeleteFunc(slices.Clone(there), func(jwk json.RawMessage) bool {
		return slices.ContainsFunc(r.k.Versions, func(v keyVersion) bool {
			return !v.Held() && !v.Imported && hasKeyID(v.KeyID)(jwk) && r.isOurs(&v, jwk)
		})
	})
	r.change = len(r.set) != len(there)
	for _, v := range r.versions() {
		record := registered{User: r.user, KeyID: v.KeyID}
		known := r.known(v.KeyID)
		confirmed := known != nil && known.Confirmed || slices.Contains(r.acceptance.Needs(v.Number), r.user)
		found := slices.IndexFunc(there, hasKeyID(v.KeyID))
		switch {
		case found >= 0 && !r.isOurs(v, there[found]):
			record.Problem = "another public key is registered there under this kid: take it away, or rotate with another kid"
		case found >= 0:
			record.Confirmed = true
		case confirmed && !r.putBack:
			record.Confirmed = true
			record.Problem = "it was there and was taken away by somebody (or this Vault was restored from an older state): " +
				"if it is to be there, write to keys/" + r.k.name + "/register"
		default:
			if jwk, err := r.k.jwk(v); err == nil {
				r.set = append(r.set, json.RawMessage(jwk.compact()))
				r.change = true
			}
		}
		r.wanted = append(r.wanted, record)
	}
}

// isOurs says whether a JWK is a version's public key.
func (r *reconciliation) isOurs(v *keyVersion, raw json.RawMessage) bool {
	own, err := r.k.jwk(v)
	var jwk publicJWK
	return err == nil && json.Unmarshal(raw, &jwk) == nil && jwk.KeyType == own.KeyType && jwk.thumbprint() == own.thumbprint()
}

func hasKeyID(kid string) func(json.RawMessage) bool {
	return func(raw json.RawMessage) bool {
		var jwk struct {
			KeyID string `json:"kid"`
		}
		return json.Unmarshal(raw, &jwk) == nil && jwk.KeyID == kid
	}
}

// platformRequest prepares a request about a client's OAuth API key, with a token of the platform role.
func (b *backend) platformRequest(ctx context.Context, platformRole string, c *client) (redox.PlatformRequest, *redox.Client, error) {
	served, err := b.tokens.Get(ctx, platformRole)
	if err != nil {
		return redox.PlatformRequest{}, nil, fmt.Errorf("no token of the platform_role: %w", err)
	}
	connection, err := b.connections.get(c.CAPEM, b.now)
	return redox.PlatformRequest{
		PlatformURL: c.platformURL(), AccessToken: served.Value.accessToken, APIKeyID: c.ClientID, Timeout: c.RequestTimeout,
	}, connection, err
}

// words gives an error as it may be shown. Only errors that are made to be shown are; others are storage's.
func words(err error) string {
	var user *userError
	var remote *redox.Error
	if errors.As(err, &user) || errors.As(err, &remote) {
		return err.Error()
	}
	return "it could not be looked after: see the server's log"
}

// notServed says why a key can't be known to Redox yet: with registration=jwks_url and public_jwks_url, when what is
// served there does not hold it. Empty when nothing speaks against a trial.
func (b *backend) notServed(ctx context.Context, c *client, k *signingKey, kid string) string {
	if k.Registration != registrationJWKSURL || k.PublicJWKSURL == "" {
		return ""
	}
	connection, err := b.connections.get(c.CAPEM, b.now)
	if err != nil {
		return words(err)
	}
	served, err := connection.ReadJWKSet(ctx, k.PublicJWKSURL, min(c.RequestTimeout, 10*time.Second))
	switch {
	case err != nil:
		return words(err)
	case !slices.ContainsFunc(served, hasKeyID(kid)):
		return "public_jwks_url does not serve the kid " + kid + " yet: a cache in between may hold the JWKS for a minute; " +
			"if it stays, check that the URL leads to jwks/" + k.name + " or jwks of this mount"
	}
	return ""
}
