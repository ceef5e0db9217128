// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// authorizationServer is tools/authorization-server: a token endpoint that is neither Redox's nor written like it.
type authorizationServer struct {
	t        testing.TB
	URL      string `json:"url"`
	TokenURL string `json:"token_url"`
	CAPEM    string `json:"ca_pem"`
	client   *http.Client
}

// startAuthorizationServer builds it, which the first time downloads its modules, and starts it.
func startAuthorizationServer(t testing.TB) *authorizationServer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "authorization-server")
	t.Log("building tools/authorization-server")
	build := exec.Command("go", "build", "-C", "../../tools/authorization-server", "-o", file, ".")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building tools/authorization-server failed; it needs Go, and once the network: %v\n%s", err, text)
	}
	command := exec.Command(file)
	command.Stderr = output.writer("the authorization server")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // which ends it
		if err := command.Wait(); err != nil {
			t.Errorf("the authorization server: %v", err)
		}
	})
	s := &authorizationServer{t: t}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the authorization server does not tell where it is: %v", err)
	}
	if err := json.Unmarshal(line, s); err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(s.CAPEM))
	s.client = &http.Client{Timeout: startTimeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// register makes the server know the client "client-1" by a JWKS URL or by pasted JWKs, for one algorithm.
func (s *authorizationServer) register(algorithm, jwksURL string, jwks ...any) {
	s.t.Helper()
	client := map[string]any{
		"id": "client-1", "grant_types": []string{"client_credentials"},
		"scopes":                          []string{"system/Patient.rs", "system/Observation.rs"},
		"token_endpoint_auth_method":      "private_key_jwt",
		"token_endpoint_auth_signing_alg": algorithm,
		"jwks_uri":                        jwksURL,
	}
	if len(jwks) > 0 {
		var keys []json.RawMessage
		for _, jwk := range jwks {
			keys = append(keys, json.RawMessage(fmt.Sprint(jwk)))
		}
		client["jwks"] = map[string]any{"keys": keys}
	}
	body, err := json.Marshal(client)
	if err != nil {
		s.t.Fatal(err)
	}
	status, text := s.send(http.MethodPost, s.URL+"/clients", "application/json", body, "")
	if status != http.StatusNoContent {
		s.t.Fatalf("the authorization server does not take the client: %d %s", status, text)
	}
}

// scopeOf asks the server what an access token allows.
func (s *authorizationServer) scopeOf(accessToken any) string {
	s.t.Helper()
	status, text := s.send(http.MethodGet, s.URL+"/scope", "", nil, fmt.Sprint("Bearer ", accessToken))
	if status != http.StatusOK {
		s.t.Fatalf("the authorization server does not take the token: %d %s", status, text)
	}
	return text
}

func (s *authorizationServer) send(method, address, contentType string, body []byte, authorization string) (int, string) {
	s.t.Helper()
	request, err := http.NewRequest(method, address, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Authorization", authorization)
	response, err := s.client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// newEngineFor mounts the plugin with a key "main", and has it ask another server than Redox.
func newEngineFor(s *authorizationServer, algorithm string) *engine {
	s.t.Helper()
	e := newEngine(s.t, sandbox.Options{})
	s.t.Cleanup(func() {
		if asked := e.redox.Counters().Token.Requests; asked != 0 {
			s.t.Errorf("Redox was asked %d times", asked)
		}
	})
	e.must("write", e.at("keys/main"), "algorithm="+algorithm, "rsa_bits=")
	e.mustWith(s.CAPEM, "write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL,
		"token_url="+s.TokenURL, "scope=system/Patient.rs", "ca_pem=-")
	return e
}

// fresh gets a token that was minted after it was called, and lets the server try it.
func (s *authorizationServer) fresh(e *engine) (kid any) {
	s.t.Helper()
	called := time.Now()
	var token map[string]any
	await(s.t, "a token that is minted now", func() bool { // one of the last two seconds counts as fresh
		token = e.data("write", "-f", e.at("token"))
		text, _ := token["last_vault_rotation"].(string)
		minted, err := time.Parse(time.RFC3339, text)
		return err == nil && minted.After(called)
	})
	if scope := s.scopeOf(token["access_token"]); scope != "system/Patient.rs" {
		s.t.Errorf("the token's scope is %q", scope)
	}
	return token["kid"]
}

// TestOtherServerReadsJWKSURL gets tokens from a server that is not Redox and reads the keys at Vault, and rotates the
// key there.
func TestOtherServerReadsJWKSURL(t *testing.T) {
	verifyOnly(t, "builds tools/authorization-server")
	t.Parallel()
	for _, algorithm := range []string{"RS384", "ES384"} {
		t.Run(algorithm, func(t *testing.T) {
			s := startAuthorizationServer(t)
			e := newEngineFor(s, algorithm)
			r := &rotated{engine: e}
			s.register(algorithm, e.vault.address+"/v1/"+e.at("jwks/main"))

			token := e.data("read", e.at("token"))
			if scope := s.scopeOf(token["access_token"]); scope != "system/Patient.rs" || token["scope"] != scope {
				t.Errorf("the token's scope is %q, and Vault says %v", scope, token["scope"])
			}
			// The server's tokens live two hours; an hour is believed, less the 30 seconds of min_ttl and up to half as much again.
			if period, _ := token["rotation_period"].(float64); period < 3555 || period > 3570 {
				t.Errorf("the token is to be replaced after %v seconds", token["rotation_period"])
			}
			if check := e.data("write", "-f", e.at("check")); check["ok"] != true {
				t.Errorf("check: %v", check)
			}

			first := s.fresh(e)
			pending := e.data("write", "-f", e.at("keys/main/rotate"))
			if kids := r.publishedKids(); len(kids) != 2 {
				t.Errorf("the JWKS holds %v", kids)
			}
			active := e.data("write", "-f", e.at("keys/main/activate"))
			if active["kid"] != pending["pending_kid"] || active["kid"] == first {
				t.Errorf("%v is active, not %v", active["kid"], pending["pending_kid"])
			}
			e.must("write", "-f", e.at("keys/main/retire"))
			if kid := s.fresh(e); kid != active["kid"] {
				t.Errorf("%v signs, not %v", kid, active["kid"])
			}
		})
	}
}

// TestOtherServerHoldsKeys rotates a key at a server that is not Redox, holds the public keys itself, and has words of its
// own for one that it does not know. Whoever adds the new key beside the old one, replaces it, or takes it back: not one
// read fails, of tokens that are minted anew all the time.
func TestOtherServerHoldsKeys(t *testing.T) {
	verifyOnly(t, "builds tools/authorization-server")
	t.Parallel()
	s := startAuthorizationServer(t)
	e := newEngineFor(s, "ES384")
	key := e.data("read", e.at("keys/main"))
	s.register("ES384", "", key["public_jwk"])
	s.fresh(e)
	stop := s.mintAllTheTime(e)
	defer stop()

	// Added.
	pending := e.data("write", "-f", e.at("keys/main/rotate"))
	text := e.refused(http.StatusBadRequest, "write", "-f", e.at("keys/main/activate"))
	for _, want := range []string{"client-1", "signing key with kid", "pending_public_jwk"} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing of %q in: %s", want, text)
		}
	}
	if kid := s.fresh(e); kid != key["kid"] {
		t.Errorf("%v signs though nobody has registered it", kid)
	}
	s.register("ES384", "", key["public_jwk"], pending["pending_public_jwk"])
	key = e.data("write", "-f", e.at("keys/main/activate"))
	if kid := s.fresh(e); kid != key["kid"] || kid != pending["pending_kid"] {
		t.Errorf("%v signs, not %v", kid, pending["pending_kid"])
	}
	e.must("write", "-f", e.at("keys/main/retire"))

	// Replaced.
	pending = e.data("write", "-f", e.at("keys/main/rotate"))
	s.register("ES384", "", pending["pending_public_jwk"])
	if kid := s.fresh(e); kid != pending["pending_kid"] {
		t.Errorf("%v signs, not %v", kid, pending["pending_kid"])
	}
	e.must("write", "-f", e.at("keys/main/activate")) // a pass may have been faster
	key = e.data("read", e.at("keys/main"))
	if key["kid"] != pending["pending_kid"] {
		t.Errorf("%v is active", key["kid"])
	}

	// Forced, before the server has it; then replaced, and taken back.
	pending = e.data("write", "-f", e.at("keys/main/rotate"))
	e.must("write", e.at("keys/main/activate"), "force=true")
	if kid := s.fresh(e); kid != key["kid"] {
		t.Errorf("%v signs, not %v", kid, key["kid"])
	}
	e.must("write", "-f", e.at("keys/main/retire"))
	if kid := s.fresh(e); kid != key["kid"] {
		t.Errorf("after retire %v signs, not %v", kid, key["kid"])
	}
	s.register("ES384", "", pending["pending_public_jwk"])
	if kid := s.fresh(e); kid != pending["pending_kid"] {
		t.Errorf("%v signs, not %v", kid, pending["pending_kid"])
	}
	await(t, "the version before, whose grace is over, to be destroyed", func() bool {
		kids := (&rotated{engine: e}).publishedKids()
		return len(kids) == 1 && kids[0] == pending["pending_kid"]
	})
	if minted := stop(); minted < 5 {
		t.Errorf("only %d tokens were minted meanwhile", minted)
	}
}

// mintAllTheTime has tokens minted one after the other, none of which may fail, until stop is called, which says how many
// there were.
func (s *authorizationServer) mintAllTheTime(e *engine) (stop func() int) {
	minted, ending, ended := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ending:
				return
			default:
			}
			if r := e.try("write", "-f", e.at("token")); r.code != 0 {
				s.t.Errorf("a mint failed: %s%s", r.stdout, r.stderr)
				return
			}
			minted++
		}
	}()
	return sync.OnceValue(func() int {
		close(ending)
		<-ended
		return minted
	})
}

