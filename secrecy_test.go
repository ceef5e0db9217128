// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// searchNow looks for what a scanner knows in all that the mount has said so far, and in a text. The mount's own scanner
// may not know the wrapping key: it would find it where it is stored.
func (m *mount) searchNow(scanner *leakcheck.Scanner, what string, text []byte) {
	m.t.Helper()
	for name, said := range map[string][]byte{"answers": m.output.bytes(), "log": m.log.bytes(), "text": text} {
		if found := scanner.Scan(said); len(found) > 0 {
			m.t.Fatalf("%s: the %s hold %v", what, name, found)
		}
	}
}

// metricsText returns the metrics as a scraper gets them.
func (m *mount) metricsText() []byte {
	m.t.Helper()
	text, _ := m.read("metrics")[logical.HTTPRawBody].([]byte)
	if len(text) == 0 {
		m.t.Fatal("there are no metrics")
	}
	return text
}

// TestEchoedAssertions: whatever way a token endpoint, or a proxy before it, has of showing the assertion that it was
// sent, neither an answer, nor the log, the metrics, the events or storage show it.
func TestEchoedAssertions(t *testing.T) {
	for _, way := range slices.Sorted(maps.Keys(leakcheck.Echoes)) {
		t.Run(way, func(t *testing.T) {
			m := newReadyMount(t)
			echo := leakcheck.StartEcho(t)
			echo.Use(way)
			m.write("config", fields{"base_url": echo.URL, "max_retries": 0})
			for _, r := range []storageRequest{
				{logical.ReadOperation, "token", nil},
				{logical.UpdateOperation, "check", nil},
				{logical.UpdateOperation, "keys/main/rotate", nil},
				{logical.UpdateOperation, "keys/main/activate", nil},
				{logical.ReadOperation, "keys/main", nil},
			} {
				_, _ = m.request(r.operation, r.path, r.data)
			}
			m.passNow()
			received := echo.Received()
			if len(received) < 3 {
				t.Fatalf("only %d assertions were sent", len(received))
			}
			for _, assertion := range received {
				m.scanner.AddAssertion("an assertion", assertion)
			}
			stored := slices.Collect(maps.Values(m.storage.snapshot()))
			said := strings.Join(append(stored, m.announced()), "\n")
			for _, v := range must(m.store.key(t.Context(), "main")).Versions { // where private keys may be
				said = strings.ReplaceAll(said, string(must(json.Marshal(v.PrivateKey))), "")
			}
			m.searchNow(m.scanner, "afterwards", append(m.metricsText(), said...))
		})
	}
}

// TestEchoedPlatformTokens is the same for the Platform API, which is sent a token that can change API keys.
func TestEchoedPlatformTokens(t *testing.T) {
	m := newPlatformMount(t)
	echo := leakcheck.StartEcho(t)
	token := m.accessToken(logical.ReadOperation, "token/manager")
	m.scanner.AddText("the platform role's token", token)
	m.write("config", fields{"platform_url": echo.URL})
	for _, way := range slices.Sorted(maps.Keys(leakcheck.Echoes)) {
		if strings.HasPrefix(way, "the description, its ") || strings.HasPrefix(way, "the description, without") {
			continue // of an assertion
		}
		echo.Use(way)
		before := len(echo.Received())
		_, _ = m.request(logical.UpdateOperation, "keys/main/register", nil)
		_, _ = m.request(logical.ReadOperation, "keys/main", nil)
		m.passNow()
		received := echo.Received()[before:]
		if len(received) == 0 {
			t.Fatalf("%s: no token was sent", way)
		}
		for _, sent := range received {
			m.scanner.AddText("the platform role's token", sent)
		}
		m.searchNow(m.scanner, way, append(m.metricsText(), m.storage.snapshot()["acceptance/main"]+m.announced()...))
	}
}

