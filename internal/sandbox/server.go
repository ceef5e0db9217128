// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

const defaultAddress = "127.0.0.1:0"

// Server is a sandbox that listens.
type Server struct {
	*Sandbox
	// URL is the base URL.
	URL string
	// CAPEM is the certificate of the throw-away CA that clients have to trust; empty without TLS.
	CAPEM string

	http   *http.Server
	cancel context.CancelFunc // ends the requests' contexts: what is held or delayed comes back
	served chan error
	open   sync.WaitGroup // connections
	once   sync.Once
	closed error // what Close gave
}

// Start gives a sandbox that listens on a loopback address. Close ends it.
func Start(options Options) (*Server, error) {
	address, err := loopbackAddress(options.Address)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address, or port 0 for a free one", address, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		Sandbox: New(options),
		URL:     "http://" + listener.Addr().String(),
		cancel:  cancel,
		served:  make(chan error, 1),
	}
	s.http = &http.Server{
		Handler:           s.Sandbox,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		// The server's own complaints (TLS handshakes of clients without the CA) are no lines about requests.
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnState:   s.followConnection,
		BaseContext: func(net.Listener) context.Context { return ctx },
		Protocols:   new(http.Protocols),
	}
	// HTTP/1 only: a connection can't be reset under one request when it carries others, too.
	s.http.Protocols.SetHTTP1(true)
	if options.TLS {
		certificate, authority, err := newCertificate()
		if err != nil {
			cancel()
			return nil, errors.Join(err, listener.Close())
		}
		s.URL = "https://" + listener.Addr().String()
		s.CAPEM, s.authority = authority, authority
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	}
	s.BaseURL = s.URL
	go func() {
		if options.TLS {
			s.served <- s.http.ServeTLS(listener, "", "")
		} else {
			s.served <- s.http.Serve(listener)
		}
	}()
	return s, nil
}

// followConnection counts the open connections, each of which is a goroutine of net/http's.
func (s *Server) followConnection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Done()
	}
}

// Close ends the sandbox: it takes no more requests, lets go of those that are held or delayed, gives the others a
// second, and comes back when every goroutine of it has ended. Calling it again does no harm.
func (s *Server) Close() error {
	s.once.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Server) close() error {
	s.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close() // connections that never sent a request keep Shutdown waiting
	}
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	s.open.Wait()
	s.jwks.CloseIdleConnections()
	return err
}

// loopbackAddress gives the address to listen on: no host means 127.0.0.1, and anything but loopback is refused,
// for the sandbox's own endpoints ask for no authentication.
func loopbackAddress(address string) (string, error) {
	if address == "" {
		address = defaultAddress
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w; give host:port, such as 127.0.0.1:8765", address, err)
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	if !isLoopback(host) {
		return "", fmt.Errorf("address %q: the sandbox listens on loopback addresses only; give 127.0.0.1:%s", address, port)
	}
	return net.JoinHostPort(host, port), nil
}
