// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// docs/troubleshooting.md quotes what the engine says about failures, as block quotes: a paragraph each, word for word but
// for hosts, names and numbers. The tests hold the quotes against what the engine says when it is brought to. Redox's own words
// are held against the page in internal/redox, what Vault says itself in test/acceptance.

const troubleshootingPage = "docs/troubleshooting.md"

// quotes gives the messages that the page quotes.
func quotes(t *testing.T) []string {
	t.Helper()
	var quoted, lines []string
	for line := range strings.Lines(string(must(os.ReadFile(troubleshootingPage))) + "\n") {
		if words, ok := strings.CutPrefix(line, "> "); ok {
			lines = append(lines, strings.TrimSpace(words))
			continue
		}
		if len(lines) > 0 {
			quoted = append(quoted, strings.Join(lines, " "))
		}
		lines = nil
	}
	if len(quoted) < 100 {
		t.Fatalf("%s has %d quotes only", troubleshootingPage, len(quoted))
	}
	return quoted
}

// TestTroubleshootingIsIndexed: every section can be found by words, and every link of the page leads somewhere.
func TestTroubleshootingIsIndexed(t *testing.T) {
	page := string(must(os.ReadFile(troubleshootingPage)))
	_, index, _ := strings.Cut(page, "\n## By its words\n")
	index, _, _ = strings.Cut(index, "\n## ")
	headings := regexp.MustCompile(`(?m)^###? (.+)$`).FindAllStringSubmatch(page, -1)
	anchors := map[string]bool{}
	for _, heading := range headings {
		anchor := strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-")
		anchors[anchor] = true
		if strings.HasPrefix(heading[0], "### ") && !strings.Contains(index, "["+heading[1]+"](#"+anchor+")") {
			t.Errorf("the index does not lead to %q", heading[1])
		}
	}
	for _, link := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(page, -1) {
		if !anchors[link[1]] {
			t.Errorf("there is no section #%s", link[1])
		}
	}
}

// saidElsewhere are quotes that no local Redox can bring about, with the test that does.
var saidElsewhere = map[string]string{
	"Vault did not take an event":                        "events_test.go TestEventsThatVaultDoesNotTake",
	"events were dropped: Vault took none for a while":   "events_test.go TestEventsAreBounded",
	"there is no address for api.redoxengine.com in DNS": "internal/redox/diagnose_network_test.go TestDialFailures",
	"DNS gave no answer for api.redoxengine.com":         "internal/redox/diagnose_network_test.go TestDialFailures",
	"the server limits requests: api.redoxengine.com has asked for a pause, and nothing is sent to it for another 42s":                                          "internal/redox/gate_test.go TestWhyNotSent",
	"the server limits requests, and those to api.redoxengine.com are kept under request_limit: this one would have waited 48s behind 500 others":               "internal/redox/gate_test.go TestWhyNotSent",
	"api.redoxengine.com answers too slowly: as many requests as max_concurrent_requests allows wait for it, and this one could not be sent":                    "internal/redox/gate_test.go TestWhyNotSent",
	"this node of Vault is too busy: 300 mints wait for a processor; try again, and if it stays, give Vault more processors, or take keys with algorithm ES384": "gates_test.go TestSignaturesAtOnce",
	"the former wrapping key can't be deleted": "path_wrapping_key_test.go TestFormerWrappingKeyStays",
	"public keys are being registered at Redox, which takes long; try again in some minutes, and see keys/main/clients for what is done":  "registration_rest_test.go TestRegistrationTakesTurns",
	"api.redoxengine.com answered the token request with an answer in Content-Encoding br, which was not asked for":                       "internal/redox/words_test.go TestCompressedAnswers",
	"api.redoxengine.com rejected the request, with an answer in Content-Encoding br, which was not asked for":                            "internal/redox/words_test.go TestForeignAnswers",
	"api.redoxengine.com rejected the request, and not as a token endpoint does: its answer is of type text/plain":                        "internal/redox/words_test.go TestForeignAnswers",
	"block 3 of 140 is not a CERTIFICATE; give only the CA certificates, no keys or requests":                                             "internal/redox/client_test.go TestNewClientCertificates",
	"block 3 of 140 is not base64 alone; give the CA certificates as PEM":                                                                 "internal/redox/client_test.go TestNewClientCertificates",
	"block 3 of 140 can't be used (x509: negative serial number); take that certificate out, or replace it by one that keeps to RFC 5280": "internal/redox/client_test.go TestNewClientCertificates",
	"the members of a JWK were given as fields; Vault's audit log has their names in clear, and hashes of their values":                   "path_keys_import_test.go TestImportAsFields",
	"there is no route to api.redoxengine.com":                   "internal/redox/diagnose_network_test.go TestDialFailures",
	"the connection to api.redoxengine.com was not made in time": "internal/redox/diagnose_network_test.go TestDialFailures",
	"the connection to api.redoxengine.com failed":               "internal/redox/diagnose_network_test.go TestConnectionFailures",
	"the HTTP proxy asks for credentials":                        "internal/redox/diagnose_network_test.go TestProxy",
	"the HTTP proxy does not connect to Redox (it answered 403)": "internal/redox/diagnose_network_test.go TestProxy",
	"the proxy between Vault and Redox cannot be reached":        "internal/redox/diagnose_network_test.go TestProxy",
}

