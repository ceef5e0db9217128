// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// requestTimeout is what the engine gives one attempt.
const requestTimeout = 3 * time.Second

// recovery is how long after a fault reads may still fail: an attempt that began in it ends, the pause after it, which is
// no longer than the fault was, and the next mint. slack is for a busy machine.
func recovery(lasted, retryAfter time.Duration) time.Duration {
	const slack = 5 * time.Second
	return lasted + retryAfter + requestTimeout + slack
}

// window is a time in which reads may fail: from start until end and, after it, grace.
type window struct {
	kind       string
	start, end time.Time // end is zero as long as it lasts
	grace      time.Duration
	excuses    []int // the HTTP statuses that requests may fail with; none: not one may fail although something is wrong
}

// What requests may fail with: Redox is not there or answers nonsense; it rejects; the plugin is not there (0: Vault broke
// off).
var (
	unavailable = []int{http.StatusBadGateway, http.StatusGatewayTimeout}
	rejecting   = []int{http.StatusBadRequest}
	crashed     = []int{0, http.StatusInternalServerError, http.StatusBadGateway}
)

func (w *window) excused(o *outcome) bool {
	return slices.Contains(w.excuses, o.status) && o.ended.After(w.start) && (w.end.IsZero() || o.began.Before(w.end.Add(w.grace)))
}

type windows struct {
	mu   sync.Mutex
	list []window
}

func (w *windows) open(kind string, excuses []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, window{kind: kind, start: time.Now(), excuses: excuses})
}

func (w *windows) close(grace func(lasted time.Duration) time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := &w.list[len(w.list)-1]
	last.end = time.Now()
	last.grace = grace(last.end.Sub(last.start))
}

// quietFrom is when the last window's grace is over.
func (w *windows) quietFrom() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) == 0 {
		return time.Now()
	}
	last := w.list[len(w.list)-1]
	return last.end.Add(last.grace)
}

// current names the fault that lasts, or is empty.
func (w *windows) current() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.list); n > 0 && w.list[n-1].end.IsZero() {
		return w.list[n-1].kind
	}
	return ""
}