// TestOtherServerRejects shows that the server checks what it is given, and what an operator is told of a rejection.
func TestOtherServerRejects(t *testing.T) {
	verifyOnly(t, "builds tools/authorization-server")
	t.Parallel()
	s := startAuthorizationServer(t)
	e := newEngineFor(s, "ES384")
	s.register("ES384", e.vault.address+"/v1/"+e.at("jwks/main"))

	// An assertion is good for one token.
	form := url.Values{}
	for name, value := range e.data("write", "-f", e.at("assertion")) {
		form.Set(name, fmt.Sprint(value))
	}
	for _, want := range []int{http.StatusOK, http.StatusBadRequest} {
		status, _ := s.send(http.MethodPost, s.TokenURL, "application/x-www-form-urlencoded", []byte(form.Encode()), "")
		if status != want {
			t.Errorf("an assertion is answered with %d, not %d", status, want)
		}
	}

	e.must("write", e.at("keys/unknown"), "algorithm=ES384")
	e.must("write", e.at("keys/rsa"), "algorithm=RS384", "rsa_bits=2048")
	const notAccepted = "Redox does not accept this client's assertion"
	for _, c := range []struct {
		name, setting, code string
		cause               string   // as docs/internals/other-servers.md has it
		says                []string // in cause, action, or the server's own words
	}{
		{"audience", "audience=https://example.com/token", "invalid_client", notAccepted, []string{"audience", "Claim 'audience'"}},
		{"client ID", "client_id=nobody", "invalid_client", notAccepted, []string{"client_id"}},
		{"scope", "scope=system/*.cruds", "invalid_scope", "Redox does not grant the scope asked for", []string{"system/*.cruds"}},
		{"key", "key=unknown", "invalid_request", "Redox rejected the token request", []string{"signing key with kid"}},
		{"algorithm", "key=rsa", "invalid_client", notAccepted, []string{"signing algorithm 'RS384'"}},
		{"nothing", "scope=system/Patient.rs", "", "", nil},
	} {
		e.must("write", e.at("config"), "audience=", "client_id=client-1", "scope=system/Patient.rs", "key=main")
		e.must("write", e.at("config"), c.setting)
		check := e.data("write", "-f", e.at("check"))
		if ok := c.code == ""; check["ok"] != ok || (!ok && (check["error_code"] != c.code || check["cause"] != c.cause)) {
			t.Errorf("%s: ok is %v, the code %v, the cause %v", c.name, check["ok"], check["error_code"], check["cause"])
		}
		told := fmt.Sprint(check["cause"], "; ", check["action"], "; ", check["error_description"])
		for _, want := range c.says {
			if !strings.Contains(told, want) {
				t.Errorf("%s: nothing of %q in: %s", c.name, want, told)
			}
		}
	}
}