// TestTroubleshootingQuotesAreReal brings the engine to say what the page quotes, and compares word for word.
func TestTroubleshootingQuotesAreReal(t *testing.T) {
	said := strings.Join([]string{
		sayRejections(t), sayOfTLS(t), sayOfTime(t), sayOfSetup(t), sayOfStorage(t), sayOfRotation(t), sayOfPlatform(t), sayOfJWKS(t),
	}, "\n")
	for _, quote := range quotes(t) {
		elsewhere := saidElsewhere[quote]
		switch {
		case strings.Contains(said, quote) && elsewhere != "":
			t.Errorf("%q was said here, so it need not be listed as said elsewhere", quote)
		case !strings.Contains(said, quote) && elsewhere == "":
			t.Errorf("nothing made the engine say %q", quote)
		}
	}
	for quote, test := range saidElsewhere {
		file, name, _ := strings.Cut(test, " ")
		if !slices.Contains(quotes(t), quote) || !strings.Contains(string(must(os.ReadFile(file))), "func "+name+"(") {
			t.Errorf("%q, %s: there is no such quote, or no such test", quote, test)
		}
	}
}

// said gives all that a mount answered and logged, with the page's examples of a host and a kid.
func (m *mount) said() string {
	text := m.output.String() + m.log.String()
	text = regexp.MustCompile(`(127\.0\.0\.1|localhost):[0-9]+`).ReplaceAllLiteralString(text, "api.redoxengine.com")
	return regexp.MustCompile(`(^|[^A-Za-z0-9_-])[A-Za-z0-9_-]{43}($|[^A-Za-z0-9_-])`).ReplaceAllString(text, "${1}KID${2}")
}

// try does a request, whatever comes of it: it is recorded.
func (m *mount) try(operation logical.Operation, path string, data map[string]any) {
	_, _ = m.request(operation, path, data)
}

// check asks for what is wrong now.
func (m *mount) check() { m.try(logical.UpdateOperation, "check", nil) }

