// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// TestOpenAPI holds Vault's OpenAPI document of a mount against the specification, and the mount's real answers against
// the document. An operation that is in the document, but is not tried here, fails the test.
func TestOpenAPI(t *testing.T) {
	verifyOnly(t, "builds tools/openapi")
	t.Parallel()
	d := &dialog{engine: newEngine(t, sandbox.Options{})}
	d.setUp()
	d.useTokens()
	d.useKeys()
	d.tearDown()

	document := d.document()
	text, err := os.ReadFile("../../testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var made map[string]any
	if err := json.Unmarshal(text, &made); err != nil {
		t.Fatal(err)
	}
	withoutIdentifiers(document)
	withoutIdentifiers(made)
	if !reflect.DeepEqual(document["paths"], made["paths"]) {
		t.Error("Vault shows another document than testdata/openapi.json, which the plugin makes: something got lost on the way")
	}
	input, err := json.Marshal(map[string]any{"document": document, "exchanges": d.exchanges})
	if err != nil {
		t.Fatal(err)
	}
	check := openAPITool(t, "run", ".")
	check.Stdin = bytes.NewReader(input)
	if problems, err := check.Output(); err != nil {
		t.Fatalf("%v\n%s", err, problems)
	}
}

// withoutIdentifiers takes away which parameter is an object's identifier: not every host knows that word of the SDK.
func withoutIdentifiers(node any) {
	switch node := node.(type) {
	case map[string]any:
		if attributes, ok := node["x-vault-displayAttrs"].(map[string]any); ok {
			delete(attributes, "identifier")
		}
		for _, child := range node {
			withoutIdentifiers(child)
		}
	case []any:
		for _, child := range node {
			withoutIdentifiers(child)
		}
	}
}

// TestGeneratedClient makes a client from the document with a common generator, and reads a token with it.
func TestGeneratedClient(t *testing.T) {
	verifyOnly(t, "builds tools/openapi")
	t.Parallel()
	e := newReadyEngine(t)
	directory := t.TempDir()
	document := filepath.Join(directory, "openapi.json")
	if err := os.WriteFile(document, []byte(e.must("path-help", "-format=json", e.path)), 0o600); err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(directory, "client.gen.go")
	generate := openAPITool(t, "tool", "oapi-codegen", "-package", "main", "-generate", "types,client", "-o", client, document)
	if text, err := generate.Output(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	beside, err := filepath.Abs("../../tools/openapi/readtoken/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{beside: client}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(directory, "overlay.json")
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	read := openAPITool(t, "run", "-tags", "generated", "-overlay", overlay, "./readtoken", e.path)
	read.Env = append(read.Env, "VAULT_ADDR="+e.vault.address, "VAULT_TOKEN="+e.token)
	token, err := read.Output()
	if err != nil {
		t.Fatalf("the generated client: %v", err)
	}
	if status := e.opens(strings.TrimSpace(string(token))); status != http.StatusOK {
		t.Errorf("Redox answers %d to the token that the generated client read", status)
	}
}

// openAPITool is a go command in tools/openapi. What it says on standard error, its downloads too, is shown at once.
func openAPITool(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"-C", "../../tools/openapi"}, arguments...)...)
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
	command.Stderr = os.Stderr
	return command
}

// document gives the part of Vault's OpenAPI document that is about this mount, with paths relative to it.
func (e *engine) document() map[string]any {
	e.t.Helper()
	document := e.data("read", "sys/internal/specs/openapi")
	all, _ := document["paths"].(map[string]any)
	own := map[string]any{}
	for path, item := range all {
		if relative, isOwn := strings.CutPrefix(path, "/"+e.path+"/"); isOwn {
			own["/"+relative] = item
		}
	}
	document["paths"] = own
	document["components"] = map[string]any{} // other plugins'
	return document
}

// dialog keeps what is asked and answered.
type dialog struct {
	*engine
	exchanges []exchange
}

// exchange is what tools/openapi reads.
type exchange struct {
	Method      string         `json:"method"`
	Path        string         `json:"path"`
	Request     map[string]any `json:"request,omitempty"`
	Status      int            `json:"status"`
	ContentType string         `json:"content_type,omitempty"`
	Answer      any            `json:"answer,omitempty"`
}

// do sends a request that has to succeed, keeps it and its answer, and gives the answer's data.
func (d *dialog) do(method, path string, request map[string]any) map[string]any {
	d.t.Helper()
	body := ""
	if request != nil {
		text, err := json.Marshal(request)
		if err != nil {
			d.t.Fatal(err)
		}
		body = string(text)
	}
	response, text := d.http(method, d.at(path), body)
	if response.StatusCode >= 300 {
		d.t.Fatalf("%s %s: %s\n%s", method, path, response.Status, text)
	}
	x := exchange{Method: method, Request: withoutSecrets(request), Status: response.StatusCode}
	x.Path, _, _ = strings.Cut("/"+path, "?")
	if x.Status != http.StatusNoContent {
		x.ContentType = response.Header.Get("Content-Type")
	}
	var data map[string]any
	if x.ContentType == "application/json" {
		if err := json.Unmarshal([]byte(text), &data); err != nil {
			d.t.Fatalf("%s %s: %v", method, path, err)
		}
		if _, enveloped := data["request_id"]; enveloped {
			data, _ = data["data"].(map[string]any)
		}
		x.Answer = withoutSecrets(data)
	}
	d.exchanges = append(d.exchanges, x)
	return data
}

