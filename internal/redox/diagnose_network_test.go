// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

var discardLog = log.New(io.Discard, "", 0)

// rawServer gives each connection to serve, one after the other, and closes
// it then.
func rawServer(t *testing.T, serve func(conn *net.TCPConn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn.(*net.TCPConn))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// readRequest reads what one request fits in.
func readRequest(conn *net.TCPConn) {
	conn.Read(make([]byte, 64<<10))
}

// closedPort gives an address that nothing listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// says serves text as the whole answer.
func says(text string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		readRequest(conn)
		io.WriteString(conn, text)
	}
}

func TestConnectionFailures(t *testing.T) {
	reset := func(conn *net.TCPConn) {
		readRequest(conn)
		conn.SetLinger(0)
	}
	switches := func(conn *net.TCPConn) { // and leaves the connection open
		says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")(conn)
		io.Copy(io.Discard, conn)
	}
	const closed = "closed the connection before its answer was complete"
	tests := []struct {
		name     string
		scheme   string
		serve    func(*net.TCPConn) // nil: a closed port
		kind     Kind
		attempts int
		cause    string
	}{
		{"refused", "http", nil, Unavailable, 3, "refused the connection"},
		{"reset", "http", reset, Unavailable, 3, closed},
		{"reset in the TLS handshake", "https", reset, Unavailable, 3, closed},
		{"closed", "http", readRequest, Unavailable, 3, closed},
		{"closed in the headers", "http", says("HTTP/1.1 200 OK\r\nContent-Type: te"), Unavailable, 3, closed},
		{"closed in the body", "http", says("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + goodBody), Unavailable, 3, closed},
		{"closed in a refusal", "http", says("HTTP/1.1 401 Unauthorized\r\nContent-Length: 500\r\n\r\n{\"error\":"), Unavailable, 3, closed},
		{"closed in a chunk", "http", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"), Unavailable, 3, closed},
		{"no HTTP", "http", says("220 mail.secret.example ESMTP\r\n"), Unavailable, 3, "the connection to"},
		{"endless headers", "http", says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 128<<10)), Unavailable, 3, "the connection to"},
		{"HTTP to https", "https", says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nsecret"), Rejected, 1, "plain HTTP to an https URL"},
		{"no TLS", "https", says("220 mail.secret.example ESMTP\r\n"), Rejected, 1, "does not speak TLS"},
		{"cut off body of a refusal", "http", says("HTTP/1.1 403 Forbidden\r\nContent-Length: 500\r\n\r\n{"), Rejected, 1, "forbidden"},
		{"switching protocols", "http", switches, InvalidResponse, 1, "a status that no token endpoint gives"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			address := closedPort(t)
			if test.serve != nil {
				address = rawServer(t, test.serve)
			}
			token, err := newTestClient(t, Options{}).RequestToken(t.Context(), request(test.scheme+"://"+address+"/token?secret=query"))
			e := failureOf(t, token, err)
			if e.Kind != test.kind || e.Attempts != test.attempts || !strings.Contains(e.Cause, test.cause) {
				t.Errorf("got %v after %d attempts: %v; want %v after %d with %q", e.Kind, e.Attempts, e, test.kind, test.attempts, test.cause)
			}
			if e.Action == "" || strings.Contains(e.Error(), "secret") {
				t.Errorf("text is %q", e.Error())
			}
			checkErrorText(t, e.Error())
		})
	}
}

// TestRecovers: a reset, then an answer, is a success with the second
// assertion.
func TestRecovers(t *testing.T) {
	connections := 0
	address := rawServer(t, func(conn *net.TCPConn) {
		if connections++; connections == 1 {
			readRequest(conn)
			return
		}
		says("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + goodBody)(conn)
	})
	calls := 0
	r := request("http://" + address)
	r.Assertion = func() (string, error) { calls++; return "a", nil }
	token, err := newTestClient(t, Options{}).RequestToken(t.Context(), r)
	if err != nil || token.AccessToken != "token-1" || calls != 2 {
		t.Errorf("got %v, %v with %d assertions", token, err, calls)
	}
}

// TestDialFailures are failures that loopback does not show.
func TestDialFailures(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	tests := []struct {
		name   string
		err    error
		kind   Kind
		cause  string
		action string
	}{
		{"no such host", dial(&net.DNSError{Name: "redox.test", IsNotFound: true}), Unavailable, "there is no address for redox.test in DNS", "base_url"},
		{"no DNS", dial(&net.DNSError{Name: "redox.test", IsTimeout: true}), Unavailable, "DNS gave no answer", "DNS"},
		{"no route to the host", dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), Unavailable, "no route", "HTTPS_PROXY"},
		{"no route to the network", dial(os.NewSyscallError("connect", syscall.ENETUNREACH)), Unavailable, "no route", "HTTPS_PROXY"},
		{"dropped", dial(os.ErrDeadlineExceeded), Timeout, "was not made in time", "firewall"},
		{"another", dial(errors.New("strange")), Unavailable, "the connection to redox.test failed", "base_url"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTestClient(t, Options{})
			c.transport.Proxy = nil
			c.transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, test.err }
			token, err := c.RequestToken(t.Context(), request("https://redox.test/token"))
			e := failureOf(t, token, err)
			if e.Kind != test.kind || e.Attempts != 3 || !strings.Contains(e.Cause, test.cause) || !strings.Contains(e.Action, test.action) {
				t.Errorf("got %v after %d attempts: %v", e.Kind, e.Attempts, e)
			}
		})
	}
}