// sayRejections brings Redox, and what stands in front of it, to answer with errors and with what is no token.
func sayRejections(t *testing.T) string {
	m := newReadyMount(t)
	m.clock.advance(halfSecond)
	m.write("config", fields{"max_retries": 0})
	wrong := []func(*mount){
		func(m *mount) { m.redox.DeleteAPIKey("client-1") },
		faults(sandbox.Faults{ClockOffset: sandbox.Duration(10 * time.Minute)}),
		faults(sandbox.Faults{ClockOffset: sandbox.Duration(-10 * time.Minute)}),
		configured("audience", "https://example.com"),
		configured("token_url", "SANDBOX/elsewhere"),
		configured("base_url", "http://"+closedPort(t)),
		faults(sandbox.Faults{Redirect: "https://example.com/"}),
		faults(sandbox.Faults{HugeBody: 64 << 10}),
		faults(sandbox.Faults{Reset: true}),
	}
	for _, description := range []string{
		"x-www-form-urlencoded content-type required", "Missing grant_type parameter", "The grant_type parameter should equal",
		"Missing client assertion type", "Invalid client assertion type", "Missing client assertion",
		"JWT header kid property is required", "Public key not found",
	} {
		wrong = append(wrong, rejectedAs(description))
	}
	for _, claim := range []string{"iss", "sub", "aud", "iat", "exp", "jti", "kid", "alg", "jku"} {
		wrong = append(wrong, rejectedAs("Unexpected "+claim+" claim value"))
	}
	for _, code := range []string{
		"invalid_client", "unauthorized_client", "access_denied", "invalid_scope", "invalid_grant", "unsupported_grant_type",
	} {
		wrong = append(wrong, faults(sandbox.Faults{Status: 400, Body: fmt.Sprintf(`{"error":%q,"error_description":"no"}`, code)}))
	}
	wrong = append(wrong, rejectedAs("Unexpected typ claim value"), rejectedAs("The moon is full"))
	for _, status := range []int{201, 403, 405, 408, 429, 500} {
		wrong = append(wrong, faults(sandbox.Faults{Status: status}))
	}
	wrong = append(wrong, faults(sandbox.Faults{Status: 400, Body: "<html>Bad Request</html>"}))
	for _, body := range []string{
		"<html>", `{"error":"x"}`, `{}`, `{"access_token":""}`, `{"access_token":"a","token_type":"mac"}`, `{"access_token":`, `[]`,
		`{"a":1,"a":2}`, `{} {}`, `{"access_token":"a","expires_in":"5 minutes"}`, `{"access_token":"a","expires_in":-1}`,
		`{"access_token":"a","expires_in":0.5}`,
	} {
		wrong = append(wrong, faults(sandbox.Faults{Body: body}))
	}
	for _, wrong := range wrong {
		wrong(m)
		m.check()
		m.redox.SetFaults(sandbox.Faults{})
		m.register("client-1", "main")
		m.write("config", fields{"audience": "", "token_url": "", "base_url": m.redox.URL})
	}
	// Without a Date header there is nothing to compare the clock with.
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusBadRequest)
	}))
	t.Cleanup(silent.Close)
	m.write("config", fields{"base_url": silent.URL})
	m.check()
	// Neither of these can be configured, so they are stored behind the engine's back.
	for field, value := range map[string]any{"token_url": "redox", "ca_pem": "none"} {
		entry := must(m.storage.inner.Get(t.Context(), configStorageKey))
		var stored map[string]any
		if err := json.Unmarshal(entry.Value, &stored); err != nil {
			t.Fatal(err)
		}
		stored[field] = value
		m.plant(configStorageKey, string(must(json.Marshal(stored))))
		m.restart()
		m.check()
		m.plant(configStorageKey, string(entry.Value))
	}
	return m.said()
}

