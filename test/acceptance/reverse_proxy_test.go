// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// reverseProxy is nginx with the example's configuration. Between it and Vault is a server that does TLS, as the example
// has it, and keeps what nginx sent.
type reverseProxy struct {
	t       testing.TB
	address string // of nginx
	trusted *x509.CertPool

	mu      sync.Mutex
	arrived []*http.Request // at Vault
	bytes   bytes.Buffer    // of them all, as they came
}

// recording is a listener whose connections keep what is sent to them.
type recording struct {
	net.Listener
	proxy *reverseProxy
}

func (r recording) Accept() (net.Conn, error) {
	connection, err := r.Listener.Accept()
	return recorded{connection, r.proxy}, err
}

type recorded struct {
	net.Conn
	proxy *reverseProxy
}

func (r recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.proxy.mu.Lock()
	defer r.proxy.mu.Unlock()
	r.proxy.bytes.Write(p[:n])
	return n, err
}

// startReverseProxy starts both. Vault's certificate is for vaultName.
func startReverseProxy(t testing.TB, e *engine, vaultName string) *reverseProxy {
	t.Helper()
	p := &reverseProxy{t: t, trusted: x509.NewCertPool()}
	directory := t.TempDir()
	target, err := url.Parse(e.vault.address)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	vault := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.arrived = append(p.arrived, r.Clone(r.Context()))
		p.mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	settings := &tls.Config{Certificates: []tls.Certificate{p.certificate(directory, "vault", vaultName)}}
	vault.Listener = recording{tls.NewListener(vault.Listener, settings), p}
	vault.Start()
	t.Cleanup(vault.Close)
	p.trusted.AddCert(p.leaf(p.certificate(directory, "public", "keys.example.com")))
	p.startNginx(directory, e, vault.Listener.Addr().String())
	return p
}

// certificate makes a certificate that signs itself, in two files of a directory.
func (p *reverseProxy) certificate(directory, file, name string) tls.Certificate {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	writeFile(p.t, filepath.Join(directory, file+".pem"), string(certPEM))
	writeFile(p.t, filepath.Join(directory, file+".key"), string(keyPEM))
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		p.t.Fatal(err)
	}
	return certificate
}

func (p *reverseProxy) leaf(certificate tls.Certificate) *x509.Certificate {
	p.t.Helper()
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return leaf
}

