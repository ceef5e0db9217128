// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// newBenchmarkMount has a key "main" of the algorithm, in its default size.
func newBenchmarkMount(b *testing.B, algorithm string) *mount {
	m := newMount(b)
	m.write("keys/main", map[string]any{"algorithm": algorithm})
	m.register("client-1", "main")
	m.write("config", map[string]any{"client_id": "client-1", "key": "main", "base_url": m.redox.URL})
	return m
}

// handle does one request as bare as Vault's own way to the engine is.
func (m *mount) handle(b *testing.B, operation logical.Operation) {
	request := &logical.Request{Operation: operation, Path: "token", Storage: m.storage}
	response, err := m.HandleRequest(b.Context(), request)
	if err != nil || response.IsError() {
		b.Error(response, err)
	}
}

// BenchmarkCachedRead is a read of a token in memory, by as many readers as there are processors.
func BenchmarkCachedRead(b *testing.B) {
	m := newBenchmarkMount(b, algorithmES384)
	m.handle(b, logical.ReadOperation)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.handle(b, logical.ReadOperation)
		}
	})
}

// BenchmarkMint is all of a mint: storage, signature, and the exchange with the local Redox, which verifies.
func BenchmarkMint(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			m := newBenchmarkMount(b, algorithm)
			b.ReportAllocs()
			for b.Loop() {
				m.clock.advance(3 * time.Second) // past the time in which a mint is shared
				m.handle(b, logical.UpdateOperation)
			}
		})
	}
}
