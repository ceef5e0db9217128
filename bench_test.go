// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// newBenchmarkMount has a key "main" of the algorithm, in its default size.
func newBenchmarkMount(b *testing.B, algorithm string) *mount {
	m := newMount(b)
	m.Logger().SetLevel(hclog.Info) // as Vault's is by default
	m.write("keys/main", map[string]any{"algorithm": algorithm})
	m.register("client-1", "main")
	m.write("config", map[string]any{"client_id": "client-1", "key": "main", "base_url": m.redox.URL})
	return m
}

// handle does one request as bare as Vault's own way to the engine is.
func (m *mount) handle(b *testing.B, operation logical.Operation) {
	m.handlePath(b, operation, "token")
}

func (m *mount) handlePath(b *testing.B, operation logical.Operation, path string) {
	request := &logical.Request{Operation: operation, Path: path, Storage: m.storage}
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

// BenchmarkAssertion is all of an assertion, which waits for no server.
func BenchmarkAssertion(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			m := newBenchmarkMount(b, algorithm)
			b.ReportAllocs()
			for b.Loop() {
				m.handlePath(b, logical.UpdateOperation, "assertion")
			}
		})
	}
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

// BenchmarkMintToItsParts compares a mint with the least that it consists of, a signature and a request over HTTP: in
// turn, so that what else the machine does hits both. "exchange" is what internal/redox and the assertion make of these
// two; the rest of a mint is storage, cache and framework. A server that answers at once shows what the engine adds, one
// that takes its time how much that matters.
func BenchmarkMintToItsParts(b *testing.B) {
	for _, algorithm := range algorithms {
		for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
			b.Run(algorithm+"/answer-after-"+delay.String(), func(b *testing.B) { benchmarkMintToItsParts(b, algorithm, delay) })
		}
	}
}

func benchmarkMintToItsParts(b *testing.B, algorithm string, delay time.Duration) {
	answer := []byte(`{"access_token":"` + strings.Repeat("x", 600) + `","token_type":"Bearer","expires_in":300}`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(delay)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(server.Close)
	m := newBenchmarkMount(b, algorithm)
	m.write("config", map[string]any{"token_url": server.URL})
	resolved := must(m.minter.resolve(b.Context(), ""))
	key := rawKey(algorithm)
	form := "grant_type=client_credentials&client_assertion=" + strings.Repeat("x", 900)

	steps := []func() error{
		func() error { // the parts
			if err := signRaw(key); err != nil {
				return err
			}
			response, err := server.Client().Post(server.URL, "application/x-www-form-urlencoded", strings.NewReader(form))
			if err != nil {
				return err
			}
			defer response.Body.Close()
			_, err = io.Copy(io.Discard, response.Body)
			return err
		},
		func() error {
			_, err := m.minter.exchange(b.Context(), resolved)
			return err
		},
		func() error { // the whole mint
			m.handle(b, logical.UpdateOperation)
			return nil
		},
	}
	spent := make([]time.Duration, len(steps))
	for b.Loop() {
		m.clock.advance(3 * time.Second) // past the time in which a mint is shared
		for i, step := range steps {
			began := time.Now()
			if err := step(); err != nil {
				b.Fatal(err)
			}
			spent[i] += time.Since(began)
		}
	}
	b.ReportMetric(float64(spent[0])/float64(b.N), "parts-ns/op")
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "exchange/parts")
	b.ReportMetric(float64(spent[2])/float64(spent[0]), "mint/parts")
}

// perOne returns how many bytes of the heap one of many things takes.
func perOne(many int, make func() (keep any)) float64 {
	used := func() float64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes with the second
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	before := used()
	kept := make()
	after := used()
	runtime.KeepAlive(kept)
	return (after - before) / float64(many)
}

// BenchmarkMemory tells how much of the heap a live token, a role and a mount take.
func BenchmarkMemory(b *testing.B) {
	const clientID, accessTokenSize = "0f6d6d2a-7a4c-4d5e-9a51-3a1c5b1d2e3f", 1000
	clock := newTestClock()
	version := must(newKeyVersion(must(privatekey.Generate(algorithmRS384, 3072)), "", false, clock.wall()))
	for name, one := range map[string]func(b *testing.B) float64{
		"token-with-1000-bytes-of-Redox": func(b *testing.B) float64 {
			return perOne(100_000, func() any {
				cache := tokencache.New(tokencache.Options[*token]{Now: clock.now,
					Mint: func(_ context.Context, name string, _ tokencache.Demand[*token]) (tokencache.Minted[*token], error) {
						return tokencache.Minted[*token]{RequestedAt: clock.now(), Lifetime: simulatedLife, MinTTL: simulatedMargin,
							Value: &token{
								accessToken: strings.Repeat("x", accessTokenSize), tokenType: strings.Clone("Bearer"),
								clientID: strings.Clone(clientID), kid: strings.Clone(version.KID),
								credential: credential{clientID: strings.Clone(clientID), key: "main"},
								expireTime: formatTime(clock.wall()), mintTime: formatTime(clock.wall()),
							}}, nil
					}})
				for n := range 100_000 {
					if _, err := cache.Get(b.Context(), fmt.Sprintf("role-%d", n)); err != nil {
						b.Fatal(err)
					}
				}
				cache.Wait()
				return cache
			})
		},
		"role-with-a-client-of-its-own": func(b *testing.B) float64 {
			const roles = 5000
			m := newMount(b)
			if err := m.store.write(b.Context(), func(w *writing) error {
				for n := range roles {
					name := fmt.Sprintf("%srole-%d", rolesStoragePrefix, n)
					if err := w.put(b.Context(), name, &role{ClientID: fmt.Sprintf("%s%05d", clientID[:31], n), Key: "main"}); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			return perOne(roles, func() any { return must(m.maintainer.directory.read(b.Context())) })
		},
		"mount-with-nothing-configured": func(b *testing.B) float64 {
			return perOne(100, func() any {
				var backends []*backend
				for range 100 {
					config := &logical.BackendConfig{System: logical.TestSystemView(), StorageView: &logical.InmemStorage{}}
					mounted := must(newBackend(b.Context(), config, newTestSigner(), clock.now))
					if err := mounted.Initialize(b.Context(), &logical.InitializationRequest{}); err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { mounted.Cleanup(context.Background()) })
					backends = append(backends, mounted)
				}
				return backends
			})
		},
	} {
		b.Run(name, func(b *testing.B) {
			bytes := 0.0
			for b.Loop() {
				bytes = one(b)
			}
			b.ReportMetric(bytes, "bytes/one")
			b.ReportMetric(0, "ns/op") // says nothing
		})
	}
}
