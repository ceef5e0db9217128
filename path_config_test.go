// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// configDefaults is what is read when nothing has been set.
var configDefaults = map[string]any{
	"client_id":               "",
	"key":                     "",
	"scope":                   "",
	"base_url":                "https://api.redoxengine.com",
	"token_url":               "https://api.redoxengine.com/v2/auth/token",
	"audience":                "https://api.redoxengine.com/v2/auth/token",
	"platform_url":            "https://api.redoxengine.com/platform",
	"jku":                     "",
	"ca_pem":                  "",
	"assertion_ttl":           120,
	"clock_skew":              30,
	"request_timeout":         10,
	"max_retries":             2,
	"request_limit":           5000,
	"max_concurrent_requests": 64,
	"min_ttl":                 30,
}

// configReads checks what config shows: the defaults, but for the given fields.
func (m *mount) configReads(changed map[string]any) {
	m.t.Helper()
	want := maps.Clone(configDefaults)
	maps.Copy(want, changed)
	if got := m.read("config"); !maps.Equal(got, want) {
		m.t.Errorf("config reads\n%v, expected\n%v", got, want)
	}
}

func TestConfigIsNotFoundUntilWritten(t *testing.T) {
	m := newMount(t)
	if data := m.read("config"); data != nil {
		t.Errorf("config reads %v before it is written", data)
	}
	m.remove("config") // nothing to delete is no error
	m.write("config", nil)
	m.configReads(nil)
	m.remove("config")
	if data := m.read("config"); data != nil {
		t.Errorf("config reads %v after it was deleted", data)
	}
}

func TestConfigUpdateChangesOnlyWhatItNames(t *testing.T) {
	m := newMount(t)
	m.write("keys/main", map[string]any{"algorithm": algorithmES384})
	all := map[string]any{
		"client_id": "client-1", "key": "main", "scope": "a b", "base_url": "https://base.example/x/",
		"token_url": "https://token.example/t?x=y", "audience": "who", "platform_url": "https://platform.example",
		"jku": "https://jku.example/jwks", "ca_pem": newCertificatePEM(t), "assertion_ttl": 60, "clock_skew": 20,
		"request_timeout": 5, "max_retries": 0, "min_ttl": 15, "request_limit": 600, "max_concurrent_requests": 8,
	}
	if len(all) != len(configRows) {
		t.Fatalf("%d fields are tried, of %d", len(all), len(configRows))
	}
	m.write("config", all)
	m.configReads(all)
	for field, value := range all {
		for _, unset := range []any{nil, ""} {
			m.write("config", map[string]any{field: unset})
			want := maps.Clone(all)
			want[field] = configDefaults[field]
			switch field { // what is derived from others that are set here
			case "token_url":
				want["token_url"] = "https://base.example/x/v2/auth/token"
			case "audience":
				want["audience"] = "https://token.example/t?x=y"
			case "platform_url":
				want["platform_url"] = "https://base.example/x/platform"
			}
			m.configReads(want)
			m.write("config", map[string]any{field: value})
			m.configReads(all)
		}
	}
}

func TestConfigDerivesURLs(t *testing.T) {
	m := newMount(t)
	derived := func(base string) map[string]any {
		root := strings.TrimSuffix(base, "/")
		token := root + "/v2/auth/token"
		return map[string]any{"base_url": base, "token_url": token, "audience": token, "platform_url": root + "/platform"}
	}
	for _, base := range []string{
		"https://api.ca.redoxengine.com", "https://api.ca.redoxengine.com/", "http://127.0.0.1:8765",
	} {
		m.write("config", map[string]any{"base_url": base})
		m.configReads(derived(base))
	}
	m.write("config", map[string]any{"token_url": "https://proxy.example/token"})
	want := derived("http://127.0.0.1:8765")
	want["token_url"], want["audience"] = "https://proxy.example/token", "https://proxy.example/token"
	m.configReads(want)

	// Stored is what was set, so that another base_url takes the others with it.
	var stored map[string]any
	if err := json.Unmarshal([]byte(m.storage.snapshot()[configStorageKey]), &stored); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"base_url": "http://127.0.0.1:8765", "token_url": "https://proxy.example/token", "audience": "", "platform_url": "",
	} {
		if stored[field] != want {
			t.Errorf("%s is stored as %v, expected %q", field, stored[field], want)
		}
	}
}

func TestConfigRefusesAndKeepsTheRest(t *testing.T) {
	m := newReadyMount(t)
	before := m.read("config")
	m.refusedWith(logical.UpdateOperation, "config", map[string]any{"scope": "new", "min_ttl": "2h"}, "min_ttl: ")
	if got := m.read("config"); !maps.Equal(got, before) {
		t.Errorf("after a refused write config reads %v", got)
	}
}

func TestConfigDeletion(t *testing.T) {
	m := newReadyMount(t)
	for i := range 7 {
		m.write(fmt.Sprintf("roles/team-%d", i), nil)
	}
	m.refusedWith(logical.DeleteOperation, "config", nil, "roles inherit from it",
		"(team-0, team-1, team-2, team-3, team-4 and 2 more)", "delete those roles first")
	for i := range 5 {
		m.remove(fmt.Sprintf("roles/team-%d", i))
	}
	m.refusedWith(logical.DeleteOperation, "config", nil, "(team-5, team-6)")
	m.remove("roles/team-5")
	m.remove("roles/team-6")
	m.read("token")
	m.remove("config")
	if data := m.read("config"); data != nil {
		t.Errorf("config reads %v after it was deleted", data)
	}
	m.refusedWith(logical.ReadOperation, "token", nil, "client_id: no client ID is configured", "write to config")
}

