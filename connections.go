// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// connections holds the one HTTP client of a mount, so that connections to Redox are reused. Another set of trusted
// CAs makes another client.
type connections struct {
	mu     sync.Mutex
	caPEM  string
	client *redox.Client
}

func (c *connections) get(caPEM string, now func() tokencache.Instant) (*redox.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil && c.caPEM == caPEM {
		return c.client, nil
	}
	client, err := redox.NewClient(redox.Options{
		CAPEM: caPEM, UserAgent: userAgent(),
		Now: func() time.Time { return now().Wall },
	})
	if err != nil {
		return nil, fieldError("ca_pem", "write PEM certificates to config", "the configured CA certificates can't be used")
	}
	c.closeIdle()
	c.caPEM, c.client = caPEM, client
	return client, nil
}

// close closes idle connections. Requests under way end with their context.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
	c.client = nil
}

func (c *connections) closeIdle() {
	if c.client != nil {
		c.client.Close()
	}
}
