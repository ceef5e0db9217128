// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	server, err := Start(Options{TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	pool := x509.NewCertPool()
	if !strings.HasPrefix(server.URL, "https://127.0.0.1:") || !pool.AppendCertsFromPEM([]byte(server.CAPEM)) {
		t.Fatalf("URL %s, CA %q", server.URL, server.CAPEM)
	}
	get := func(config *tls.Config) (string, error) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
		response, err := client.Get(server.URL + "/sandbox/ca.pem")
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if body, err := get(&tls.Config{RootCAs: pool}); err != nil || body != server.CAPEM {
		t.Errorf("got %v, %q", err, body)
	}
	if _, err := get(&tls.Config{}); err == nil {
		t.Error("the CA is trusted by everyone")
	}
	if _, err := get(&tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is taken")
	}
	server.SetFaults(Faults{Path: "/fhir", Reset: true})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if _, err := client.Get(server.URL + "/fhir/"); err == nil {
		t.Error("the connection was not reset")
	}
}

func TestStartListensOnLoopbackOnly(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, ":0": true, "127.0.0.1:0": true, "127.0.0.2:0": true, "localhost:0": true,
		"0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "example.com:0": false, "127.0.0.1": false, "localhost.example.com:0": false,
	} {
		server, err := Start(Options{Address: address})
		if (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
		if err == nil {
			host, _, _ := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://"))
			if !net.ParseIP(host).IsLoopback() {
				t.Errorf("%q listens on %s", address, server.URL)
			}
			if err := server.Close(); err != nil {
				t.Errorf("%q: close: %v", address, err)
			}
		}
	}
	first, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	if _, err := Start(Options{Address: strings.TrimPrefix(first.URL, "http://")}); err == nil {
		t.Error("two sandboxes listen on one address")
	}
}

// TestCloseLetsGo: Close ends requests that are held, delayed or idle, and comes back without them.
func TestCloseLetsGo(t *testing.T) {
	r := newRig(t)
	idle, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	arrived, _ := r.HoldTokenRequests()
	failed := make(chan error)
	go func() {
		_, err := r.do(context.Background(), http.MethodPost, tokenPath, formType, "", form(r.valid()).Encode())
		failed <- err
	}()
	<-arrived
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if <-failed == nil {
		t.Error("the held request was answered")
	}
	if c := r.Counters().Token; c.Abandoned != 1 {
		t.Errorf("counted %+v", c)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

// TestAsHandler: who serves the handler itself sets the base URL.
func TestAsHandler(t *testing.T) {
	s := New(Options{TokenLifetime: time.Minute})
	server := httptest.NewServer(s)
	defer server.Close()
	s.BaseURL = server.URL
	r := &rig{t: t, clock: &fakeClock{now: time.Now()}, log: &logBuffer{}, Server: &Server{Sandbox: s, URL: server.URL}}
	r.CreateAPIKey(APIKey{ID: testClient, JWKSet: jwkSet(publicJWK(rsaKey().Public(), "rsa"))})
	if got := r.post(form(r.valid())); got.fields["expires_in"] != 60.0 {
		t.Errorf("got %d %v", got.status, got.fields["expires_in"])
	}
	if s.FHIRURL("x", Staging) != server.URL+"/fhir/R4/x/Staging" || s.PlatformURL() != server.URL+"/platform" {
		t.Errorf("URLs %s %s", s.FHIRURL("x", Staging), s.PlatformURL())
	}
}

// TestBodyBreaksOff: a request that is never complete is counted and does no harm.
func TestBodyBreaksOff(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST "+tokenPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if c := r.Counters().Token; c.Requests != 1 || c.Abandoned != 1 {
		t.Errorf("counted %+v", c)
	}
}