// sayOfTLS connects to servers that do not speak TLS as they should.
func sayOfTLS(t *testing.T) string {
	m := newReadyMount(t)
	redox := m.tlsRedox()
	try := func(url, caPEM string) {
		m.write("config", fields{"base_url": url, "ca_pem": caPEM, "max_retries": 0})
		m.check()
	}
	try(redox.URL, "")
	try(redox.URL, m.tlsRedox().CAPEM)
	try(strings.Replace(m.redox.URL, "http:", "https:", 1), "")
	for _, spoil := range []func(*tls.Config, *x509.Certificate){
		func(c *tls.Config, _ *x509.Certificate) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		},
		func(c *tls.Config, _ *x509.Certificate) {
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		},
		func(_ *tls.Config, c *x509.Certificate) { c.IPAddresses = nil },
		func(_ *tls.Config, c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		func(_ *tls.Config, c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		},
	} {
		key := outsideEC()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{"redox.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.TLS = &tls.Config{}
		spoil(server.TLS, template)
		der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
		server.TLS.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		server.StartTLS()
		t.Cleanup(server.Close)
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		try(server.URL, string(certificate))
	}
	m.try(logical.UpdateOperation, "config", fields{"ca_pem": "none"})

	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			_, _ = io.WriteString(conn, "220 mail.example.com ESMTP\r\n")
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
	}()
	try("https://"+listener.Addr().String(), "")
	return m.said()
}

// sayOfTime lets answers come late, and never.
func sayOfTime(t *testing.T) string {
	m := newReadyMount(t)
	m.write("config", fields{"max_retries": 0})
	m.read("token")
	m.clock.advance(280 * time.Second)
	m.redox.SetFaults(sandbox.Faults{Status: 500})
	m.try(logical.ReadOperation, "token", nil) // served, with a warning
	m.redox.SetFaults(sandbox.Faults{})

	arrived, release := m.redox.HoldTokenRequests()
	m.clock.advance(18 * time.Second)
	m.try(logical.ReadOperation, "token", nil) // served after half of the life that is left
	<-arrived
	release()
	m.minter.tokens.Wait()

	arrived, release = m.redox.HoldTokenRequests()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, _ = m.requestContext(ctx, logical.UpdateOperation, "check", nil)
	<-arrived
	err := m.store.write(t.Context(), func(*writing) error {
		_, _ = m.requestContext(ctx, logical.UpdateOperation, "keys/main/abandon", nil)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.write("config", fields{"request_timeout": 1})
	m.check()
	release()

	// A token that is older than it lives by the time it arrives.
	m.write("config", fields{"request_timeout": 10})
	m.minter.tokens.DropAll()
	m.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(time.Second)})
	arrived, release = m.redox.HoldTokenRequests()
	r, _ := m.readInBackground(t.Context(), logical.ReadOperation, "token")
	<-arrived
	m.clock.advance(time.Second)
	release()
	<-r.done
	m.redox.SetFaults(sandbox.Faults{})
	_, release = m.redox.HoldTokenRequests()
	defer release()
	m.backend.Cleanup(context.Background())
	m.try(logical.ReadOperation, "token", nil)
	return m.said()
}

// sayOfSetup leaves out what has to be set up, and writes what is no field.
func sayOfSetup(t *testing.T) string {
	m := newMount(t)
	read := func(path string) { m.try(logical.ReadOperation, path, nil) }
	write := func(path string, data fields) { m.try(logical.UpdateOperation, path, data) }
	read("token")
	write("config", fields{"client_id": "client-1"})
	read("token")
	read("token/team-a")
	write("config", fields{"key": "main"})
	write("keys/main", fields{"algorithm": algorithmES384})
	write("config", fields{"key": "main"})
	write("roles/team-a", fields{"disabled": true})
	read("token/team-a")
	for _, change := range []fields{{"algorithm": algorithmRS384}, {"kid": "another"}, {"rsa_bits": 2048}} {
		write("keys/main", change)
	}
	write("keys/other", fields{"algorithm": algorithmES384, "kid": "taken"})
	write("keys/third", fields{"algorithm": algorithmES384, "kid": "taken"})
	write("config", fields{"clientid": "x"})
	write("config", fields{"-----BEGIN": "x"})
	write("token/team-a", fields{"role": "team-b"})
	write("config", fields{"max_retries": "many"})
	m.try(logical.DeleteOperation, "config", nil)
	m.try(logical.DeleteOperation, "keys/main", nil)
	write("keys/main", fields{"deletion_allowed": true})
	m.try(logical.DeleteOperation, "keys/main", nil)
	write("keys/main", fields{"platform_role": "team-a"})
	write("roles/team-a", fields{"key": "other"})
	write("keys/main", fields{"platform_role": "team-a"})
	m.try(logical.DeleteOperation, "roles/team-a", nil)
	write("roles/team-b", fields{"key": "main"})
	write("keys/main", fields{"platform_role": "team-b", "registration": "platform"})
	write("keys/other", fields{"registration": "platform"})
	write("keys/other", fields{"platform_role": "team-c"})
	write("keys/main/retire", fields{"version": 1, "destroy_now": true})
	read("token/team-b")
	return m.said()
}

