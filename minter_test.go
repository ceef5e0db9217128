// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// mill is a minter with a keyring of its own and a local Redox, without a mount. The configuration names key "main", whose
// version 1 the local Redox knows.
type mill struct {
	*ring
	minter *minter
	redox  *sandbox.Server
}

func newMill(t *testing.T) *mill {
	m := &mill{ring: newRing(t)}
	m.redox = must(sandbox.Start(sandbox.Options{Now: m.clock.wall}))
	t.Cleanup(func() { must(0, m.redox.Close()) })
	m.minter = newMinter(m.store, m.keyring, &node{m.system}, newTestSigner(), newTelemetry(hclog.NewNullLogger(), nil), m.clock.now)
	t.Cleanup(m.minter.close)
	must(m.add("one"))
	m.know("one")
	m.configure(nil)
	return m
}

// configure stores the configuration of a mill with a change.
func (m *mill) configure(change func(*config)) {
	c := defaultConfig()
	c.ClientID, c.Key, c.BaseURL, c.MaxRetries = "client-1", "main", m.redox.URL, 0
	if change != nil {
		change(c)
	}
	m.put(configStorageKey, c)
}

// wroteNothing returns a check that nothing was put or deleted since.
func (m *mill) wroteNothing() func() {
	m.t.Helper()
	written, stored := len(m.storage.written()), m.storage.snapshot()
	return func() {
		m.t.Helper()
		if n := len(m.storage.written()); n != written || !maps.Equal(m.storage.snapshot(), stored) {
			m.t.Errorf("%d entries were written", n-written)
		}
	}
}

// text returns all that a resolved role holds, for comparisons.
func (c *resolved) text() string {
	k := c.key
	return string(must(json.Marshal([]any{c.config, c.leased, c.disabled, k.name, k.signingKey, k.clients, k.stored})))
}

// asked returns how often the local Redox was asked for a token.
func (m *mill) asked() int { return m.redox.Counters().Token.Requests }

// client is client-1 at the local Redox.
func (m *mill) client() rotation.Client {
	return rotation.Client{ClientID: "client-1", TokenURL: m.redox.TokenURL()}
}

// verdicts returns what is known of client-1 at key "main", such as "1 taken, 2 rejected".
func (m *mill) verdicts() string {
	var verdicts []string
	for _, v := range m.read().rotation().Of(m.client()).Verdicts {
		word := " rejected"
		if v.Taken {
			word = " taken"
		}
		verdicts = append(verdicts, fmt.Sprint(v.Version)+word)
	}
	return strings.Join(verdicts, ", ")
}

// know makes the local Redox know the versions with these kids, and no others.
func (m *mill) know(kids ...string) {
	var jwks []string
	k := m.read()
	for i := range k.Versions {
		for _, kid := range kids {
			if k.Versions[i].KID == kid {
				jwks = append(jwks, must(k.jwk(&k.Versions[i])).Compact())
			}
		}
	}
	set := json.RawMessage(`{"keys":[` + strings.Join(jwks, ",") + `]}`)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-1", Name: "client-1", JWKSet: set})
}

func (m *mill) put(key string, value storable) {
	m.t.Helper()
	must(0, m.store.write(m.t.Context(), func(w *writing) error { return w.put(m.t.Context(), key, value) }))
}