// everyKind makes keys of every kind that the engine holds, in every state.
func (m *mount) everyKind() {
	m.t.Helper()
	m.write("keys/rsa", fields{"rsa_bits": 2048})
	m.write("keys/rsa/rotate", nil)
	m.write("keys/brought/import", fields{privateKeyField: pkcs8Text(outsideEC())})
	m.read("wrapping_key")
	m.write("roles/team", fields{"leased": true})
	m.read("token/team")
	m.passNow()
	m.write("assertion", nil)
	m.write("keys/main/rotate", nil)
	m.register("client-1", "main") // only the version that was there before
	m.write("check", nil)
	m.write("keys/main/activate", fields{"force": true})
	m.write("keys/main/retire", fields{"version": 1, "destroy_now": true})
	m.passNow()
}

// TestPrivateKeysHaveOnePlace: of all entries that are ever stored, only keys/… and wrapping_key hold bytes of a private
// key, in private_key and nowhere else.
func TestPrivateKeysHaveOnePlace(t *testing.T) {
	m := newReadyMount(t)
	m.everyKind()
	written := m.storage.written()
	scanner := storedKeys(t, written)
	holding := map[string]bool{}
	for _, entry := range written {
		if len(scanner.Scan(entry.Value)) > 0 {
			holding[entry.Key] = true
		}
		if found := scanner.Scan(withoutPrivateKeys(t, entry.Value)); len(found) > 0 {
			t.Errorf("%s holds %v outside private_key", entry.Key, found)
		}
	}
	want := []string{"keys/brought", "keys/main", "keys/rsa", wrappingKeyStorage}
	if got := slices.Sorted(maps.Keys(holding)); !slices.Equal(got, want) {
		t.Errorf("private keys are stored in %v, not in %v", got, want)
	}
	for _, prefix := range []string{configStorageKey, rolesStoragePrefix, clientsStoragePrefix} {
		if !slices.ContainsFunc(written, func(e logical.StorageEntry) bool { return strings.HasPrefix(e.Key, prefix) }) {
			t.Errorf("nothing was stored at %s: there was nothing to search", prefix)
		}
	}
}

// storedKeys returns a scanner that knows every private key in stored entries.
func storedKeys(t testing.TB, entries []logical.StorageEntry) *leakcheck.Scanner {
	t.Helper()
	scanner := leakcheck.New()
	for _, entry := range entries {
		if entry.Key != wrappingKeyStorage && !strings.HasPrefix(entry.Key, keysStoragePrefix) {
			continue
		}
		if _, err := scanner.AddStored(entry.Key, string(entry.Value)); err != nil {
			t.Fatal(err)
		}
	}
	return scanner
}

// withoutPrivateKeys returns a stored entry without its members private_key.
func withoutPrivateKeys(t testing.TB, entry []byte) []byte {
	t.Helper()
	var value any
	if err := json.Unmarshal(entry, &value); err != nil {
		t.Fatal(err)
	}
	var strip func(any)
	strip = func(value any) {
		switch value := value.(type) {
		case map[string]any:
			delete(value, "private_key")
			for _, member := range value {
				strip(member)
			}
		case []any:
			for _, member := range value {
				strip(member)
			}
		}
	}
	strip(value)
	return must(json.Marshal(value))
}

// TestStorageFailsWithKeysInHand: a storage that fails when a key was just made, brought or read makes the engine say
// nothing of it.
func TestStorageFailsWithKeysInHand(t *testing.T) {
	brought := pkcs8Text(outsideEC())
	for _, r := range []storageRequest{
		{logical.UpdateOperation, "keys/new", fields{"algorithm": algorithmES384}},
		{logical.UpdateOperation, "keys/new", fields{"rsa_bits": 2048}},
		{logical.UpdateOperation, "keys/new/import", fields{privateKeyField: brought}},
		{logical.UpdateOperation, "keys/main", fields{"deletion_allowed": true}},
		{logical.UpdateOperation, "keys/main/rotate", nil},
		{logical.UpdateOperation, "keys/main/import", fields{privateKeyField: brought}},
		{logical.UpdateOperation, "keys/main/activate", fields{"force": true}},
		{logical.UpdateOperation, "assertion", nil},
		{logical.ReadOperation, "token", nil},
		{logical.ReadOperation, "wrapping_key", nil},
	} {
		m := newReadyMount(t)
		if strings.HasSuffix(r.path, "activate") {
			m.write("keys/main/rotate", nil)
		}
		m.restart()
		for _, operation := range []string{"put", "get", "list"} {
			m.storage.onEach(func(asked, key string) error {
				if asked == operation {
					return errors.New("storage is broken")
				}
				return nil
			})
			_, _ = m.request(r.operation, r.path, r.data)
			m.storage.onEach(nil)
		}
		scanner := storedKeys(t, m.storage.written()) // also what it refused to take
		if err := scanner.AddKey("brought", outsideEC()); err != nil {
			t.Fatal(err)
		}
		m.searchNow(scanner, r.path, nil)
	}
}

