// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// authority is a made-up certificate authority.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "made up"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue makes a certificate for 127.0.0.1.
func (a *authority) issue(t *testing.T, notAfter time.Time) tls.Certificate {
	t.Helper()
	return a.issueFor(t, notAfter, x509.ExtKeyUsageServerAuth)
}

func (a *authority) issueFor(t *testing.T, notAfter time.Time, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// tlsServer serves good tokens under config.
func tlsServer(t *testing.T, config *tls.Config, protocols *[]string) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if protocols != nil {
			*protocols = append(*protocols, r.Proto)
		}
		io.WriteString(w, goodBody)
	}))
	server.TLS = config
	server.EnableHTTP2 = true
	server.Config.ErrorLog = discardLog
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestNewClientCertificates(t *testing.T) {
	ca := newAuthority(t)
	keyDER, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	bundleWithEC, err := os.ReadFile("testdata/ca/bundle_good_then_EC-ACC.pem")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, pem, problem string }{
		{"none", "", ""},
		{"one", ca.pem, ""},
		{"two", ca.pem + ca.pem, ""},
		{"comments and white space", "# made up\n" + ca.pem + "\n# another\n" + ca.pem + " \n\n", ""},
		{"white space only", " \n", "no PEM certificate found"},
		{"text", "not PEM", "no PEM certificate found"},
		{"a private key", key, "is not a CERTIFICATE"},
		{"a private key behind", ca.pem + key, "block 2 of 2 is not a CERTIFICATE"},
		{"no X.509", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "block 1 of 1 can't be used (x509: malformed certificate); take that certificate out"},
		{"cut off", ca.pem[:len(ca.pem)/2], "damaged or cut off"},
		{"second cut off", ca.pem + ca.pem[:len(ca.pem)/2], "damaged or cut off"},
		{"first damaged", strings.Replace(ca.pem, "\n", "\n*", 1) + ca.pem, "block 1 of 2 is not base64 alone"},
		{"trailing text", ca.pem + "trailing", ""},
		{"a byte order mark", "\ufeff" + ca.pem, ""},
		{"escaped line ends", strings.ReplaceAll(ca.pem, "\n", `\n`), ""},
		{"escaped line ends in quotes", `"` + strings.ReplaceAll(ca.pem, "\n", `\n`) + `"`, ""},
		{"Windows lines", strings.ReplaceAll(ca.pem, "\n", "\r\n"), ""},
		{"line ends turned into blanks", strings.ReplaceAll(ca.pem, "\n", " "), ""},
		{"indented", "  " + strings.ReplaceAll(ca.pem, "\n", "\n  "), ""},
		{"a root that Go refuses, of a system's bundle", string(bundleWithEC), "block 2 of 2 can't be used (x509: negative serial number)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := NewClient(Options{CAPEM: test.pem})
			if test.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				return
			}
			if c != nil || err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Fatalf("got %v, %v; want an error with %q", c, err, test.problem)
			}
			for line := range strings.Lines(test.pem) {
				if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
					t.Errorf("the error quotes its input: %v", err)
				}
			}
		})
	}
}

func TestTransportSettings(t *testing.T) {
	c := newTestClient(t, Options{})
	if reflect.ValueOf(c.transport.Proxy).Pointer() != reflect.ValueOf(http.ProxyFromEnvironment).Pointer() {
		t.Error("the proxy is not the environment's")
	}
	if c.transport.TLSClientConfig.MinVersion != tls.VersionTLS12 || c.transport.TLSClientConfig.InsecureSkipVerify {
		t.Error("TLS is too weak")
	}
	// A handshake ends before the default request_timeout does. Connections outlast the four minutes between two tokens, and
	// a dead one is found out within seconds.
	if c.transport.TLSHandshakeTimeout <= 0 || c.transport.TLSHandshakeTimeout >= 10*time.Second {
		t.Errorf("a TLS handshake may take %s", c.transport.TLSHandshakeTimeout)
	}
	if c.transport.IdleConnTimeout < 4*time.Minute || c.transport.IdleConnTimeout > time.Hour {
		t.Errorf("connections are kept for %s", c.transport.IdleConnTimeout)
	}
	for name, limit := range map[string]time.Duration{
		"SendPingTimeout": c.transport.HTTP2.SendPingTimeout, "PingTimeout": c.transport.HTTP2.PingTimeout,
	} {
		if limit < time.Second || limit >= 10*time.Second {
			t.Errorf("%s is %s", name, limit)
		}
	}
	if c.userAgent != "vault-plugin-secrets-redox" {
		t.Errorf("user agent is %q", c.userAgent)
	}
}

func TestTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	valid, expired := ca.issue(t, time.Now().Add(time.Hour)), ca.issue(t, time.Now().Add(-time.Hour))
	ofClient := ca.issueFor(t, time.Now().Add(time.Hour), x509.ExtKeyUsageClientAuth)
	tests := []struct {
		name   string
		config *tls.Config
		caPEM  string
		host   string // in place of 127.0.0.1
		kind   Kind   // 0 for success
		cause  string
		action string
	}{
		{"trusted", &tls.Config{Certificates: []tls.Certificate{valid}}, ca.pem, "", 0, "", ""},
		{"trusted with others", &tls.Config{Certificates: []tls.Certificate{valid}}, other.pem + ca.pem, "", 0, "", ""},
		{"TLS 1.2", &tls.Config{Certificates: []tls.Certificate{valid}, MaxVersion: tls.VersionTLS12}, ca.pem, "", 0, "", ""},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{valid}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, ca.pem, "", Unavailable, "no TLS version from 1.2 on", "TLS 1.2"},
		{"not in the system's trust", &tls.Config{Certificates: []tls.Certificate{valid}}, "", "", Rejected, "this system trusts", "ca_pem"},
		{"not in ca_pem", &tls.Config{Certificates: []tls.Certificate{valid}}, other.pem, "", Rejected, "an authority in ca_pem", "only trust"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{expired}}, ca.pem, "", Unavailable, "has expired", "clock"},
		{"for clients only", &tls.Config{Certificates: []tls.Certificate{ofClient}}, ca.pem, "", Unavailable, "could not be verified", "ca_pem"},
		{"another host", &tls.Config{Certificates: []tls.Certificate{valid}}, ca.pem, "localhost", Rejected, "another host name", "base_url"},
		{"client certificate wanted", &tls.Config{Certificates: []tls.Certificate{valid}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, ca.pem, "", Unavailable, "broke off the TLS handshake", "client certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var protocols []string
			url := tlsServer(t, test.config, &protocols).URL
			if test.host != "" {
				url = strings.Replace(url, "127.0.0.1", test.host, 1)
			}
			var slept sleeps
			token, err := newTestClient(t, Options{CAPEM: test.caPEM, Sleep: slept.sleep}).RequestToken(t.Context(), request(url))
			if test.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if len(protocols) != 1 || protocols[0] != "HTTP/2.0" {
					t.Errorf("spoke %v, want HTTP/2.0", protocols)
				}
				return
			}
			e := failureOf(t, token, err)
			if e.Kind != test.kind || e.StatusCode != 0 || e.Attempts != 1 || len(slept.waited) != 0 {
				t.Errorf("kind %v, status %d, %d attempts", e.Kind, e.StatusCode, e.Attempts)
			}
			if !strings.Contains(e.Cause, test.cause) || !strings.Contains(e.Action, test.action) {
				t.Errorf("got %v", e)
			}
			if len(protocols) != 0 {
				t.Error("a request was sent")
			}
		})
	}
}

// TestHTTP2ConnectionIsReused also shows that Close lets a client go on.
func TestHTTP2ConnectionIsReused(t *testing.T) {
	ca := newAuthority(t)
	var remotes []string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remotes = append(remotes, r.RemoteAddr)
		io.WriteString(w, goodBody)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(time.Hour))}}
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	c := newTestClient(t, Options{CAPEM: ca.pem})
	for i := range 3 {
		if i == 2 {
			c.Close()
		}
		if _, err := c.RequestToken(t.Context(), request(server.URL)); err != nil {
			t.Fatal(err)
		}
	}
	if remotes[0] != remotes[1] || remotes[1] == remotes[2] {
		t.Errorf("requests came from %v, want one address twice and another after Close", remotes)
	}
}