// TestMinterResolveErrors name what is missing and where to set it.
func TestMinterResolveErrors(t *testing.T) {
	m := newMill(t)
	m.put(rolesStoragePrefix+"team", &role{})
	m.put(rolesStoragePrefix+"stopped", &role{Disabled: true})
	m.put(rolesStoragePrefix+"lost", &role{Key: "none"})
	m.put(rolesStoragePrefix+"spent", &role{Key: "spent"})
	must(m.addTo("spent", "spent-1"))
	must(m.apply(t.Context(), "spent", rotation.Compromise{Version: 1}))
	noClient := func(c *config) { c.ClientID = "" }
	noKey := func(c *config) { c.Key = "" }
	for _, test := range []struct {
		role   string
		change func(*config)
		field  string
		parts  []string
	}{
		{"none", nil, "role", []string{`there is no role named "none"`, "roles/none"}},
		{"stopped", nil, "disabled", []string{`role "stopped" is disabled`, "disabled=false", "roles/stopped"}},
		{"stopped", noClient, "disabled", []string{`role "stopped" is disabled`}}, // whatever else is missing
		{"", noClient, "client_id", []string{"no client ID is configured", "write to config"}},
		{"team", noClient, "client_id", []string{"no client ID is configured", "roles/team or config"}},
		{"", noKey, "key", []string{"no signing key is configured", "keys/NAME", "in config"}},
		{"team", noKey, "key", []string{"no signing key is configured", "in roles/team or config"}},
		{"lost", nil, "key", []string{`signing key "none" does not exist`, "in roles/lost or config"}},
		{"spent", nil, "key", []string{`signing key "spent" has no version to sign with`, "keys/spent/rotate"}},
		{"a..b", nil, "role", []string{"two dots"}},
	} {
		m.configure(test.change)
		_, err := m.minter.resolve(t.Context(), test.role)
		user := (*userError)(nil)
		if !errors.As(err, &user) || user.field != test.field {
			t.Errorf("role %q: %v, of field %s", test.role, err, test.field)
			continue
		}
		for _, part := range test.parts {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("role %q: %q does not say %q", test.role, err, part)
			}
		}
		if _, signing := m.minter.sign(t.Context(), test.role); signing == nil || signing.Error() != err.Error() {
			t.Errorf("role %q: an assertion gets %v", test.role, signing)
		}
		if _, minting := m.minter.mint(t.Context(), test.role, tokencache.Demand[*token]{}); minting == nil || minting.Error() != err.Error() {
			t.Errorf("role %q: a token gets %v", test.role, minting)
		}
	}
	m.storage.onEach(func(string, string) error { return logical.ErrReadOnly })
	if _, err := m.minter.resolve(t.Context(), "team"); err != logical.ErrReadOnly {
		t.Errorf("the error of storage became %v", err)
	}
	if m.asked() > 0 {
		t.Error("the server was asked")
	}
}

// TestMinterResolvesRolesOverConfig: what a role leaves unset is the configuration's.
func TestMinterResolvesRolesOverConfig(t *testing.T) {
	m := newMill(t)
	must(m.addTo("team", "team-1"))
	m.configure(func(c *config) { c.Scope, c.JKU, c.MinTTL = "fhir:read", "https://redox.test/jwks", 40*time.Second })
	m.put(rolesStoragePrefix+"empty", &role{})
	m.put(rolesStoragePrefix+"full", &role{
		ClientID: "team", Key: "team", Scope: "fhir:write", JKU: "https://team.test/jwks", MinTTL: 50 * time.Second, Leased: true,
	})
	type settings struct {
		clientID, key, scope, jku string
		minTTL                    time.Duration
		leased                    bool
		kid                       string
	}
	configured := settings{"client-1", "main", "fhir:read", "https://redox.test/jwks", 40 * time.Second, false, "one"}
	for name, want := range map[string]settings{
		"": configured, "empty": configured,
		"full": {"team", "team", "fhir:write", "https://team.test/jwks", 50 * time.Second, true, "team-1"},
	} {
		c := must(m.minter.resolve(t.Context(), name))
		if got := (settings{c.ClientID, c.Key, c.Scope, c.JKU, c.MinTTL, c.leased, c.next(nil).KID}); got != want {
			t.Errorf("role %q is %+v, not %+v", name, got, want)
		}
		if c.BaseURL != m.redox.URL || c.client().TokenURL != m.redox.TokenURL() {
			t.Errorf("role %q asks %s", name, c.client().TokenURL)
		}
	}
}

// TestMinterSigns with what the server last took from the client, without asking it and without writing.
func TestMinterSigns(t *testing.T) {
	m := newMill(t)
	must(m.add("two"))
	check := m.wroteNothing()
	for _, kid := range []string{"one", "two"} {
		s := must(m.minter.sign(t.Context(), ""))
		v := m.read().in(map[string]rotation.State{"one": rotation.Active, "two": rotation.Pending}[kid])
		var public jose.JSONWebKey
		must(0, json.Unmarshal([]byte(must(m.read().jwk(v)).Compact()), &public))
		header, claims := verified(t, s.assertion, public)
		if s.kid != kid || header["kid"] != kid || claims["iss"] != "client-1" || claims["aud"] != m.redox.TokenURL() {
			t.Errorf("signed with %s: %v, %v", s.kid, header, claims)
		}
		if !s.expireTime.Equal(m.clock.wall().Add(120 * time.Second)) {
			t.Errorf("it expires at %s", s.expireTime)
		}
		if kid == "one" && m.verdicts() != "" {
			t.Error("handing an assertion out is taken for an answer of the server")
		}
		m.heard(m.client(), 2)
	}
	check()
	if m.asked() > 0 {
		t.Errorf("the server was asked %d times", m.asked())
	}
}

