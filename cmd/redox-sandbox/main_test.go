// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// output is a standard output that tells when it holds the banner's last words.
type output struct {
	text  bytes.Buffer
	ready chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.text.Write(p)
	if bytes.Contains(p, []byte("Try:  curl")) {
		close(o.ready)
	}
	return n, err
}

// start runs the command until the test ends, and gives its base URL and a client that trusts its CA.
func start(t *testing.T, dir string, arguments ...string) (url string, client *http.Client) {
	t.Helper()
	ready := filepath.Join(dir, "url.txt")
	arguments = append(arguments, "--address", ":0", "--ready-file", ready)
	ctx, cancel := context.WithCancel(context.Background())
	out := &output{ready: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, arguments, out, io.Discard) }()
	select {
	case <-out.ready:
	case err := <-ended:
		cancel()
		t.Fatalf("ended early: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if text := out.text.String(); !strings.HasSuffix(text, "stopped\n") || !strings.Contains(text, "token URL     "+url+"/v2/auth/token") {
			t.Errorf("printed\n%s", text)
		}
		data, err := os.ReadFile(ready)
		if err != nil || strings.TrimSpace(string(data)) != url {
			t.Errorf("the ready file holds %q, the URL was %q: %v", data, url, err)
		}
	})
	// The banner was printed as a whole; nothing else is written before the first request.
	for _, line := range strings.Split(out.text.String(), "\n") {
		if base, found := strings.CutPrefix(strings.TrimSpace(line), "token URL"); found {
			url = strings.TrimSuffix(strings.TrimSpace(base), "/v2/auth/token")
		}
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if strings.HasPrefix(url, "https://") {
		authority, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(authority)
	}
	return url, &http.Client{Transport: transport}
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func publicJWK(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), KeyID: "the-kid"})
	if err != nil {
		t.Fatal(err)
	}
	return string(jwk)
}

func TestRun(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			dir := t.TempDir()
			arguments := []string{
				"--client-id", "first", "--jwk", write(t, dir, "jwk.json", publicJWK(t)+"\n"),
				"--api-key", write(t, dir, "second.json", `{"id":"second","name":"2","jwk":`+publicJWK(t)+`,"management":true}`),
				"--api-key", write(t, dir, "third.json", `{"id":"third","jwksURL":"https://example.com/jwks","environmentFlag":"Staging"}`),
			}
			if scheme == "https" {
				arguments = append(arguments, "--tls", "--ca-out", filepath.Join(dir, "ca.pem"))
			}
			url, client := start(t, dir, arguments...)
			response, err := client.Get(url + "/sandbox/apikeys")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || !strings.HasPrefix(url, scheme+"://127.0.0.1:") {
				t.Fatalf("%s: %v", url, err)
			}
			var listed struct {
				APIKeys []struct {
					ID         string
					Management bool
				} `json:"apikeys"`
			}
			if err := json.Unmarshal(body, &listed); err != nil || len(listed.APIKeys) != 3 {
				t.Fatalf("listed %s: %v", body, err)
			}
			for i, want := range []string{"first", "second", "third"} {
				if got := listed.APIKeys[i]; got.ID != want || got.Management != (want == "second") {
					t.Errorf("API key %d is %+v", i, got)
				}
			}
		})
	}
}

func TestWrongUsage(t *testing.T) {
	for _, arguments := range [][]string{
		{"--unknown"}, {"extra"}, {"--ca-out", "x"}, {"--client-id", "x"}, {"--jwk", "x"}, {"--token-lifetime", "0s"},
	} {
		var complaint bytes.Buffer
		if err := run(t.Context(), arguments, io.Discard, &complaint); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", arguments, err)
		}
		if text := complaint.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "--help") {
			t.Errorf("%v: printed %q", arguments, text)
		}
	}
}

func TestCannotStart(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	for name, arguments := range map[string][]string{
		"not loopback":       {"--address", "0.0.0.0:0"},
		"no JWK file":        {"--client-id", "x", "--jwk", missing},
		"private JWK":        {"--client-id", "x", "--jwk", write(t, dir, "private", `{"kid":"x","kty":"EC","d":"c2VjcmV0"}`)},
		"no API key file":    {"--api-key", missing},
		"API key mistyped":   {"--api-key", write(t, dir, "mistyped", `{"nme":"x"}`)},
		"API key refused":    {"--api-key", write(t, dir, "refused", `{"environmentFlag":"Test"}`)},
		"no JWKS CA":         {"--jwks-ca", missing},
		"JWKS CA not PEM":    {"--jwks-ca", write(t, dir, "not.pem", "x")},
		"CA can't be stored": {"--tls", "--ca-out", filepath.Join(missing, "ca.pem")},
		"ready file can't":   {"--ready-file", filepath.Join(missing, "url")},
	} {
		if name != "not loopback" {
			arguments = append(arguments, "--address", ":0")
		}
		err := run(t.Context(), arguments, io.Discard, io.Discard)
		if err == nil || errors.Is(err, errUsage) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: the error holds the key", name)
		}
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &out, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"address", "tls", "ca-out", "token-lifetime", "client-id", "jwk", "api-key", "jwks-ca", "ready-file"} {
		if !strings.Contains(out.String(), "  -"+name) {
			t.Errorf("the help doesn't tell of --%s", name)
		}
	}
}