func (w *windows) all() []window {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// fault is one thing that goes wrong for a while.
type fault struct {
	kind       string
	faults     sandbox.Faults
	excuses    []int
	retryAfter time.Duration
	before     func()                      // waits until it can begin
	begin, end func(context.Context) error // instead of faults
}

// breakThings lets something go wrong, again and again, with quiet times between.
func (s *soak) breakThings(ctx context.Context) {
	random := s.random(2)
	killed := time.Now()
	for pause(ctx, between(random, 2*time.Second, 6*time.Second)+time.Until(s.windows.quietFrom())) {
		lasts := between(random, 2*time.Second, 8*time.Second)
		// A process of the plugin lives long enough to see whether it grows, the last one, too.
		least := max(s.duration/5, 70*time.Second)
		if time.Since(killed) > least && s.duration-time.Since(s.began) > least {
			killed = time.Now()
			s.inject(ctx, s.kill(), 0)
			continue
		}
		s.inject(ctx, s.someFault(random), lasts)
	}
}

// inject begins a fault and, also when the run ends meanwhile, ends it.
func (s *soak) inject(ctx context.Context, f *fault, lasts time.Duration) {
	if f.begin == nil {
		f.begin = func(context.Context) error { s.redox.SetFaults(f.faults); return nil }
		f.end = func(context.Context) error { s.redox.SetFaults(sandbox.Faults{}); return nil }
	}
	if f.before != nil {
		f.before()
	}
	s.windows.open(f.kind, f.excuses)
	err := f.begin(ctx)
	if err == nil {
		pause(ctx, lasts)
		err = f.end(context.WithoutCancel(ctx))
	}
	s.windows.close(func(lasted time.Duration) time.Duration {
		if f.excuses == nil {
			return 0
		}
		return recovery(lasted, f.retryAfter)
	})
	if err != nil && ctx.Err() == nil {
		s.record.isBroken("the fault %q: %v", f.kind, err)
	}
}

// someFault picks one.
func (s *soak) someFault(random *rand.Rand) *fault {
	status := []int{500, 502, 503, 504}[random.IntN(4)]
	after := 1 + random.IntN(5)
	key := []string{"rs", "es"}[random.IntN(2)]
	const json = "application/json"
	all := []*fault{
		{kind: fmt.Sprint("HTTP ", status), excuses: unavailable, faults: sandbox.Faults{Status: status}},
		{kind: fmt.Sprintf("HTTP 429, Retry-After %d", after), excuses: unavailable, retryAfter: time.Duration(after) * time.Second,
			faults: sandbox.Faults{Status: http.StatusTooManyRequests, RetryAfter: strconv.Itoa(after)}},
		{kind: "connections reset", excuses: unavailable, faults: sandbox.Faults{Reset: true}},
		{kind: "answers broken off", excuses: unavailable, faults: sandbox.Faults{ResetMidBody: true}},
		{kind: "no answer", excuses: unavailable, faults: sandbox.Faults{Latency: sandbox.Duration(time.Hour)}},
		{kind: "a page of HTML", excuses: unavailable, faults: sandbox.Faults{Body: "<html>maintenance</html>"}},
		{kind: "wrong JSON", excuses: unavailable, faults: sandbox.Faults{Body: `{"access_token": {"of": "another kind"}}`, ContentType: json}},
		{kind: "half of a JSON", excuses: unavailable, faults: sandbox.Faults{Body: `{"access_token": "`, ContentType: json}},
		{kind: "an empty token", excuses: unavailable, faults: sandbox.Faults{EmptyAccessToken: true}},
		{kind: "a huge answer", excuses: unavailable, faults: sandbox.Faults{HugeBody: 1 << 20}},
		{kind: "Redox's clock is wrong", excuses: rejecting, faults: sandbox.Faults{ClockOffset: sandbox.Duration(-10 * time.Minute)}},
		s.down(),
		s.replacedJWK(key),
		// What follows must not make a single read fail.
		{kind: "one HTTP 503", faults: sandbox.Faults{Status: 503, Count: 1}},
		{kind: "one HTTP 429", faults: sandbox.Faults{Status: 429, RetryAfter: "1", Count: 1}},
		{kind: "one connection reset", faults: sandbox.Faults{Reset: true, Count: 1}},
		{kind: "slow answers", faults: sandbox.Faults{Latency: sandbox.Duration(requestTimeout / 4)}},
		{kind: "tokens that live 4 s", faults: sandbox.Faults{TokenLifetime: sandbox.Duration(4 * time.Second)}},
		{kind: "the Platform API fails", faults: sandbox.Faults{Path: "/platform", Status: 500}},
	}
	return all[random.IntN(len(all))]
}

// down is a Redox that does not listen.
func (s *soak) down() *fault {
	return &fault{
		kind: "endpoint down", excuses: unavailable,
		begin: func(context.Context) error { s.redox.down(); return nil },
		end:   func(context.Context) error { return s.redox.up() },
	}
}

// strangerJWK is a public key that nobody here has the private key of.
const strangerJWK = `{"kty":"EC","kid":"stranger","crv":"P-384","x":"AAAA","y":"AAAA"}`

// replacedJWK is somebody who puts another public key in the place of ours in the dashboard, and mends it.
func (s *soak) replacedJWK(key string) *fault {
	return &fault{
		kind: "JWK of " + key + " replaced", excuses: rejecting,
		before: s.dashboard[key].Lock,
		begin: func(context.Context) error {
			for _, client := range clients[key] {
				if err := s.redox.SetJWK(client, []byte(strangerJWK)); err != nil {
					s.dashboard[key].Unlock()
					return err
				}
			}
			return nil
		},
		end: func(ctx context.Context) error {
			defer s.dashboard[key].Unlock()
			return s.register(ctx, key, false)
		},
	}
}

// kill is a crash of the plugin. Vault starts it again with the next request.
func (s *soak) kill() *fault {
	return &fault{
		kind: "plugin killed", excuses: crashed,
		begin: func(context.Context) error { return s.vault.killPlugin() },
		end:   func(context.Context) error { return nil },
	}
}