// TestMinterExchanges: with the version that signs, and when it is rejected, in whatever words, with the others, newest
// first. What is told apart by that is observed, the argument stays as it was, and nothing is written.
func TestMinterExchanges(t *testing.T) {
	const unknown = "found no public key" // for this client_id and kid
	for name, test := range map[string]struct {
		knows        string // the kids that the server knows
		forced       bool   // version 2 is active, and signs for everybody
		fault        sandbox.Faults
		kid, problem string
		asked        int
		verdicts     string // then
	}{
		"the best one is known":          {knows: "one two", kid: "one", asked: 1, verdicts: "1 taken"},
		"the pending one took its place": {knows: "two", kid: "two", asked: 2, verdicts: "1 rejected, 2 taken"},
		"the retired one is known only":  {knows: "one", forced: true, kid: "one", asked: 2, verdicts: "1 taken, 2 rejected"},
		"the forced one is known":        {knows: "one two", forced: true, kid: "two", asked: 1, verdicts: "2 taken"},
		"none is known":                  {knows: "", forced: true, problem: unknown, asked: 2},
		"the server is down":             {knows: "two", fault: sandbox.Faults{Status: 503}, problem: "503", asked: 1},
		"the server is overloaded":       {knows: "two", fault: sandbox.Faults{Status: 429}, problem: "429", asked: 1},
		"the server says something else": {knows: "two", fault: sandbox.Faults{Status: 400, Body: "{}"}, problem: "400", asked: 2},
		"it says something else once":    {knows: "two", fault: sandbox.Faults{Status: 403, Count: 1}, kid: "two", asked: 2, verdicts: "1 rejected, 2 taken"},
		"it goes down meanwhile":         {knows: "", fault: sandbox.Faults{Reset: true}, problem: "", asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMill(t)
			must(m.add("two"))
			if test.forced {
				must(m.apply(t.Context(), "main", rotation.Force{}))
			}
			m.know(strings.Fields(test.knows)...)
			m.redox.SetFaults(test.fault)
			check := m.wroteNothing()
			m.clock.advance(time.Second) // what is observed now is newer
			given := must(m.minter.resolve(t.Context(), ""))
			before := given.text()
			m.news()
			result, err := m.minter.exchange(t.Context(), given)
			if (err == nil) != (test.kid != "") || err != nil && !strings.Contains(err.Error(), test.problem) {
				t.Fatalf("%v", err)
			}
			if err == nil && (result.kid != test.kid || (result.warning != "") != (test.asked > 1) || !m.redox.IsLive(result.token.AccessToken)) {
				t.Errorf("kid %s signed; the warning is %q", result.kid, result.warning)
			}
			if m.asked() != test.asked {
				t.Errorf("the server was asked %d times, expected %d", m.asked(), test.asked)
			}
			if got := m.verdicts(); got != test.verdicts {
				t.Errorf("known is %q", got)
			}
			if news := m.news(); len(news) > 1 || len(news) == 1 && !news[0].observed {
				t.Errorf("told %+v", news)
			}
			if given.text() != before {
				t.Error("the exchange has changed what it was given")
			}
			check()
		})
	}
}

