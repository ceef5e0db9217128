// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// localRedox is the sandbox on a listener that can go away and come back, and that notes who asked for a token when.
type localRedox struct {
	*sandbox.Sandbox
	address     string
	authority   *authority                      // nil without TLS
	certificate atomic.Pointer[tls.Certificate] // what TLS shows now

	mu       sync.Mutex
	server   *http.Server
	arrivals []arrival
}

// arrival is one token request.
type arrival struct {
	at       time.Time
	clientID string
}

func newLocalRedox(lifetime time.Duration, secure bool) (*localRedox, error) {
	r := &localRedox{Sandbox: sandbox.New(sandbox.Options{TokenLifetime: lifetime}), address: "127.0.0.1:0"}
	scheme := "http"
	if secure {
		scheme = "https"
		var err error
		if r.authority, err = newAuthority(); err != nil {
			return nil, err
		}
		certificate, err := r.authority.issue(good)
		if err != nil {
			return nil, err
		}
		r.certificate.Store(certificate)
	}
	if err := r.up(); err != nil {
		return nil, err
	}
	r.BaseURL = scheme + "://" + r.address
	return r, nil
}

// up listens, at the address of before if there was one.
func (r *localRedox) up() error {
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		return err
	}
	r.address = listener.Addr().String()
	server := &http.Server{
		Handler:           http.HandlerFunc(r.serve),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0), // complaints about handshakes are what a drill wants
		Protocols:         new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true) // a connection can't be reset under one request when it carries others, too
	if r.authority != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.certificate.Load(), nil }}
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	r.mu.Lock()
	r.server = server
	r.mu.Unlock()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return nil
}

// down closes the listener and every connection.
func (r *localRedox) down() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.server.Close()
}

// show makes TLS show another certificate from now on, also to who has a connection already.
func (r *localRedox) show(certificate *tls.Certificate) error {
	r.certificate.Store(certificate)
	r.down()
	return r.up()
}

func (r *localRedox) serve(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/v2/auth/token" {
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, 64<<10))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		a := arrival{time.Now(), clientOf(string(body))}
		r.mu.Lock()
		r.arrivals = append(r.arrivals, a)
		r.mu.Unlock()
		request.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	r.Sandbox.ServeHTTP(w, request)
}

// clientOf reads the client ID out of a token request, unchecked: checking is the sandbox's work.
func clientOf(body string) string {
	form, _ := url.ParseQuery(body)
	parts := strings.Split(form.Get("client_assertion"), ".")
	if len(parts) != 3 {
		return ""
	}
	text, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Issuer string `json:"iss"`
	}
	_ = json.Unmarshal(text, &claims)
	return claims.Issuer
}

// since gives the token requests that came at a moment or later.
func (r *localRedox) since(moment time.Time) []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []arrival
	for _, a := range r.arrivals {
		if !a.at.Before(moment) {
			found = append(found, a)
		}
	}
	return found
}

// perClient counts token requests since a moment by client ID.
func (r *localRedox) perClient(moment time.Time) map[string]int {
	counts := map[string]int{}
	for _, a := range r.since(moment) {
		counts[a.clientID]++
	}
	return counts
}