// connectProxy is an HTTP proxy that answers CONNECT with status, and with
// 200 connects to target.
func connectProxy(t *testing.T, status int, target string) *url.URL {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("proxy got %s", r.Method)
		}
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		upstream, err := net.Dial("tcp", target)
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(http.StatusOK)
		client, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			io.Copy(upstream, client)
			upstream.Close()
		}()
		io.Copy(client, upstream)
		client.Close()
	}))
	t.Cleanup(proxy.Close)
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("user", "hunter2")
	return u
}

func TestProxy(t *testing.T) {
	ca := newAuthority(t)
	server := tlsServer(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, time.Now().Add(time.Hour))}}, nil)
	target := strings.TrimPrefix(server.URL, "https://")
	tests := []struct {
		name     string
		proxy    *url.URL
		attempts int
		cause    string // empty for success
		action   string
	}{
		{"connects", connectProxy(t, 200, target), 1, "", ""},
		{"wants credentials", connectProxy(t, 407, target), 1, "asks for credentials", "HTTPS_PROXY"},
		{"forbids", connectProxy(t, 403, target), 1, "does not connect to Redox (it answered 403)", "NO_PROXY"},
		{"fails", connectProxy(t, 502, target), 3, "does not connect to Redox (it answered 502)", "NO_PROXY"},
		{"unreachable", &url.URL{Scheme: "http", Host: closedPort(t)}, 3, "proxy between Vault and Redox cannot be reached", "HTTPS_PROXY"},
		{"unreachable SOCKS", &url.URL{Scheme: "socks5", Host: closedPort(t)}, 3, "proxy between Vault and Redox cannot be reached", "HTTPS_PROXY"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTestClient(t, Options{CAPEM: ca.pem})
			defer c.Close() // lets the proxy's connections end
			c.transport.Proxy = http.ProxyURL(test.proxy)
			token, err := c.RequestToken(t.Context(), request(server.URL))
			if test.cause == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := failureOf(t, token, err)
			if e.Kind != Unavailable || e.Attempts != test.attempts || !strings.Contains(e.Cause, test.cause) || !strings.Contains(e.Action, test.action) {
				t.Errorf("got %v after %d attempts: %v", e.Kind, e.Attempts, e)
			}
			if strings.Contains(e.Error(), "hunter2") {
				t.Errorf("the error shows the proxy's password: %v", e)
			}
		})
	}
}