// TestMinterSearchRests: a role that Redox takes no version from costs one request from then on, until there is a new version
// or five minutes are over. A healthy role of the same client is not held up.
func TestMinterSearchRests(t *testing.T) {
	m := newMill(t)
	must(m.add("two"))
	m.put(rolesStoragePrefix+"mistyped", &role{JKU: "https://mistyped.example/jwks"})
	asks := func(role string, want int) (kid string) {
		t.Helper()
		before := m.asked()
		result, err := m.minter.exchange(t.Context(), must(m.minter.resolve(t.Context(), role)))
		if n := m.asked() - before; n != want {
			t.Errorf("role %q was asked for %d times, expected %d: %v", role, n, want, err)
		}
		if err != nil {
			return ""
		}
		return result.kid
	}
	asks("mistyped", 2)
	asks("mistyped", 1)
	m.know("two")
	if kid := asks("", 2); kid != "two" {
		t.Errorf("%q signed for the healthy role", kid)
	}
	m.clock.advance(5 * time.Minute)
	asks("mistyped", 2)
	asks("mistyped", 1)
	must(m.apply(t.Context(), "main", rotation.Force{}))
	must(m.add("three"))
	asks("mistyped", 3)
}

// TestMinterOnANodeThatMayNotWrite: what signs is rejected there, so the node that may write has to mint, and learns.
func TestMinterOnANodeThatMayNotWrite(t *testing.T) {
	m := newMill(t)
	must(m.add("two"))
	m.know("two")
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	for range 2 { // the second time it is remembered
		if _, err := m.minter.token(t.Context(), "", m.minter.tokens.Get); err != logical.ErrReadOnly { // unwrapped, as Vault looks at it
			t.Errorf("a token: %v", err)
		}
	}
	if m.asked() != 1 || m.verdicts() != "" {
		t.Errorf("asked %d times, known is %q", m.asked(), m.verdicts())
	}
	m.system.ReplicationStateVal = consts.ReplicationUnknown // it becomes the active node
	if served := must(m.minter.token(t.Context(), "", m.minter.tokens.Get)); served.Value.kid != "two" {
		t.Errorf("kid %s signed", served.Value.kid)
	}
}

// TestMinterObservesNews: an acceptance that is known already is told of no more, so that mints wake nobody.
func TestMinterObservesNews(t *testing.T) {
	m := newMill(t)
	m.news()
	for _, told := range []int{1, 0} {
		must(m.minter.exchange(t.Context(), must(m.minter.resolve(t.Context(), ""))))
		if news := m.news(); len(news) != told {
			t.Errorf("told %+v, expected %d", news, told)
		}
	}
}

// TestMinterReadsTheKeyAgain when the server knows no version: a rotation may have ended while it was asked.
func TestMinterReadsTheKeyAgain(t *testing.T) {
	for _, unreadable := range []bool{false, true} {
		m := newMill(t)
		c := must(m.minter.resolve(t.Context(), ""))
		before := c.text()
		must(m.add("two"))
		m.know("two")
		if unreadable {
			m.storage.onEach(failing("get", keysStoragePrefix))
		}
		result, err := m.minter.exchange(t.Context(), c)
		m.storage.onEach(nil)
		switch {
		case unreadable && (err == nil || !strings.Contains(err.Error(), "found no public key") || m.asked() != 1):
			t.Errorf("with a key that can't be read: %v, after %d requests", err, m.asked())
		case !unreadable && (err != nil || result.kid != "two" || m.asked() != 2):
			t.Errorf("with a new version: %v, after %d requests", err, m.asked())
		}
		if c.text() != before {
			t.Error("the exchange has changed what it was given")
		}
	}
}

// TestMinterOnAStandby: a lease can't be registered there, so nothing is sent, and Vault asks the active node.
func TestMinterOnAStandby(t *testing.T) {
	m := newMill(t)
	m.put(rolesStoragePrefix+"leased", &role{Leased: true})
	check := m.wroteNothing()
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	for range 2 { // it is not remembered as a failure
		if _, err := m.minter.tokens.Get(t.Context(), "leased"); err != logical.ErrReadOnly { // unwrapped, as Vault looks at it
			t.Errorf("a leased token: %v", err)
		}
	}
	if m.asked() > 0 {
		t.Errorf("the server was asked %d times", m.asked())
	}
	if served := must(m.minter.tokens.Get(t.Context(), "")); served.Value.kid != "one" || served.Value.leased {
		t.Errorf("kid %s signed", served.Value.kid)
	}
	check()
	m.system.ReplicationStateVal = consts.ReplicationUnknown
	if served := must(m.minter.tokens.Get(t.Context(), "leased")); !served.Value.leased {
		t.Error("the active node gives no leased token")
	}
}
