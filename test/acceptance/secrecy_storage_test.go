// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/sandbox"
)

// newOwnServer starts a server for one test, with the plugin in its catalog: what is read of its storage gets into no
// audit log. Its own log becomes part of what is searched for secrets.
func newOwnServer(t testing.TB) *vaultServer {
	t.Helper()
	s, err := startDevServer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.stopAtEnd(t, "the server of "+t.Name())
	if err := s.registerPlugin(); err != nil {
		t.Fatal(err)
	}
	return s
}

// mountOn mounts the plugin, with an ES384 key "main" that a local Redox knows at the API key "client-1".
func mountOn(t testing.TB, s *vaultServer) *engine {
	t.Helper()
	redox, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = redox.Close() })
	e := &engine{person: person{t, s, rootToken}, path: "redox", redox: redox}
	e.mount(e.path)
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+redox.URL)
	return e
}

// learnStoredKeys makes the search know the private keys of a server, and tries that it finds each.
func learnStoredKeys(t *testing.T, s *vaultServer) {
	t.Helper()
	if err := learnKeys(s); err != nil {
		t.Fatal(err)
	}
	known := 0
	for path, entry := range s.everything(t, "logical/") {
		if !strings.Contains(path, "/keys/") {
			continue
		}
		known++
		if len(output.scanner.Scan(entry)) == 0 {
			t.Fatalf("the private key in %s is not known", path)
		}
	}
	if known == 0 {
		t.Fatal("there is no private key")
	}
}

// wantClean searches a text at once, so that the test that made it fails.
func wantClean(t testing.TB, what, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("%s: there is nothing to search", what)
	}
	if found := output.scanner.Scan([]byte(text)); len(found) > 0 {
		t.Errorf("%s: found %v", what, found)
	}
}

// TestSecrecyOfStorage reads all of Vault's decrypted storage after the engine has done everything it can do. Bytes of
// private keys are in keys/… and wrapping_key of the mount, there in private_key, and nowhere else; tokens are where Vault
// keeps leases and wrapped answers; assertions are nowhere.
func TestSecrecyOfStorage(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	e := mountOn(t, s)
	e.must("write", e.at("keys/rsa"), "rsa_bits=2048")
	brought, text := newPKCS8(t, "RS384")
	addKey(t, "brought", brought)
	file := filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, file, text)
	e.must("write", e.at("keys/brought/import"), "private_key=@"+file)
	e.must("read", e.at("wrapping_key"))
	e.must("write", e.at("roles/leased"), "leased=true")
	e.must("read", e.at("token/leased"))
	e.must("read", "-wrap-ttl=5m", e.at("token"))
	e.must("write", "-f", "-wrap-ttl=5m", e.at("assertion"))
	e.must("write", "-f", e.at("check"))
	learnStoredKeys(t, s) // before one is destroyed
	e.replaceAtRedox("rotate")
	e.must("read", e.at("token/leased"))
	e.must("write", "-f", e.at("keys/main/activate"))
	e.must("write", e.at("keys/main/retire"), "version=1", "destroy_now=true")
	e.redox.SetFaults(sandbox.Faults{Status: http.StatusBadRequest, Body: `{"error":"invalid_client"}`})
	e.try("write", "-f", e.at("token"))
	e.must("write", "-f", e.at("keys/rsa/rotate"))
	learnStoredKeys(t, s)

	var mounts map[string]struct{ UUID string }
	if err := s.json(&mounts, "secrets", "list", "-detailed", "-format=json"); err != nil {
		t.Fatal(err)
	}
	own := "logical/" + mounts[e.path+"/"].UUID + "/"
	const privateKey, accessToken, assertion = "a private key", "an access token", "a client assertion"
	allowed := map[string][]string{
		"keys": {privateKey}, "wrapping_key": {privateKey}, "lease": {accessToken}, "wrapped answer": {accessToken, assertion},
	}
	seen := map[string]map[string]bool{}
	for path, value := range s.everything(t, "") {
		place := placeOf(path, own)
		if seen[place] == nil {
			seen[place] = map[string]bool{}
		}
		for _, found := range output.scanner.Scan(value) {
			switch {
			case strings.Contains(path, "/oidc_tokens/named_keys/") && found == "a private JWK":
				continue // Vault's own
			case found == shownAssertion: // of a test beside this one: all assertions begin alike
				found = assertion
			case found != accessToken && found != assertion:
				found = privateKey
			}
			seen[place][found] = true
			if !slices.Contains(allowed[place], found) {
				t.Errorf("%s holds %s", path, found)
			}
		}
		if place == "clients" && !bytes.Contains(value, []byte("schema_version")) {
			t.Errorf("%s is read compressed, so that nothing can be found in it", path)
		}
		if place == "keys" || place == "wrapping_key" {
			wantClean(t, path+" but for private_key", withoutPrivateKeys(t, value))
		}
	}
	for place, secrets := range allowed {
		for _, secret := range secrets {
			if !seen[place][secret] {
				t.Errorf("%s was not found in %s, where it has to be: the search does not work", secret, place)
			}
		}
	}
	for _, place := range []string{"config", "roles", "clients", "elsewhere"} {
		if seen[place] == nil {
			t.Errorf("there is nothing in %s", place)
		}
	}
}