// TestUnreadableEntriesAreNotQuoted: an entry that holds a private key where none belongs, or that is cut off within one,
// is not quoted by whatever has to read it.
func TestUnreadableEntriesAreNotQuoted(t *testing.T) {
	m := newReadyMount(t)
	m.everyKind()
	scanner := storedKeys(t, m.storage.written())
	good := m.storage.snapshot()
	held := string(must(json.Marshal(must(m.store.key(t.Context(), "rsa")).newest().PrivateKey)))
	for key, entry := range good {
		for _, broken := range []string{
			entry[:len(entry)*2/3],
			held, `[` + held + `]`, `{` + held,
			`{"schema_version":` + held + `}`,
			`{"schema_version":1,` + held + `}`,
			`{"schema_version":1,"versions":` + held + `,"client_id":[` + held + `],"users":` + held + `,"private_key":[` + held + `]}`,
			`{"schema_version":1,"versions":[{"number":` + held + `,"algorithm":[` + held + `]}],"scope":{` + held + `:1}}`,
			strings.ReplaceAll(entry, `"private_key":"`, `"private_key":"-----BEGIN PRIVATE KEY-----`),
			strings.ReplaceAll(entry, `"public_key":"`, `"public_key":`+held[:len(held)-1]),
		} {
			m.plant(key, broken)
			m.restart()
			for _, path := range []string{"config", "roles/team", "keys/main", "keys/rsa", "keys/brought", "wrapping_key", "jwks",
				"jwks/main", "token", "token/team", "metrics"} {
				_, _ = m.request(logical.ReadOperation, path, nil)
			}
			for _, path := range []string{"keys/main/rotate", "keys/rsa/activate", "keys/brought/register", "check/team", "assertion"} {
				_, _ = m.request(logical.UpdateOperation, path, nil)
			}
			m.passNow()
			for key, value := range good {
				m.plant(key, value)
			}
		}
		m.searchNow(scanner, key, nil) // not for each entry: all that was said is searched
	}
}

// TestOtherEncodingsHoldNoPrivateKey goes beyond TestPrivateKeysNeverPrintThemselves: encodings that go through a value by
// themselves, too, get no byte of a key.
func TestOtherEncodingsHoldNoPrivateKey(t *testing.T) {
	for _, outside := range []crypto.Signer{outsideRSA(), outsideEC()} {
		key := brought(outside)
		version := must(newKeyVersion(key, "", true, time.Now()))
		scanner := leakcheck.New()
		if err := scanner.AddKey("outside", outside); err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]any{
			"key": key, "key as value": *key, "sealed": version.PrivateKey, "version": version,
			"signing key": &signingKey{Versions: []keyVersion{*version}}, "resolved": &resolved{key: &keySnapshot{signingKey: &signingKey{Versions: []keyVersion{*version}}}},
		} {
			var encoded bytes.Buffer
			// What can't encode a value says so, which may not quote it either.
			fmt.Fprintln(&encoded, gob.NewEncoder(&encoded).Encode(value))
			fmt.Fprintln(&encoded, xml.NewEncoder(&encoded).Encode(value))
			fmt.Fprintln(&encoded, template.Must(template.New("").Parse("{{.}} {{print .}} {{html .}}")).Execute(&encoded, value))
			slog.New(slog.NewTextHandler(&encoded, nil)).Error("failed", "value", value)
			fmt.Fprintln(&encoded, errors.Join(fmt.Errorf("failed: %v", value)))
			if found := scanner.Scan(encoded.Bytes()); len(found) > 0 || encoded.Len() == 0 {
				t.Errorf("%s: %v", name, found)
			}
		}
	}
}