// sayOfStorage has entries that can't be used, and a storage that fails.
func sayOfStorage(t *testing.T) string {
	m := newReadyMount(t)
	read := func(path string) { m.restart(); m.try(logical.ReadOperation, path, nil) }
	good := must(m.storage.inner.Get(t.Context(), keysStoragePrefix+"main"))
	m.plant("keys/main", "broken")
	read("jwks")
	m.plant("keys/main", string(good.Value))
	m.plant("clients/main", "broken")
	read("keys/main")
	m.read("token")
	m.storage.onEach(failing("put", ""))
	m.passNow()
	m.storage.onEach(nil)
	m.passNow()
	must(0, m.storage.inner.Delete(t.Context(), "clients/main"))
	m.plantFile("acceptance/main", formerRotation["acceptance/main"])
	m.restart()
	m.storage.onEach(failing("delete", ""))
	m.passNow()
	m.storage.onEach(nil)
	for _, failing := range []func(operation, key string) bool{
		func(operation, _ string) bool { return operation == "list" },
		func(_, key string) bool { return strings.HasPrefix(key, clientsStoragePrefix) },
	} {
		m.write("keys/main/rotate", nil)
		m.restart()
		m.storage.onEach(func(operation, key string) error {
			if failing(operation, key) {
				return errInjected
			}
			return nil
		})
		m.try(logical.UpdateOperation, "keys/main/activate", fields{"force": true})
		m.try(logical.UpdateOperation, "keys/main/retire", nil)
		m.storage.onEach(nil)
	}
	m.storage.onEach(func(operation, _ string) error {
		if operation == "list" {
			return errors.New("the storage fails")
		}
		return nil
	})
	m.passNow()
	m.storage.onEach(nil)
	m.write("roles/team-a", nil)
	m.write("keys/main", fields{"deletion_allowed": true})
	m.plant("keys/other", "broken")
	m.try(logical.DeleteOperation, "roles/team-a", nil)
	m.write("keys/third", fields{"algorithm": algorithmES384})
	for _, entry := range []string{`{"schema_version":3}`, `broken`} {
		m.plant("config", entry)
		read("config")
	}
	m.try(logical.DeleteOperation, "keys/main", nil)
	deleted := newReadyMount(t)
	reads := 0
	deleted.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == "keys/main" {
			// Deleted after the existence check and the look before the lock, so that the one behind it finds nothing.
			if reads++; reads == 3 {
				return deleted.storage.inner.Delete(t.Context(), key)
			}
		}
		return nil
	})
	deleted.try(logical.UpdateOperation, "keys/main", fields{"deletion_allowed": true})
	deleted.storage.onEach(nil)
	lost := newReadyMount(t)
	if err := lost.storage.inner.Delete(t.Context(), "keys/main"); err != nil {
		t.Fatal(err)
	}
	lost.restart()
	lost.try(logical.ReadOperation, "token", nil)
	return m.said() + deleted.said() + lost.said()
}

