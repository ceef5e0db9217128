// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"
)

// readers is how many requests are under way at most: so many may wait for a Redox that hangs.
const readers = 64

// leasedShare is how many of a hundred reads make a lease.
const leasedShare = 4

// request is what readers ask for; share is how many of a hundred ask for it.
type request struct {
	share        int
	method, path string
	token        bool // the answer has an access token
}

var requests = []request{
	{24, http.MethodGet, "token", true},
	{24, http.MethodGet, "token/rs", true},
	{22, http.MethodGet, "token/es", true},
	{20, http.MethodGet, "token/platform", true},
	{leasedShare, http.MethodGet, "token/leased", true},
	{2, http.MethodPut, "token/es", true},
	{2, http.MethodPut, "assertion/rs", false},
	{2, http.MethodGet, "jwks", false},
}

// read makes requests at the rate, until the context ends.
func (s *soak) read(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	random := s.random(1)
	tickets := make(chan struct{}, readers)
	ticks := time.NewTicker(time.Second / time.Duration(s.rate))
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		what := pick(random.IntN(100))
		select {
		case tickets <- struct{}{}:
			work.Go(func() {
				s.ask(ctx, what)
				<-tickets
			})
		default: // all wait
		}
	}
}

func pick(n int) request {
	for _, r := range requests {
		if n -= r.share; n < 0 {
			return r
		}
	}
	return requests[0]
}

// ask makes one request, and records what came of it. A request that the end of the run has broken off counts for nothing.
func (s *soak) ask(ctx context.Context, what request) {
	began := time.Now()
	a, err := s.vault.Do(ctx, what.method, mount+what.path, nil)
	if ctx.Err() != nil {
		return
	}
	o := outcome{path: what.method + " " + what.path, status: a.Status, began: began}
	switch {
	case err != nil:
		o.problem = "no answer from Vault: " + err.Error()
	case a.Status != http.StatusOK:
		o.problem = a.Problem()
		s.secrets.said(a.Body) // an error must hold none
	case what.token:
		s.checkToken(&o, a.Body)
	}
	o.ended = time.Now()
	s.record.add(o)
}

// checkToken looks at once whether the local Redox takes the token. One that does not live was dead when it was handed out,
// or it ended on its way here: then expire_time, whose fraction of a second is cut off, falls between request and answer.
func (s *soak) checkToken(o *outcome, answer []byte) {
	var decoded struct {
		Data struct {
			AccessToken string    `json:"access_token"`
			ExpireTime  time.Time `json:"expire_time"`
		}
	}
	if err := json.Unmarshal(answer, &decoded); err != nil || decoded.Data.AccessToken == "" {
		o.problem = "the answer has no token"
		return
	}
	o.token = live
	if s.redox.IsLive(decoded.Data.AccessToken) {
		return
	}
	now, expires := time.Now(), decoded.Data.ExpireTime
	if expires.Add(time.Second).Before(o.began) || expires.After(now) {
		o.token = dead
		o.problem = fmt.Sprintf("asked for at %s, answered at %s, the token ended at %s by its expire_time",
			o.began.UTC().Format(time.StampMilli), now.UTC().Format(time.StampMilli), expires.UTC().Format(time.Stamp))
		return
	}
	o.token = endedOnItsWay
}

type tokenState int

const (
	noToken tokenState = iota
	live
	endedOnItsWay
	dead
)

// outcome is what came of one request.
type outcome struct {
	path         string
	status       int // 0: Vault did not answer
	token        tokenState
	problem      string
	began, ended time.Time
}

func (o *outcome) failed() bool { return o.problem != "" && o.token != dead }

// tally is what was counted, and which requests were not as they should be.
type tally struct {
	ok       int
	tokens   map[tokenState]int
	statuses map[int]int // of those that failed
	failures []outcome
	dead     []outcome
	rotated  int
	broken   []string // of rotations and changes
}

// keptMost bounds what is remembered of failures; past it, only counts grow, and the verdict says so.
const keptMost = 100_000

// record collects outcomes.
type record struct {
	mu sync.Mutex
	tally
}

func newRecord() *record {
	return &record{tally: tally{tokens: map[tokenState]int{}, statuses: map[int]int{}}}
}

func (r *record) add(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.token != noToken {
		r.tokens[o.token]++
	}
	switch {
	case o.token == dead && len(r.dead) < keptMost:
		r.dead = append(r.dead, o)
	case o.failed():
		r.statuses[o.status]++
		if len(r.failures) < keptMost {
			r.failures = append(r.failures, o)
		}
	case o.token != dead:
		r.ok++
	}
}

// didRotate counts a rotation that came to its end.
func (r *record) didRotate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rotated++
}

// isBroken notes what must not happen at all.
func (r *record) isBroken(format string, values ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, fmt.Sprintf(format, values...))
}

// finish gives a copy.
func (r *record) finish() tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally
	t.tokens, t.statuses = maps.Clone(t.tokens), maps.Clone(t.statuses)
	return t
}