// TestOtherServersDocumentation runs every block of commands of docs/internals/other-servers.md, in their order. The server reads the
// JWKS URL, so that nobody has to paste a JWK in between.
func TestOtherServersDocumentation(t *testing.T) {
	verifyOnly(t, "builds tools/authorization-server")
	t.Parallel()
	s := startAuthorizationServer(t)
	e := newEngine(t, sandbox.Options{})
	s.register("ES384", e.vault.address+"/v1/"+e.at("jwks/main"))
	directory := t.TempDir()
	writeFile(t, filepath.Join(directory, "ca.pem"), s.CAPEM)
	here := strings.NewReplacer("redox/", e.path+"/", "https://auth.example.com/token", s.TokenURL, "YOUR-CLIENT-ID", "client-1")
	for _, block := range documentedCommands(t, "internals/other-servers.md") {
		e.bash(directory, here.Replace(block))
	}
	token := e.data("read", e.at("token"))
	if scope := s.scopeOf(token["access_token"]); scope != "system/Patient.rs system/Observation.rs" {
		t.Errorf("the token's scope is %q", scope)
	}
	versions, _ := e.data("read", e.at("keys/main/versions"))["versions"].(map[string]any)
	if second, _ := versions["2"].(map[string]any); second["state"] != "active" || second["kid"] != token["kid"] {
		t.Errorf("%v signs, but the versions are %v", token["kid"], versions)
	}
}
