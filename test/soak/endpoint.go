// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// tokenLifetime is short, so that minting never rests.
const tokenLifetime = 10 * time.Second

// endpoint is the local Redox behind a listener that can go away and come back, with all that it knows.
type endpoint struct {
	*sandbox.Sandbox
	address string
	server  *http.Server
}

func startEndpoint() (*endpoint, error) {
	e := &endpoint{Sandbox: sandbox.New(sandbox.Options{TokenLifetime: tokenLifetime})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e.address = listener.Addr().String()
	e.BaseURL = "http://" + e.address
	e.serve(listener)
	return e, nil
}

func (e *endpoint) serve(listener net.Listener) {
	e.server = &http.Server{Handler: e.Sandbox, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func(server *http.Server) { _ = server.Serve(listener) }(e.server) // it ends with down
}

// down refuses connections, and breaks off those there are.
func (e *endpoint) down() { _ = e.server.Close() }

// up listens where it did before. Another process may have the port for a moment.
func (e *endpoint) up() error {
	var listener net.Listener
	var err error
	for range 50 {
		if listener, err = net.Listen("tcp", e.address); err == nil {
			e.serve(listener)
			return nil
		}
		pause(context.Background(), 100*time.Millisecond)
	}
	return fmt.Errorf("the local Redox can't have its port back: %w", err)
}
