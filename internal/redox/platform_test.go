// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// platformSecret stands for the access token; platformBody is in every odd answer. Neither may come back in an error.
const (
	platformSecret = "platform-access-token"
	platformBody   = "words-of-the-other-side"
)

// platformRequests does both requests of the Platform API, each with its own name.
var platformRequests = map[string]func(context.Context, *Client, PlatformRequest) error{
	"read": func(ctx context.Context, c *Client, r PlatformRequest) error {
		key, err := c.ReadAPIKey(ctx, r)
		if (key == nil) == (err == nil) {
			return errors.New("an error comes without an API key, and the other way round")
		}
		return err
	},
	"replace": func(ctx context.Context, c *Client, r PlatformRequest) error {
		return c.ReplaceJWKSet(ctx, r, []json.RawMessage{json.RawMessage(`{"kid":"a","kty":"EC"}`)})
	},
}

func platformRequestTo(url string) PlatformRequest {
	return PlatformRequest{
		PlatformURL: url + "/platform/", AccessToken: platformSecret, APIKeyID: "client", Timeout: 10 * time.Second,
	}
}

// wantExplained checks that err says what is wrong and what to do, and holds no secret and nothing of a body.
func wantExplained(t *testing.T, err error, parts ...string) {
	t.Helper()
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatalf("error is %v (%T), want an *Error", err, err)
	}
	if failure.Kind == 0 || failure.Cause == "" || failure.Action == "" {
		t.Errorf("kind %v, cause %q, action %q", failure.Kind, failure.Cause, failure.Action)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	for _, secret := range []string{platformSecret, platformBody} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q holds %q", err, secret)
		}
	}
}

// TestPlatformWithoutALiveToken changes nothing at the local Redox. That a live one does is shown where one is minted.
func TestPlatformWithoutALiveToken(t *testing.T) {
	redox, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { redox.Close() })
	c := newTestClient(t, Options{})
	const set = `{"keys":[{"kid":"foreign","kty":"RSA"}]}`
	redox.CreateAPIKey(sandbox.APIKey{ID: "client", JWKSet: json.RawMessage(set)})
	r := platformRequestTo(redox.URL)
	for name, request := range platformRequests {
		t.Run(name, func(t *testing.T) { wantExplained(t, request(t.Context(), c, r), "HTTP 401", "platform_role") })
	}
	if kept, _ := redox.APIKey("client"); string(kept.JWKSet) != set {
		t.Errorf("the set is %s", kept.JWKSet)
	}
}