// withoutSecrets gives a copy in which nothing is secret and each value still has its type.
func withoutSecrets(data map[string]any) map[string]any {
	if data == nil {
		return nil
	}
	clean := map[string]any{}
	for name, value := range data {
		switch name {
		case "access_token", "client_assertion", "private_key":
			value = "a secret"
		}
		clean[name] = value
	}
	return clean
}

func (d *dialog) setUp() {
	d.do("POST", "keys/main", map[string]any{"algorithm": "ES384", "retire_grace": "48h", "rotation_period": "2160h"})
	d.register("client-1", "main")
	d.do("POST", "config", map[string]any{
		"client_id": "client-1", "key": "main", "base_url": d.redox.URL, "clock_skew": "20s", "max_retries": 0,
	})
	d.do("GET", "config", nil)
	d.do("POST", "roles/team", map[string]any{"client_id": "client-1", "min_ttl": "45s", "leased": true})
	d.do("GET", "roles/team", nil)
	d.do("GET", "roles/?list=true", nil)
	d.do("GET", "metrics", nil)
	d.do("GET", "info", nil)
	d.do("GET", "wrapping_key", nil)
}

func (d *dialog) useTokens() {
	for _, role := range []string{"", "/team"} {
		d.do("GET", "token"+role, nil)
		d.do("POST", "token"+role, nil)
		d.do("POST", "assertion"+role, nil)
		if data := d.do("POST", "check"+role, nil); data["ok"] != true {
			d.t.Errorf("check%s says %v", role, data)
		}
	}
	d.do("POST", "roles/stranger", map[string]any{"client_id": "nobody"})
	for _, fault := range []sandbox.Faults{{}, {Status: http.StatusTooManyRequests, RetryAfter: "1"}} {
		d.redox.SetFaults(fault)
		if data := d.do("POST", "check/stranger", nil); data["ok"] != false {
			d.t.Errorf("check/stranger says %v", data)
		}
	}
	d.redox.SetFaults(sandbox.Faults{})
}

func (d *dialog) useKeys() {
	d.do("GET", "keys/?list=true", nil)
	d.do("GET", "jwks", nil)
	d.do("GET", "jwks/main", nil)

	d.do("POST", "keys/main/rotate", map[string]any{"rsa_bits": 2048, "algorithm": "RS384"})
	d.do("POST", "keys/main/abandon", nil)
	d.do("POST", "keys/main/rotate", map[string]any{"kid": "next"})
	d.do("POST", "keys/main/activate", map[string]any{"force": true})
	d.do("POST", "keys/main/retire", map[string]any{"version": 1, "destroy_now": true})
	d.do("POST", "keys/brought/import", map[string]any{"private_key": newPrivateKey(d.t), "deletion_allowed": true})

	d.do("POST", "keys/manager", map[string]any{"algorithm": "ES384"})
	jwk, _ := d.do("GET", "keys/manager", nil)["public_jwk"].(string)
	_, err := d.redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{ID: "manager", JWK: json.RawMessage(jwk), Management: true})
	if err != nil {
		d.t.Fatal(err)
	}
	d.do("POST", "roles/manager", map[string]any{"client_id": "manager", "key": "manager"})
	d.do("POST", "keys/main", map[string]any{"registration": "platform", "platform_role": "manager"})
	d.do("POST", "keys/main/register", nil)
	if data := d.do("GET", "keys/main/clients?limit=10", nil); !strings.Contains(fmt.Sprint(data["clients"]), ": registered") {
		d.t.Errorf("nothing was registered, so that the answer shows no registration: %v", data)
	}
	d.do("GET", "keys/main/clients/?list=true", nil)
	d.do("GET", "keys/main/versions", nil)
	d.do("GET", "keys/main/versions/?list=true", nil)
}

func (d *dialog) tearDown() {
	d.do("DELETE", "keys/brought", nil)
	d.do("POST", "keys/main", map[string]any{"registration": "manual", "platform_role": ""})
	for _, role := range []string{"team", "stranger", "manager"} {
		d.do("DELETE", "roles/"+role, nil)
	}
	d.do("DELETE", "config?force=true", nil)
	d.do("POST", "wrapping_key/rotate", nil)
	d.do("DELETE", "wrapping_key", nil)
}

// newPrivateKey gives a private key as PEM, which the search for secrets knows.
func newPrivateKey(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	addKey(t, "a key to import", key)
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
}
