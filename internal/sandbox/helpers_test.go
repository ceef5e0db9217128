// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Keys are slow to make and say nothing by being new each time.
var (
	rsaKey      = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSAKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey       = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p256Key     = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// fakeClock is a clock that stands still until it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logBuffer is a log that can be read while it is written, and waited for.
type logBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	lines chan string // when made: each line, as it is written
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines != nil {
		l.lines <- string(p)
	}
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// rig is a listening sandbox with a fake clock, and an API key "client" with the kids "rsa" and "ec".
type rig struct {
	*Server
	t     *testing.T
	clock *fakeClock
	log   *logBuffer
}

const testClient = "client"

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, clock: &fakeClock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, log: &logBuffer{}}
	server, err := Start(Options{Now: r.clock.Now, Log: r.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	r.Server = server
	r.CreateAPIKey(APIKey{ID: testClient, Name: "test", JWKSet: jwkSet(
		publicJWK(rsaKey().Public(), "rsa"), publicJWK(ecKey().Public(), "ec"))})
	return r
}

func publicJWK(key crypto.PublicKey, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Use: "sig"}
}

func jwkSet(keys ...jose.JSONWebKey) json.RawMessage {
	return must(json.Marshal(jose.JSONWebKeySet{Keys: keys}))
}

// header and claims give those of a valid assertion; tests change them.
func header() map[string]any { return map[string]any{"alg": "RS384", "kid": "rsa", "typ": "JWT"} }

func (r *rig) claims() map[string]any {
	now := r.clock.Now().Unix()
	return map[string]any{
		"iss": testClient, "sub": testClient, "aud": r.TokenURL(),
		"iat": now, "exp": now + 120, "jti": rand.Text(),
	}
}

func with(base map[string]any, name string, value any) map[string]any {
	changed := maps.Clone(base)
	changed[name] = value
	return changed
}

func without(base map[string]any, name string) map[string]any {
	changed := maps.Clone(base)
	delete(changed, name)
	return changed
}

// sign makes an assertion by hand, so that anything can be in it. The signature is made with go-jose, as the
// algorithm that is given says, whatever the header says.
func sign(header, claims any, algorithm jose.SignatureAlgorithm, key any) string {
	return signText(string(must(json.Marshal(header))), string(must(json.Marshal(claims))), algorithm, key)
}

func signText(header, claims string, algorithm jose.SignatureAlgorithm, key any) string {
	input := encode([]byte(header)) + "." + encode([]byte(claims))
	switch key := key.(type) {
	case *rsa.PrivateKey:
		hash := map[jose.SignatureAlgorithm]crypto.Hash{jose.RS256: crypto.SHA256, jose.RS384: crypto.SHA384}[algorithm]
		digest := hash.New()
		digest.Write([]byte(input))
		return input + "." + encode(must(rsa.SignPKCS1v15(rand.Reader, key, hash, digest.Sum(nil))))
	case *ecdsa.PrivateKey:
		digest := crypto.SHA384.New()
		digest.Write([]byte(input))
		r, s := must2(ecdsa.Sign(rand.Reader, key, digest.Sum(nil)))
		size := (key.Params().BitSize + 7) / 8
		return input + "." + encode(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
	}
	return input + "."
}

func must2[T any](a, b T, err error) (T, T) {
	if err != nil {
		panic(err)
	}
	return a, b
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// valid gives a new assertion that the sandbox takes.
func (r *rig) valid() string { return sign(header(), r.claims(), jose.RS384, rsaKey()) }

func form(assertion string) url.Values {
	return url.Values{"grant_type": {grantType}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}}
}

// reply is an answer, read.
type reply struct {
	status int
	header http.Header
	body   []byte
	fields map[string]any // the body, if it is a JSON object
}

// do sends a request on a connection of its own.
func (r *rig) do(ctx context.Context, method, path, contentType, token, body string) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, method, r.URL+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Close = true
	response, err := testHTTP.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got := reply{status: response.StatusCode, header: response.Header}
	got.body, err = io.ReadAll(response.Body)
	if json.Unmarshal(got.body, &got.fields) != nil {
		got.fields = nil
	}
	return got, err
}

// testHTTP follows no redirects and keeps no connections.
var testHTTP = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (r *rig) send(method, path, token, body string) reply {
	r.t.Helper()
	got, err := r.do(r.t.Context(), method, path, "application/json", token, body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

func (r *rig) post(form url.Values) reply {
	r.t.Helper()
	got, err := r.do(r.t.Context(), http.MethodPost, tokenPath, formType, "", form.Encode())
	if err != nil {
		r.t.Fatalf("token request: %v", err)
	}
	return got
}

// token gives an access token for the rig's API key.
func (r *rig) token() string {
	r.t.Helper()
	got := r.post(form(r.valid()))
	token, _ := got.fields["access_token"].(string)
	if got.status != http.StatusOK || token == "" {
		r.t.Fatalf("no token: %d %s", got.status, r.log)
	}
	return token
}

// managementToken gives an access token of a user-level API key.
func (r *rig) managementToken() string {
	r.t.Helper()
	r.CreateAPIKey(APIKey{ID: "manager", Management: true, JWKSet: jwkSet(publicJWK(ecKey().Public(), "ec"))})
	claims := with(with(r.claims(), "iss", "manager"), "sub", "manager")
	got := r.post(form(sign(map[string]any{"alg": "ES384", "kid": "ec", "typ": "JWT"}, claims, jose.ES384, ecKey())))
	token, _ := got.fields["access_token"].(string)
	if token == "" {
		r.t.Fatalf("no management token: %d %s", got.status, r.log)
	}
	return token
}