// TestReplaceJWKSetSends looks at the request itself.
func TestReplaceJWKSetSends(t *testing.T) {
	const odd = `{"kid":"foreign", "kty":"RSA","x-note":"<a & b> é \u00e9","n":1.50,"n":2}`
	for name, c := range map[string]struct {
		keys []json.RawMessage
		want string
	}{
		"none": {nil, `{"jwkSet":{"keys":[]}}`},
		"one":  {[]json.RawMessage{json.RawMessage(odd)}, `{"jwkSet":{"keys":[` + odd + `]}}`},
		"three": {
			[]json.RawMessage{json.RawMessage(odd), json.RawMessage(`null`), json.RawMessage(`{}`)},
			`{"jwkSet":{"keys":[` + odd + `,null,{}]}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Method != http.MethodPatch || r.Header.Get("Content-Type") != "application/json" ||
					r.Header.Get("Authorization") != "Bearer "+platformSecret || r.URL.Path != "/platform/v1/apikeys/client" {
					t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
				}
				if string(body) != c.want {
					t.Errorf("the body is %s, want %s", body, c.want)
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			defer server.Close()
			err := newTestClient(t, Options{}).ReplaceJWKSet(t.Context(), platformRequestTo(server.URL), c.keys)
			if err != nil {
				t.Error(err)
			}
		})
	}
	err := newTestClient(t, Options{}).ReplaceJWKSet(t.Context(), platformRequestTo("https://localhost"),
		[]json.RawMessage{json.RawMessage(platformBody)})
	if err == nil || err.Error() != "a JWK set can't be encoded" {
		t.Errorf("something that is no JSON: %v", err)
	}
}

// TestReplaceJWKSetTakesAnySuccess: what counts is read afterwards.
func TestReplaceJWKSetTakesAnySuccess(t *testing.T) {
	for _, a := range []answer{
		{status: 200, body: "<html>"}, {status: 200, body: strings.Repeat(" ", maxBodyBytes+1)},
		{status: 201}, {status: 202}, {status: 204}, {status: 299},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
		}))
		err := platformRequests["replace"](t.Context(), newTestClient(t, Options{}), platformRequestTo(server.URL))
		if err != nil {
			t.Errorf("%d: %v", a.status, err)
		}
		server.Close()
	}
}

// TestPlatformPath sends each client ID as one part of the path, or not at all.
func TestPlatformPath(t *testing.T) {
	var path string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { path = r.RequestURI }))
	defer server.Close()
	c := newTestClient(t, Options{})
	for id, want := range map[string]string{
		"0f2c6c5c-6f0b-4a53-9a3c-5d1f5b3b8e11": "0f2c6c5c-6f0b-4a53-9a3c-5d1f5b3b8e11",
		"a/b":                                  "a%2Fb",
		"../users":                             "..%2Fusers",
		"a?b#c":                                "a%3Fb%23c",
		"50%":                                  "50%25",
		"a b;é":                                "a%20b%3B%C3%A9",
		"":                                     "",
		".":                                    "",
		"..":                                   "",
	} {
		path = ""
		r := platformRequestTo(server.URL)
		r.APIKeyID = id
		err := platformRequests["replace"](t.Context(), c, r)
		if want == "" {
			if path != "" {
				t.Errorf("%q was sent as %s", id, path)
			}
			wantExplained(t, err, "client_id")
		} else if err != nil || path != "/platform/v1/apikeys/"+want {
			t.Errorf("%q was sent as %s: %v", id, path, err)
		}
	}
}

// TestReadAPIKey takes the forms that Redox documents, and is sure of what it read: on that, a JWK set is replaced.
func TestReadAPIKey(t *testing.T) {
	envelope := func(apikey string) string { return `{"meta":{"version":"1.0.0"},"payload":{"apikey":` + apikey + `}}` }
	const notIt = "something other than the OAuth API key"
	for name, c := range map[string]struct {
		body, url, want, problem string
	}{
		"both null":    {body: envelope(`{"id":"client","jwksURL":null,"jwkSet":null}`)},
		"neither":      {body: envelope(`{"id":"client","name":"x"}`)},
		"another case": {body: envelope(`{"id":"CLIENT"}`)},
		"a URL": {
			body: envelope(`{"id":"client","jwksURL":"https://example.com/jwks","jwkSet":null}`), url: "https://example.com/jwks",
		},
		"empty set": {body: envelope(`{"id":"client","jwkSet":{}}`)},
		"no keys":   {body: envelope(`{"id":"client","jwkSet":{"keys":[]}}`)},
		"keys null": {body: envelope(`{"id":"client","jwkSet":{"keys":null}}`)},
		"byte for byte": {
			body: envelope(`{"id":"client","jwkSet":{"keys":[{"a": 1.0,"kid":"<é\u00e9>"} , 7]}}`),
			want: `{"a": 1.0,"kid":"<é\u00e9>"}|7`,
		},
		"not JSON":     {body: platformBody, problem: notIt},
		"a web page":   {body: "<html>" + platformBody, problem: notIt},
		"truncated":    {body: envelope(`{"id":"client","jwkSet":{"keys":[`), problem: notIt},
		"an array":     {body: `[]`, problem: notIt},
		"no payload":   {body: `{"apikey":{"id":"client"}}`, problem: notIt},
		"no API key":   {body: `{"payload":{}}`, problem: notIt},
		"a list":       {body: `{"payload":{"apikeys":[{"id":"client"}]}}`, problem: notIt},
		"API key null": {body: envelope(`null`), problem: notIt},
		"API key text": {body: envelope(`"` + platformBody + `"`), problem: notIt},
		"no ID":        {body: envelope(`{"jwkSet":{"keys":[]}}`), problem: notIt},
		"another one":  {body: envelope(`{"id":"` + platformBody + `","jwkSet":{"keys":[]}}`), problem: notIt},
		"set twice":    {body: envelope(`{"id":"client","jwkSet":{"keys":[1]},"jwkSet":{"keys":[]}}`), problem: notIt},
		"set an array": {body: envelope(`{"id":"client","jwkSet":[]}`), problem: notIt},
		"set as text":  {body: envelope(`{"id":"client","jwkSet":"{\"keys\":[]}"}`), problem: notIt},
		"other keys":   {body: envelope(`{"id":"client","jwkSet":{"Keys":[{"kid":"a"}]}}`), problem: notIt},
		"keys by kid":  {body: envelope(`{"id":"client","jwkSet":{"keys":{"a":{}}}}`), problem: notIt},
		"URL a number": {body: envelope(`{"id":"client","jwksURL":1}`), problem: notIt},
		"too large":    {body: envelope(`{"id":"client","x":"` + strings.Repeat("x", maxBodyBytes) + `"}`), problem: "64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Method != http.MethodGet || len(body) > 0 || r.Header.Get("Authorization") != "Bearer "+platformSecret {
					t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
				}
				io.WriteString(w, c.body)
			}))
			defer server.Close()
			key, err := newTestClient(t, Options{}).ReadAPIKey(t.Context(), platformRequestTo(server.URL))
			if c.problem != "" {
				wantExplained(t, err, c.problem, "platform_url")
				if key != nil {
					t.Errorf("an error came with %v", key)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, raw := range key.JWKSet {
				keys = append(keys, string(raw))
			}
			if got := strings.Join(keys, "|"); got != c.want || key.JWKSURL != c.url {
				t.Errorf("the keys are %s, the URL is %q", got, key.JWKSURL)
			}
		})
	}
	for _, status := range []int{http.StatusNoContent, http.StatusPartialContent} { // successes, but no API key
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, envelope(`{"id":"client"}`))
		}))
		err := platformRequests["read"](t.Context(), newTestClient(t, Options{}), platformRequestTo(server.URL))
		wantExplained(t, err, "platform_url")
		server.Close()
	}
}

// TestPlatformRejections: each status is explained, and what the body says is not repeated.
func TestPlatformRejections(t *testing.T) {
	const page = "<html>" + platformBody
	const object = `{"error":"` + platformBody + `","error_description":"` + platformBody + `"}`
	for status, want := range map[int]struct {
		kind  Kind
		words string
	}{
		300: {Rejected, "not followed"}, 301: {Rejected, "not followed"}, 307: {Rejected, "not followed"},
		400: {Rejected, "kid twice"}, 401: {Rejected, "platform_role"}, 403: {Rejected, "platform_role"}, 404: {Rejected, "client_id"},
		405: {Rejected, "no Platform API"}, 407: {Rejected, "proxy"},
		409: {Rejected, "kid twice"}, 422: {Rejected, "kid twice"},
		429: {Unavailable, "wait 7s"}, 500: {Unavailable, "failure of its own"}, 503: {Unavailable, "failure of its own"},
	} {
		for _, body := range []string{page, object, ""} {
			for name, request := range platformRequests {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/elsewhere" {
						t.Error("the redirect was followed")
					}
					w.Header().Set("Location", "/elsewhere")
					w.Header().Set("Retry-After", "7")
					w.WriteHeader(status)
					io.WriteString(w, body)
				}))
				err := request(t.Context(), newTestClient(t, Options{}), platformRequestTo(server.URL))
				wantExplained(t, err, want.words)
				if failure := (*Error)(nil); errors.As(err, &failure) && (failure.Kind != want.kind || failure.StatusCode != status) {
					t.Errorf("%s, %d: kind %v, status %d", name, status, failure.Kind, failure.StatusCode)
				}
				if strings.Contains(err.Error(), "token_url") {
					t.Errorf("%s, %d: %q speaks of the token endpoint", name, status, err)
				}
				server.Close()
			}
		}
	}
}

// TestPlatformConnectionFailures: what breaks off, never comes or is given up.
func TestPlatformConnectionFailures(t *testing.T) {
	requests := map[string]func(context.Context, *Client, PlatformRequest) error{
		"JWKS": func(ctx context.Context, c *Client, r PlatformRequest) error {
			_, err := c.ReadJWKSet(ctx, r.PlatformURL, r.Timeout)
			return err
		},
	}
	for name, request := range platformRequests {
		requests[name] = request
	}
	hang := make(chan struct{})
	handlers := map[string]http.HandlerFunc{
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		},
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, platformBody)
		},
		"silent": func(http.ResponseWriter, *http.Request) { <-hang },
	}
	for kind, handler := range handlers {
		server := httptest.NewServer(handler)
		for name, request := range requests {
			if kind == "half" && name == "replace" {
				continue // its answer is of no interest
			}
			r := platformRequestTo(server.URL)
			want := "closed the connection"
			if kind == "silent" {
				r.Timeout, want = time.Millisecond, "did not answer within request_timeout"
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				err := request(t.Context(), newTestClient(t, Options{}), r)
				wantExplained(t, err, want)
				if name == "JWKS" && !strings.Contains(err.Error(), "public_jwks_url") {
					t.Errorf("%q does not name public_jwks_url", err)
				}
			})
		}
		if kind == "silent" {
			close(hang)
		}
		server.Close()
	}
	for name, request := range requests {
		t.Run("given up "+name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := request(ctx, newTestClient(t, Options{}), platformRequestTo("http://127.0.0.1:1"))
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error is %v", err)
			}
		})
		t.Run("bad URL "+name, func(t *testing.T) {
			r := platformRequestTo("https://user:" + platformSecret + "@localhost")
			err := request(t.Context(), newTestClient(t, Options{}), r)
			wantExplained(t, err)
			if strings.Contains(err.Error(), "token") {
				t.Errorf("%q speaks of the token endpoint", err)
			}
		})
	}
}

// TestReadJWKSet reads what Redox would read.
func TestReadJWKSet(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		kids    int
		problem string
	}{
		"two":          {200, `{"keys":[{"kid":"a"},{"kid":"b"}]}`, 2, ""},
		"none":         {200, `{"keys":[]}`, 0, ""},
		"no keys":      {200, `{"errors":["` + platformBody + `"]}`, 0, "other than a JWK set"},
		"a web page":   {200, "<html>" + platformBody, 0, "other than a JWK set"},
		"truncated":    {200, `{"keys":[{"kid":"a"`, 0, "other than a JWK set"},
		"too large":    {200, `{"keys":[]}` + strings.Repeat(" ", maxBodyBytes), 0, "64 KiB"},
		"forbidden":    {403, platformBody, 0, "HTTP 403"},
		"not there":    {404, `{"errors":["` + platformBody + `"]}`, 0, "HTTP 404"},
		"sealed Vault": {503, `{"errors":["` + platformBody + `"]}`, 0, "HTTP 503"},
		"redirect":     {302, platformBody, 0, "HTTP 302"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" || r.URL.Path != "/jwks" {
					t.Errorf("%s with %v", r.URL, r.Header)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer server.Close()
			keys, err := newTestClient(t, Options{}).ReadJWKSet(t.Context(), server.URL+"/jwks", 10*time.Second)
			if c.problem != "" {
				wantExplained(t, err, c.problem, "public_jwks_url")
			} else if err != nil || len(keys) != c.kids {
				t.Errorf("got %s, %v", keys, err)
			}
		})
	}
}