// placeOf says what the storage keeps at a path: which of the entries of the mount at own, a lease of it, an answer that
// was wrapped.
func placeOf(path, own string) string {
	switch entry, isOwn := strings.CutPrefix(path, own); {
	case isOwn:
		first, _, _ := strings.Cut(entry, "/")
		return first
	case strings.HasPrefix(path, "sys/expire/id/redox/"):
		return "lease"
	case strings.HasPrefix(path, "logical/") && strings.HasSuffix(path, "/response"):
		return "wrapped answer"
	}
	return "elsewhere"
}

// everything gives the values of all entries of Vault's storage below a prefix that can be read.
func (s *vaultServer) everything(t *testing.T, prefix string) map[string][]byte {
	t.Helper()
	var names struct{ Data struct{ Keys []string } }
	if err := json.Unmarshal(s.raw(t, "LIST", prefix), &names); err != nil {
		t.Fatal(err)
	}
	values := map[string][]byte{}
	for _, name := range names.Data.Keys {
		if strings.HasSuffix(name, "/") {
			for path, value := range s.everything(t, prefix+name) {
				values[path] = value
			}
			continue
		}
		var entry struct{ Data struct{ Value string } }
		if err := json.Unmarshal(s.raw(t, http.MethodGet, prefix+name), &entry); err != nil {
			t.Fatal(err)
		}
		values[prefix+name] = []byte(entry.Data.Value)
	}
	return values
}

// withoutPrivateKeys gives a stored entry without the members private_key of it and of its versions.
func withoutPrivateKeys(t *testing.T, entry []byte) string {
	t.Helper()
	var value map[string]any
	if err := json.Unmarshal(entry, &value); err != nil {
		t.Fatal("a stored entry is no JSON object")
	}
	delete(value, "private_key")
	versions, _ := value["versions"].([]any)
	for _, version := range versions {
		if version, ok := version.(map[string]any); ok {
			delete(version, "private_key")
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shownAssertion is what the search calls the assertions that TestSecrecyOfAnswers has sent.
const shownAssertion = "an assertion that was shown"

// TestSecrecyOfAnswers makes servers show what they are sent in every way, and looks at what people and programs see then:
// in the CLI's tables and formats, wrapped, as help and OpenAPI. The server's log and audit logs are searched at the end.
func TestSecrecyOfAnswers(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	echo := leakcheck.StartEcho(t)
	echo.Use("the description")
	e.must("write", e.at("config"), "base_url="+echo.URL, "max_retries=0")
	look := func(what string, arguments ...string) {
		t.Helper()
		r := e.try(arguments...)
		wantClean(t, what+": vault "+strings.Join(arguments, " "), r.stdout+r.stderr)
	}
	for _, way := range []string{"the description", "the error code", "another JSON", "broken JSON", "a web page", "a redirect",
		"the status line", "a header without a colon", "headers"} {
		echo.Use(way)
		look(way, "read", e.at("token"))
		look(way, "write", "-f", e.at("token"))
		look(way, "write", "-f", e.at("check"))
	}
	sent := echo.Received()
	if len(sent) < 9 {
		t.Fatalf("only %d assertions were sent", len(sent))
	}
	for _, assertion := range sent {
		output.scanner.AddAssertion(shownAssertion, assertion)
	}

	key, text := newPKCS8(t, "ES384")
	addKey(t, "cut off", key)
	file := filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, file, text[:len(text)/2])
	for _, format := range []string{"table", "json", "yaml", "pretty", "raw"} {
		look(format, "read", "-format="+format, e.at("keys/main"))
		look(format, "write", "-format="+format, "-f", e.at("check"))
		look(format, "write", "-format="+format, "-wrap-ttl=5m", e.at("keys/bad/import"), "private_key=@"+file)
		look(format, "write", "-format="+format, e.at("keys/bad/import"), "ciphertext="+strings.Repeat("A", 1000))
	}
	look("metrics", "read", "-format=raw", e.at("metrics"))
	look("the paths", "path-help", e.at(""))
	look("a path", "path-help", e.at("keys/main/import"))
	_, openAPI := e.http(http.MethodGet, "sys/internal/specs/openapi", "")
	wantClean(t, "OpenAPI", openAPI)
	if _, help := e.http(http.MethodGet, e.at("keys/main")+"?help=1", ""); !strings.Contains(help, "algorithm") {
		t.Errorf("the help is %s", help)
	}
	log, err := os.ReadFile(e.vault.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	wantClean(t, "the server's log", string(log))
}