// sayOfRotation takes steps of a rotation that can't be taken.
func sayOfRotation(t *testing.T) string {
	m := newReadyMount(t)
	write := func(path string, data fields) { m.try(logical.UpdateOperation, path, data) }
	write("keys/main/register", nil)
	write("keys/main/activate", nil)
	write("keys/main/abandon", nil)
	for _, retired := range []fields{{"version": 9}, {"version": 1}, {"destroy_now": true}} {
		write("keys/main/retire", retired)
	}
	m.read("token")
	m.passNow()
	first := m.read("keys/main")
	second := m.write("keys/main/rotate", nil)
	write("keys/main/rotate", nil)
	write("keys/main/activate", nil)
	// Replaced at Redox: the pending version signs. Then taken back.
	m.setJWKs("client-1", second["pending_public_jwk"])
	write("token", nil)
	m.clock.advance(3 * time.Second)
	write("token", nil)
	write("keys/main/abandon", nil)
	m.passNow()
	m.setJWKs("client-1", first["public_jwk"])
	m.clock.advance(time.Hour)
	m.read("token")
	write("keys/main/retire", fields{"version": 1})
	m.read("keys/main")
	m.setJWKs("client-1", second["pending_public_jwk"])
	m.clock.advance(time.Hour)
	m.read("token")
	write("keys/main/retire", fields{"version": 1})
	write("keys/main/retire", fields{"version": 1})
	m.write("keys/main/rotate", nil)
	write("keys/main/activate", fields{"force": true})
	write("keys/main/rotate", fields{"kid": first["kid"]})
	for range rotation.MaxHeld {
		write("keys/main/rotate", nil)
		write("keys/main/activate", fields{"force": true})
	}
	write("keys/main/retire", fields{"version": 1, "force": true})
	write("keys/main/retire", fields{"version": 1, "force": true})

	brought := newMount(t)
	importIt := func() {
		brought.try(logical.UpdateOperation, "keys/main/import", fields{privateKeyField: pkcs8Text(outsideEC())})
	}
	importIt()
	importIt()
	brought.write("keys/main/retire", fields{"version": 1, "destroy_now": true})
	importIt()

	broken := newReadyMount(t)
	broken.setJWKs("client-1")
	broken.write("keys/main/rotate", nil)
	broken.try(logical.UpdateOperation, "keys/main/activate", nil)

	idle := newMount(t)
	idle.write("keys/main", fields{"algorithm": algorithmES384})
	idle.write("keys/main/rotate", nil)
	idle.try(logical.UpdateOperation, "keys/main/activate", nil)

	gone := newReadyMount(t)
	gone.register("client-2", "main")
	gone.write("roles/two", fields{"client_id": "client-2"})
	gone.read("token/two")
	gone.passNow()
	gone.remove("roles/two")
	gone.write("keys/main/rotate", nil)
	gone.try(logical.UpdateOperation, "keys/main/activate", nil)

	timed := newReadyMount(t)
	timed.write("keys/main", fields{"rotation_schedule": "0 3 * * *", "rotation_window": "1h"})
	timed.clock.advance(26 * time.Hour)
	timed.passNow() // missed
	timed.clock.advance(22*time.Hour + 15*time.Minute)
	timed.passNow() // rotated
	timed.clock.advance(24 * time.Hour)
	timed.passNow() // skipped
	timed.clock.advance(-72 * time.Hour)
	timed.passNow() // too far away
	return m.said() + idle.said() + gone.said() + timed.said() + brought.said() + broken.said()
}