// crashes are ways in which the plugin could crash with a key in its hands. The scanner is to learn the keys first.
var crashes = map[string]func(m *mount){
	"a key is the reason": func(m *mount) {
		panic(must(m.store.key(context.Background(), "main")).newest().PrivateKey)
	},
	"an opened key is the reason": func(m *mount) {
		panic(must(must(m.store.key(context.Background(), "main")).newest().PrivateKey.Open()))
	},
	"a value with the key inside is the reason": func(m *mount) {
		panic(must(m.minter.resolve(context.Background(), "")))
	},
	"a text made of the key is the reason": func(m *mount) {
		c := must(m.minter.resolve(context.Background(), ""))
		key := must(c.next(nil).PrivateKey.Open())
		panic(fmt.Sprintf("%v %+v %#v %s", key, c.key.signingKey, c.next(nil), must(key.Seal())))
	},
	"an error made of the key is the reason": func(m *mount) {
		c := must(m.minter.resolve(context.Background(), ""))
		panic(fmt.Errorf("failed: %v", must(c.next(nil).PrivateKey.Open())))
	},
	"storage crashes when it is to take a key": func(m *mount) {
		m.storage.onEach(func(operation, _ string) error {
			if operation == "put" {
				panic("storage")
			}
			return nil
		})
		m.write("keys/main/rotate", nil)
	},
	"storage crashes within a mint": func(m *mount) {
		m.clock.advance(time.Minute) // so that a write mints again
		m.storage.onEach(func(string, string) error { panic("storage") })
		m.write("token", nil)
	},
	"a lock is let go of twice": func(m *mount) {
		m.minter.searches.mu.Unlock() // which no recover catches
	},
}

const crashVariable = "REDOX_TEST_CRASH"

// TestCrashes: what Go prints when the plugin's process crashes, with the dump of all goroutines, holds no byte of a key,
// no assertion and no token.
func TestCrashes(t *testing.T) {
	if way := os.Getenv(crashVariable); way != "" { // the process that is to crash
		debug.SetTraceback("all")
		m := newReadyMount(t)
		m.write("assertion", nil)
		m.read("token")
		text := must(json.Marshal(must(m.store.key(t.Context(), "main")).newest().PrivateKey))
		if _, err := os.Stdout.Write(append([]byte(keyMark), append(text, '\n')...)); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { // where the test's own recover is not
			crashes[way](m)
			close(done) // not deferred: else the test could end, and the process with it, before the crash is told of
		}()
		<-done
		return
	}
	for _, way := range slices.Sorted(maps.Keys(crashes)) {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashes$")
			command.Env = append(os.Environ(), crashVariable+"="+way)
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			if err == nil || !strings.Contains(stderr.String(), "goroutine ") {
				t.Fatalf("it did not crash: %v\n%s", err, stdout.String())
			}
			_, after, found := strings.Cut(stdout.String(), keyMark)
			line, _, _ := strings.Cut(after, "\n")
			var sealed privatekey.Sealed
			if !found || json.Unmarshal([]byte(line), &sealed) != nil {
				t.Fatal("the key is not known")
			}
			scanner := leakcheck.New()
			if err := scanner.AddKey("main", must(storedPrivateKey(sealed))); err != nil {
				t.Fatal(err)
			}
			if found := scanner.Scan(stderr.Bytes()); len(found) > 0 {
				t.Errorf("the dump holds %v", found)
			}
		})
	}
}

// keyMark is what the process that is to crash puts before its key, for the test alone.
const keyMark = "the key: "

// TestScopeThatIsASecret: a scope is shown where tokens and assertions are not, so one that holds either counts as none.
func TestScopeThatIsASecret(t *testing.T) {
	m := newReadyMount(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := sandbox.TokenPrefix + strings.Repeat("x", 40)
		fmt.Fprintf(w, `{"access_token":%q,"scope":"a %s %s"}`, token, token, r.PostFormValue("client_assertion"))
	}))
	t.Cleanup(server.Close)
	m.write("config", fields{"base_url": server.URL})
	if check := m.write("check", nil); check["ok"] != true || check["scope"] != "" {
		t.Errorf("the check says %v", check["ok"])
	}
	m.read("token")
	m.searchNow(m.scanner, "a scope", nil)
}