// startNginx puts what is "yours" into the example, and runs nginx with it until the test ends.
func (p *reverseProxy) startNginx(directory string, e *engine, vault string) {
	p.t.Helper()
	find := exec.Command("../../examples/reverse-proxy/find-nginx")
	find.Stderr = os.Stderr // its progress, and what to install
	found, err := find.Output()
	if err != nil {
		p.t.Fatalf("no nginx to try examples/reverse-proxy with, see above: %v", err)
	}
	example, err := os.ReadFile("../../examples/reverse-proxy/redox-jwks.conf")
	if err != nil {
		p.t.Fatal(err)
	}
	port, err := testvault.FreePort()
	if err != nil {
		p.t.Fatal(err)
	}
	p.address = fmt.Sprintf("127.0.0.1:%d", port)
	text := string(example)
	for _, change := range [][2]string{
		{"server vault.internal.example:8200;", "server " + vault + ";"},
		{"listen 443 ssl;", "listen " + p.address + " ssl;"},
		{"/v1/redox/jwks", "/v1/" + e.path + "/jwks"},
		{"/etc/nginx/keys.example.com.pem", directory + "/public.pem"},
		{"/etc/nginx/keys.example.com.key", directory + "/public.key"},
		{"/etc/nginx/vault-ca.pem", directory + "/vault.pem"},
	} {
		if strings.Count(text, change[0]) != 1 {
			p.t.Fatalf("the example has %q %d times", change[0], strings.Count(text, change[0]))
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	writeFile(p.t, filepath.Join(directory, "redox-jwks.conf"), text)
	main := "daemon off;\nmaster_process off;\npid " + directory + "/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, directory, kind)
	}
	writeFile(p.t, filepath.Join(directory, "nginx.conf"), main+"include redox-jwks.conf;\n}\n")

	nginx := exec.Command(strings.TrimSpace(string(found)), "-e", "stderr", "-p", directory, "-c", directory+"/nginx.conf")
	var log bytes.Buffer
	nginx.Stderr = &log
	if err := nginx.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = nginx.Wait() // how it ended is in its log
	}()
	p.t.Cleanup(func() {
		_ = nginx.Process.Signal(syscall.SIGTERM)
		<-ended
		if p.t.Failed() {
			p.t.Logf("nginx said:\n%s", log.String())
		}
	})
	await(p.t, "nginx to listen", func() bool {
		select {
		case <-ended:
			p.t.Fatal("nginx ended at once")
		default:
		}
		connection, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
}

// dial connects to nginx as Redox does.
func (p *reverseProxy) dial() net.Conn {
	p.t.Helper()
	connection, err := tls.Dial("tcp", p.address, &tls.Config{RootCAs: p.trusted, ServerName: "keys.example.com"})
	if err != nil {
		p.t.Fatal(err)
	}
	_ = connection.SetDeadline(time.Now().Add(startTimeout))
	return connection
}

// send writes a request as it stands, which no client library does, and gives the answer and what got to Vault meanwhile.
func (p *reverseProxy) send(request string) (status int, header http.Header, body string, arrived []*http.Request) {
	p.t.Helper()
	p.mu.Lock()
	before := len(p.arrived)
	p.mu.Unlock()
	connection := p.dial()
	defer connection.Close()
	if _, err := io.WriteString(connection, request); err != nil {
		p.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("%q: %v", request, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return response.StatusCode, response.Header, string(text), p.arrived[before:]
}

// limits asks many times over one connection, and says whether an answer is 429.
func (p *reverseProxy) limits(path string) bool {
	p.t.Helper()
	const many = 60
	connection := p.dial()
	defer connection.Close()
	request := "GET " + path + " HTTP/1.1\r\nHost: keys.example.com\r\n\r\n"
	if _, err := io.WriteString(connection, strings.Repeat(request, many)); err != nil {
		p.t.Fatal(err)
	}
	answers := bufio.NewReader(connection)
	limited := false
	for range many {
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		limited = limited || response.StatusCode == http.StatusTooManyRequests
	}
	return limited
}

// requestText is a request line with the headers that every request has.
func requestText(line string, headers ...string) string {
	return line + " HTTP/1.1\r\nHost: keys.example.com\r\nConnection: close\r\n" + strings.Join(append(headers, "\r\n"), "\r\n")
}

// TestReverseProxyExample runs nginx with examples/reverse-proxy in front of Vault: the public keys can be read, and nothing
// else gets to Vault, whatever is tried.
func TestReverseProxyExample(t *testing.T) {
	verifyOnly(t, "needs nginx")
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("keys/a.b-c_d"), "algorithm=ES384")
	p := startReverseProxy(t, e, "vault.internal.example")
	jwks := "/v1/" + e.at("jwks")

	secrets := []string{"X-Vault-Token: " + rootToken, "Authorization: Bearer " + rootToken, "X-Vault-Namespace: other",
		"X-Vault-Wrap-TTL: 60s", "X-Forwarded-For: 192.0.2.1", "X-HTTP-Method-Override: POST", "Cookie: a=b", "Content-Length: 8"}
	for _, path := range []string{jwks, jwks + "/main", jwks + "/a.b-c_d"} {
		_, direct := e.http(http.MethodGet, strings.TrimPrefix(path, "/v1/"), "")
		for _, line := range []string{"GET " + path, "GET https://keys.example.com" + path} {
			status, header, body, arrived := p.send(requestText(line, secrets...) + "the body")
			if status != http.StatusOK || body != direct || header.Get("Content-Type") != "application/json" ||
				header.Get("Cache-Control") != "public, max-age=60" {
				t.Errorf("%s: %d %v %s", line, status, header, body)
			}
			if len(arrived) != 1 {
				t.Fatalf("%s: %d requests got to Vault", line, len(arrived))
			}
			got := arrived[0]
			delete(got.Header, "Connection")
			if got.Method != http.MethodGet || got.RequestURI != path || got.Host != "vault.internal.example" || len(got.Header) != 0 {
				t.Errorf("%s: this got to Vault: %s %s at %s with %v", line, got.Method, got.RequestURI, got.Host, got.Header)
			}
		}
	}
	p.mu.Lock()
	if bytes.Contains(p.bytes.Bytes(), []byte("the body")) || !bytes.Contains(p.bytes.Bytes(), []byte("GET "+jwks)) {
		t.Errorf("this got to Vault:\n%s", p.bytes.Bytes())
	}
	p.mu.Unlock()

	refused := []string{"GET /", "GET /v1/sys/health", "GET /ui/", "GET /v1/" + e.at("token"), "GET /v1/" + e.at("wrapping_key"),
		"GET /v1/sys/internal/ui/mounts"}
	for _, method := range []string{"HEAD", "POST", "PUT", "PATCH", "DELETE", "LIST", "OPTIONS", "get", "GETX"} {
		refused = append(refused, method+" "+jwks, method+" "+jwks+"/main")
	}
	for _, tail := range []string{"/", "//", "/main/", "//main", "/main//", "/../token", "/..%2ftoken", "/%2e%2e/token", "/..;/token",
		"/main/../../token", "/main%2f..%2f..%2ftoken", "/main%2ftoken", "/main%00", "/main%0a", "/main%20", "%2fmain", "?", "?list=true",
		"?help=1", "/main?help=1", "/main?x", "/main#x", ".json", "s", "/.", "/..", "/.main", "/main.", "/m%61in", "/main;x", "/main\\x",
		"/main/x", "/-main"} {
		refused = append(refused, "GET "+jwks+tail)
	}
	for _, path := range []string{"/" + jwks, "/x/.." + jwks, "/." + jwks, "/v1//" + e.at("jwks"), "/v1/%6a" + e.at("jwks"),
		"/V1/" + e.at("jwks"), "/v1/" + strings.ToUpper(e.at("jwks")), "/v1/ns/" + e.at("jwks"), "/v2/" + e.at("jwks")} {
		refused = append(refused, "GET "+path, "GET https://keys.example.com"+path)
	}
	for _, line := range refused {
		status, _, body, arrived := p.send(requestText(line))
		// What is no HTTP path at all, nginx refuses by itself.
		if status != http.StatusNotFound && status != http.StatusBadRequest && status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d %s", line, status, body)
		}
		if len(arrived) != 0 {
			t.Errorf("%s got to Vault as %s %s", line, arrived[0].Method, arrived[0].RequestURI)
		}
	}
	status, _, body, _ := p.send(requestText("GET " + jwks + "/unknown"))
	if status != http.StatusNotFound || strings.Contains(body, "errors") {
		t.Errorf("a key that is not there: %d %s", status, body)
	}
	await(t, "somebody who asks without a pause to be limited", func() bool { return p.limits(jwks) })
}

// TestReverseProxyExampleVerifiesVault puts another server in Vault's place, whose certificate is for another name.
func TestReverseProxyExampleVerifiesVault(t *testing.T) {
	verifyOnly(t, "needs nginx")
	t.Parallel()
	e := newReadyEngine(t)
	p := startReverseProxy(t, e, "another.internal.example")
	status, _, body, arrived := p.send(requestText("GET /v1/" + e.at("jwks")))
	if status != http.StatusServiceUnavailable || strings.Contains(body, "kid") || len(arrived) != 0 {
		t.Errorf("%d %s", status, body)
	}
}