// sayOfPlatform spoils what registration through the Platform API needs.
func sayOfPlatform(t *testing.T) string {
	m := newPlatformMount(t)
	look := func() {
		m.tick(10 * time.Minute)
		m.read("keys/main")
	}
	anotherKey := fmt.Sprintf(`{"kty":"EC","crv":"P-384","x":"AAAA","y":"AAAA","kid":%q}`, m.read("keys/main")["kid"])
	jwk := m.read("keys/main")["public_jwk"]
	for _, spoil := range []func(){
		func() { m.setJWKs("client-1", foreignJWK, anotherKey) },
		func() { m.setJWKs("client-1", foreignJWK) },
		func() {
			m.changeAPIKey("client-1", func(k *sandbox.APIKey) { k.JWKSURL, k.JWKSet = "https://example.com/jwks", nil })
		},
		func() { m.changeAPIKey("manager", func(k *sandbox.APIKey) { k.Management = false }) },
		func() { m.redox.DeleteAPIKey("client-1") },
	} {
		spoil()
		look()
		m.changeAPIKey("manager", func(k *sandbox.APIKey) { k.Management = true })
		m.redox.DeleteAPIKey("client-1")
		m.setJWKs("client-1", foreignJWK, jwk)
		look()
	}
	for _, fault := range []sandbox.Faults{
		{Status: 400}, {Status: 405}, {Status: 429}, {Redirect: "https://example.com/"}, {Body: "{}"}, {HugeBody: 64 << 10},
	} {
		fault.Path = "/platform"
		m.redox.SetFaults(fault)
		look()
		m.redox.SetFaults(sandbox.Faults{})
	}
	m.write("config", fields{"client_id": ".."})
	look()
	m.write("config", fields{"client_id": "client-1"})
	// A race: somebody else replaces the set right after the engine did.
	m.write("keys/main/rotate", nil)
	m.proxy.onEach(func(_ int, method string, forward func()) bool {
		forward()
		if method == "PATCH" {
			m.setJWKs("client-1", foreignJWK, jwk)
		}
		return true
	})
	look()
	m.proxy.onEach(nil)

	m.write("roles/manager", fields{"key": "main"})
	m.setJWKs("manager", jwk)
	look()
	m.write("roles/manager", fields{"key": "management", "disabled": true})
	look()

	entry := must(m.storage.inner.Get(t.Context(), configStorageKey))
	m.plant(configStorageKey, regexp.MustCompile(`"platform_url":"[^"]*"`).ReplaceAllString(string(entry.Value), `"platform_url":"redox"`))
	m.restart()
	m.write("roles/manager", fields{"disabled": false})
	m.setJWKs("manager", m.read("keys/management")["public_jwk"])
	look()

	m.write("roles/manager", fields{"min_ttl": 10}) // forgets its token
	m.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == "keys/management" {
			return errors.New("the storage fails")
		}
		return nil
	})
	m.try(logical.UpdateOperation, "keys/main/register", nil)
	m.storage.onEach(nil)
	// Somebody takes the right to manage API keys away, and then a client leaves, and the key is deleted.
	left := newPlatformMount(t)
	left.changeAPIKey("manager", func(k *sandbox.APIKey) { k.Management = false })
	left.write("roles/manager", fields{"min_ttl": 10})
	left.write("config", fields{"client_id": ""})
	left.tick(time.Minute)
	left.tick(25 * time.Hour)
	left.read("keys/main")
	left.write("keys/main", fields{"deletion_allowed": true})
	left.write("config", fields{"key": ""})
	left.write("keys/brief", fields{"algorithm": algorithmES384})
	left.write("keys/brief/retire", fields{"version": 1, "destroy_now": true})
	left.remove("keys/main")
	// The page's role is another one than the tests' manager.
	return strings.ReplaceAll(m.said()+left.said(), `"manager"`, `"team-a"`)
}

// sayOfJWKS looks at a JWKS URL that serves something else.
func sayOfJWKS(t *testing.T) string {
	m := newReadyMount(t)
	body, status := `{"keys":[]}`, http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	m.write("keys/main", fields{"registration": "jwks_url", "public_jwks_url": server.URL + "/jwks"})
	m.read("token")
	m.write("keys/main/rotate", nil)
	activate := func() { m.try(logical.UpdateOperation, "keys/main/activate", nil) }
	activate()
	body = "<html>"
	activate()
	status = http.StatusForbidden
	activate()
	entry := must(m.storage.inner.Get(t.Context(), keysStoragePrefix+"main"))
	m.plant(keysStoragePrefix+"main", strings.ReplaceAll(string(entry.Value), server.URL, "redox:"))
	activate()
	return m.said()
}
