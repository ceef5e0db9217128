// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// newPKCS8 makes a private key as openssl would.
func newPKCS8(t testing.TB, algorithm string) (crypto.Signer, string) {
	t.Helper()
	var key crypto.Signer
	var err error
	if algorithm == "RS384" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestImportsJWKFromTheDashboard brings the file that the Redox dashboard hands out, in each way it can be sent.
func TestImportsJWKFromTheDashboard(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	key, _ := newPKCS8(t, "RS384")
	addKey(t, "JWK", key)
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "dashboard", Algorithm: "RS384", Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, jwk, 0o600); err != nil {
		t.Fatal(err)
	}
	discard := func(name string) {
		e.must("write", e.at("keys/"+name), "deletion_allowed=true")
		e.must("delete", e.at("keys/"+name))
	}
	e.must("write", e.at("keys/file/import"), "private_key=@"+file)
	if kid := e.data("read", e.at("keys/file"))["kid"]; kid != "dashboard" {
		t.Errorf("the kid is %v", kid)
	}
	discard("file")
	// A client in a program sends the object as it is, not as a string in a string.
	if response, text := e.http(http.MethodPost, e.at("keys/object/import"), `{"private_key":`+string(jwk)+`}`); response.StatusCode != http.StatusOK {
		t.Errorf("a JSON object is answered with %d: %s", response.StatusCode, text)
	}
	e.register("client-2", "object")
	e.must("write", e.at("config"), "client_id=client-2", "key=object")
	if e.opens(e.accessToken("token")) != http.StatusOK {
		t.Error("the imported key does not work")
	}
}

// TestMisplacedPrivateKeys sends private keys in wrong forms and to wrong places. Each is refused, and the search at
// the end finds nothing of them in answers, audit log or server log.
func TestMisplacedPrivateKeys(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	key, text := newPKCS8(t, "RS384")
	addKey(t, "misplaced", key)
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "dashboard"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, body string }{
		{"array", "keys/x/import", fmt.Sprintf(`{"private_key":[%s]}`, quoted)},
		{"array of objects", "keys/x/import", fmt.Sprintf(`{"private_key":[%s]}`, jwk)},
		{"object in an object", "keys/x/import", fmt.Sprintf(`{"private_key":{"jwk":%s}}`, jwk)},
		{"number", "keys/x/import", `{"private_key":12345678901234567890}`},
		{"true", "keys/x/import", `{"private_key":true}`},
		{"null", "keys/x/import", `{"private_key":null}`},
		{"nothing", "keys/x/import", `{}`},
		{"cut off", "keys/x/import", fmt.Sprintf(`{"private_key":%s"}`, quoted[:len(quoted)/2])},
		{"public JWK around it", "keys/x/import", fmt.Sprintf(`{"private_key":{"kty":"oct","k":%s}}`, quoted)},
		{"as kid", "keys/x/import", fmt.Sprintf(`{"private_key":"x","kid":%s}`, quoted)},
		{"object as kid", "keys/x/import", fmt.Sprintf(`{"private_key":"x","kid":%s}`, jwk)},
		{"to keys", "keys/x", fmt.Sprintf(`{"private_key":%s}`, quoted)},
		{"object to keys", "keys/x", fmt.Sprintf(`{"private_key":%s}`, jwk)},
		{"object as algorithm", "keys/x", fmt.Sprintf(`{"algorithm":%s}`, jwk)},
		{"as algorithm", "keys/x", fmt.Sprintf(`{"algorithm":%s}`, quoted)},
		{"as client_id", "config", fmt.Sprintf(`{"client_id":%s}`, quoted)},
		{"object as client_id", "config", fmt.Sprintf(`{"client_id":%s}`, jwk)},
		{"as ca_pem", "config", fmt.Sprintf(`{"ca_pem":%s}`, quoted)},
		{"as min_ttl", "config", fmt.Sprintf(`{"min_ttl":%s}`, quoted)},
		{"as a role's scope", "roles/x", fmt.Sprintf(`{"scope":%s}`, quoted)},
		{"as a role's leased", "roles/x", fmt.Sprintf(`{"leased":%s}`, quoted)},
		{"as a role's key", "roles/x", fmt.Sprintf(`{"key":%s}`, quoted)},
		{"to token", "token", fmt.Sprintf(`{"private_key":%s}`, quoted)},
	} {
		response, text := e.http(http.MethodPost, e.at(c.path), c.body)
		if response.StatusCode != http.StatusBadRequest || !strings.Contains(text, "errors") {
			t.Errorf("%s: %d %s", c.name, response.StatusCode, text)
		}
	}
	e.refused(http.StatusBadRequest, "write", e.at("keys/x/import"), "key="+text)
	if names := e.must("list", "-format=json", e.at("keys")); strings.Contains(names, "x") {
		t.Errorf("a refused key is there: %s", names)
	}
}

// TestPrivateKeyAsFieldName leaves "private_key=" out: the CLI takes what stands before the first "=" as the field's
// name. The answer and the server's log have nothing of it. Vault itself writes names of fields into the audit log in
// clear, before a plugin sees them: README.md says so.
func TestPrivateKeyAsFieldName(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	key, text := newPKCS8(t, "RS384")
	scanner := leakcheck.New()
	if err := scanner.AddKey("field name", key); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(text))
	answer := e.refused(http.StatusBadRequest, "write", e.at("keys/x/import"), base64.RawStdEncoding.EncodeToString(block.Bytes)+"=x")
	if !strings.Contains(answer, "field=value") {
		t.Errorf("the way out is not shown: %s", answer)
	}
	log, err := os.ReadFile(e.vault.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, output := range map[string]string{"answer": answer, "log": string(log)} {
		if found := scanner.Scan([]byte(output)); len(found) > 0 {
			t.Errorf("the %s holds %v", name, found)
		}
	}
}