// A token derives from the configuration: what is written counts from the next read on.
func TestConfigWriteDropsTokens(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	first := m.read("token/team")["access_token"]
	m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-2", Name: "client-2", JWKSet: json.RawMessage(`{"keys":[` +
		m.read("keys/main")["public_jwk"].(string) + `]}`)})
	if again := m.read("token/team")["access_token"]; again != first {
		t.Error("two reads gave two tokens")
	}
	m.write("config", map[string]any{"client_id": "client-2"})
	if data := m.read("token/team"); data["access_token"] == first || data["client_id"] != "client-2" {
		t.Errorf("after a write of config the token of %v is served", data["client_id"])
	}
}

func TestConfigCAPEM(t *testing.T) {
	m := newMount(t)
	certificate := newCertificatePEM(t)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(misplaced)}))
	for name, c := range map[string]struct{ value, says string }{
		"text":                  {misplaced, "no PEM certificate found; give one"},
		"a private key":         {key, "block 1 of 1 is not a CERTIFICATE; give only"},
		"a key behind it":       {certificate + key, "block 2 of 2 is not a CERTIFICATE"},
		"a key in front":        {key + certificate, "block 1 of 2 is not a CERTIFICATE"},
		"a damaged certificate": {strings.Replace(certificate, "MII", "!!!", 1), "block 1 of 1 is not base64 alone; give"},
		"not DER": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(misplaced)})),
			"block 1 of 1 can't be used (x509: malformed certificate); take that certificate out"},
		"half a certificate": {certificate[:len(certificate)/2], "damaged or cut off; give whole"},
		"white space":        {" ", "no PEM certificate found"},
	} {
		text := m.refused(logical.UpdateOperation, "config", map[string]any{"ca_pem": c.value})
		if !strings.HasPrefix(text, "ca_pem: ") || !strings.Contains(text, c.says) {
			t.Errorf("%s was refused with %q", name, text)
		}
		if strings.Contains(text, misplaced) {
			t.Errorf("%s: the error repeats the value: %q", name, text)
		}
	}
	for _, value := range []string{
		"# comment\n" + certificate + certificate, certificate + "the end", strings.ReplaceAll(certificate, "\n", " "),
		strings.ReplaceAll(certificate, "\n", `\n`), "\ufeff" + certificate,
	} {
		m.write("config", map[string]any{"ca_pem": value})
	}
}

// TestConfigNormalizesURLs: hosts are written as servers compare them, since they become part of the audience; a token URL in
// base_url is refused with the right value.
func TestConfigNormalizesURLs(t *testing.T) {
	m := newMount(t)
	for given, want := range map[string]string{
		"https://API.RedoxEngine.com":            "https://api.redoxengine.com",
		"https://api.redoxengine.com:443":        "https://api.redoxengine.com",
		"https://api.redoxengine.com.:443/Path/": "https://api.redoxengine.com/Path/",
		"https://api.redoxengine.com:8443":       "https://api.redoxengine.com:8443",
		"http://LOCALHOST:80/x":                  "http://localhost/x",
		"http://localhost:443":                   "http://localhost:443",
		"https://[2001:DB8::1]:443/x":            "https://[2001:db8::1]/x",
	} {
		m.write("config", map[string]any{"base_url": given, "platform_url": given, "token_url": given + "/token"})
		got := m.read("config")
		if got["base_url"] != want || got["platform_url"] != want || !strings.HasPrefix(got["token_url"].(string), want) {
			t.Errorf("%s is read as %v, %v, %v", given, got["base_url"], got["platform_url"], got["token_url"])
		}
	}
	for given, says := range map[string]string{
		"https://api.redoxengine.com/v2/auth/token":     "base_url=https://api.redoxengine.com",
		"https://API.ca.redoxengine.com/v2/auth/token/": "base_url=https://api.ca.redoxengine.com",
		"https://auth.example/oauth2/token":             "give it as token_url",
	} {
		m.refusedWith(logical.UpdateOperation, "config", map[string]any{"base_url": given}, "base_url: ", says)
	}
	// What is stored stays as it is: to the server another audience is another one.
	m.plant(configStorageKey, `{"schema_version":1,"base_url":"https://API.redoxengine.com:443"}`)
	if got := m.read("config")["audience"]; got != "https://API.redoxengine.com:443/v2/auth/token" {
		t.Errorf("the stored audience has become %v", got)
	}
}

// TestLongClientIDs: some servers issue client IDs that are JWTs.
func TestLongClientIDs(t *testing.T) {
	m := newReadyMount(t)
	id := strings.Repeat("x", 4096)
	m.register(id, "main")
	m.write("roles/long", map[string]any{"client_id": id})
	if got := m.read("token/long")["client_id"]; got != id {
		t.Errorf("the token is told to be of %v", got)
	}
	m.passNow()
	if clients := m.clients("main"); len(clients) != 2 {
		t.Errorf("%d clients", len(clients))
	}
	for _, path := range []string{"config", "roles/long"} {
		m.refusedWith(logical.UpdateOperation, path, map[string]any{"client_id": id + "x"}, "client_id", "longer than 4096 bytes")
	}
}

// newCertificatePEM makes a throw-away CA certificate.
func newCertificatePEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
