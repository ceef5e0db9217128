// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// How many signatures (and openings of keys) a process makes at once, and how many mints of a mount read storage at once.
// Without the first, a read of a token that is in memory waits behind a thousand signatures; without the second, behind
// three thousand calls to Vault. docs/internals/benchmarks.md has what was measured: with fewer signatures, a cold start took longer, and
// others did not notice it less.
func signaturesAtOnce() int { return runtime.GOMAXPROCS(0) }
func readsAtOnce() int      { return 2 * runtime.GOMAXPROCS(0) }

// atGate does work of this node when it is its turn.
func atGate(ctx context.Context, g *gate.Gate, work func() error) error {
	pass, err := g.Enter(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return logical.CodedError(http.StatusGatewayTimeout, fmt.Sprintf("this node of Vault is too busy: %d mints wait for a processor; "+
			"try again, and if it stays, give Vault more processors, or take keys with algorithm ES384", g.State().Waiting))
	}
	if err != nil {
		return err
	}
	defer pass.Leave()
	return work()
}

// gates are those of the hosts that a mount asks, one for each: Redox counts the requests of a source address, whichever
// role or endpoint they are for.
type gates struct {
	now func() tokencache.Instant

	mu     sync.Mutex
	byHost map[string]*gate.Gate
}

// of returns the gate of a URL's host, with these limits from now on.
func (g *gates) of(address string, limits gate.Limits) *gate.Gate {
	host := address
	if u, err := url.Parse(address); err == nil {
		host = strings.ToLower(u.Host)
	}
	g.mu.Lock()
	known := g.byHost[host]
	if known == nil {
		if g.byHost == nil {
			g.byHost = map[string]*gate.Gate{}
		}
		maps.DeleteFunc(g.byHost, func(_ string, other *gate.Gate) bool { return other.Idle() }) // of a former configuration
		known = gate.New(limits, func() time.Time { return time.Unix(0, 0).Add(g.now().Monotonic) })
		g.byHost[host] = known
	}
	g.mu.Unlock()
	known.SetLimits(limits)
	return known
}

// state returns what all of them are doing, as if they were one.
func (g *gates) state() (sum gate.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.byHost {
		s := one.State()
		sum.Inside += s.Inside
		sum.Waiting += s.Waiting
		sum.ClosedFor = max(sum.ClosedFor, s.ClosedFor)
	}
	return sum
}
