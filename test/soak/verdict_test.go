// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/sandbox"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// good is the evidence of a run without a flaw: a fault from second 100 to 110 with 10 s to recover, and two processes of
// the plugin, of which the second began larger.
func good() evidence {
	e := evidence{
		reads:   newRecord().tally,
		rate:    50,
		windows: []window{{kind: "HTTP 503", start: at(100), end: at(110), grace: 10 * time.Second, excuses: unavailable}},
	}
	e.reads.ok, e.reads.tokens[live] = 1000, 900
	for i := range 80 {
		s := sample{at: at(float64(5 * i)), life: 1, goroutines: 30, files: 18, resident: 30 << 20, leases: 12}
		if i >= 40 {
			s.life, s.goroutines, s.resident = 2, 60, 50<<20
		}
		e.samples = append(e.samples, s)
	}
	return e
}

func failure(began, ended float64) outcome {
	return outcome{path: "GET token", status: 502, problem: "Redox is not there", began: at(began), ended: at(ended)}
}

func TestVerdict(t *testing.T) {
	grow := func(change func(s *sample, i int)) func(*evidence) {
		return func(e *evidence) {
			for i := range e.samples {
				change(&e.samples[i], i)
			}
		}
	}
	fail := func(outcomes ...outcome) func(*evidence) {
		return func(e *evidence) { e.reads.failures = append(e.reads.failures, outcomes...) }
	}
	for name, c := range map[string]struct {
		change func(*evidence)
		fails  string // part of the claim that must not hold; empty: all hold
	}{
		"nothing wrong":                    {func(*evidence) {}, ""},
		"fails within a fault":             {fail(failure(101, 102)), ""},
		"fails while recovering":           {fail(failure(119, 125)), ""},
		"began before the fault":           {fail(failure(90, 101)), ""},
		"fails before the fault":           {fail(failure(98, 99)), "no request failed"},
		"fails after the recovery":         {fail(failure(121, 122)), "no request failed"},
		"fails in another way":             {func(e *evidence) { o := failure(101, 102); o.status = 400; fail(o)(e) }, "no request failed"},
		"fails in what excuses nothing":    {func(e *evidence) { e.windows[0].excuses = nil; fail(failure(101, 102))(e) }, "no request failed"},
		"fails in a fault that still is":   {func(e *evidence) { e.windows[0].end = time.Time{}; fail(failure(500, 501))(e) }, ""},
		"nothing was read":                 {func(e *evidence) { e.reads.ok = 0 }, "no request failed"},
		"more failures than can be judged": {fail(slices.Repeat([]outcome{failure(101, 102)}, keptMost)...), "no request failed"},
		"a dead token":                     {func(e *evidence) { e.reads.tokens[dead] = 1 }, "every token"},
		"no token at all":                  {func(e *evidence) { e.reads.tokens[live] = 0 }, "every token"},
		"a token that ended on its way":    {func(e *evidence) { e.reads.tokens[endedOnItsWay] = 1 }, ""},
		"many that ended on their way":     {func(e *evidence) { e.reads.tokens[endedOnItsWay] = 10 }, "every token"},
		"a rotation without an end":        {func(e *evidence) { e.reads.broken = []string{"it did not end"} }, "every rotation"},
		"goroutines pile up":               {grow(func(s *sample, i int) { s.goroutines += float64(i % 40) }), "goroutines"},
		"files pile up":                    {grow(func(s *sample, i int) { s.files += float64(i%40) / 2 }), "file descriptors"},
		"memory grows in the second life":  {grow(func(s *sample, i int) { s.resident += float64(max(i-40, 0) << 20) }), "resident memory"},
		"few goroutines more":              {grow(func(s *sample, i int) { s.goroutines += float64(i % 40 / 10) }), ""},
		"a crowd that waits in a fault":    {grow(func(s *sample, i int) { s.goroutines += float64(i % 40 / 36 * 1000) }), ""},
		"a crowd in many faults": {grow(func(s *sample, i int) {
			s.fault = i%40 >= 30 && i%2 == 0
			s.goroutines += 1000 * float64(i%40/30*(1-i%2))
		}), ""},
		"leases pile up":                  {grow(func(s *sample, i int) { s.leases += float64(2 * i) }), "leases"},
		"leases are left":                 {func(e *evidence) { e.leftLeases = 1 }, "leases"},
		"leases are not counted":          {func(e *evidence) { e.leftLeases = -1 }, "leases"},
		"a secret in the log":             {func(e *evidence) { e.leaks = []string{"Vault's log holds an access token"} }, "no private key"},
		"too few samples of each process": {grow(func(s *sample, i int) { s.life = float64(i / (fewest - 1)) }), "goroutines"},
	} {
		t.Run(name, func(t *testing.T) {
			e := good()
			c.change(&e)
			v := judge(e)
			var text bytes.Buffer
			v.print(&text, summary{settings: settings{seed: 7}, lasted: time.Minute})
			lines := strings.SplitAfter(strings.TrimSuffix(text.String(), "\n"), "\n")
			last := lines[len(lines)-1]
			if c.fails == "" {
				if !v.passed() || last != "SOAK PASSED: 1m0s, seed 7" {
					t.Errorf("it was to pass:\n%s", text.String())
				}
				return
			}
			if v.passed() || !strings.HasPrefix(last, "SOAK FAILED: ") || !strings.Contains(last, c.fails) {
				t.Errorf("it was to fail for %q:\n%s", c.fails, text.String())
			}
		})
	}
}

// TestTokenState decides between a token that was dead when it was handed out, and one that ended on its way.
func TestTokenState(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		began, expires time.Time
		want           tokenState
	}{
		"ended before it was asked for":    {now.Add(-time.Second), now.Add(-5 * time.Second), dead},
		"ended while the answer was made":  {now.Add(-4 * time.Second), now.Add(-3 * time.Second), endedOnItsWay},
		"is said to live, which is untrue": {now.Add(-time.Second), now.Add(time.Minute), dead},
	} {
		t.Run(name, func(t *testing.T) {
			s := &soak{redox: &endpoint{Sandbox: sandbox.New(sandbox.Options{})}}
			o := outcome{began: c.began}
			s.checkToken(&o, []byte(`{"data": {"access_token": "unknown", "expire_time": "`+c.expires.UTC().Format(time.RFC3339)+`"}}`))
			if o.token != c.want || (o.token == dead) != (o.problem != "") || o.failed() {
				t.Errorf("got %d, %q", o.token, o.problem)
			}
		})
	}
}

// TestScanStream finds a secret wherever in a long log it is.
func TestScanStream(t *testing.T) {
	const size = 20 << 20
	secret := sandbox.TokenPrefix + strings.Repeat("x", 43)
	for _, place := range []int{0, 64<<10 + 8<<20 - 20, 8<<20 - 20, size - len(secret)} {
		log := bytes.Repeat([]byte("."), size)
		copy(log[place:], secret)
		leaks, read, err := scanStream(leakcheck.New(), bytes.NewReader(log))
		if err != nil || read != size || !slices.Equal(leaks, []string{"an access token"}) {
			t.Errorf("at %d: %v, %d bytes, %v", place, leaks, read, err)
		}
	}
	if leaks, _, err := scanStream(leakcheck.New(), strings.NewReader("nothing")); err != nil || leaks != nil {
		t.Errorf("found %v, %v", leaks, err)
	}
}

// TestShares sees to it that every kind of request is made.
func TestShares(t *testing.T) {
	count := map[string]int{}
	for n := range 100 {
		r := pick(n)
		count[r.method+r.path]++
	}
	for _, r := range requests {
		if count[r.method+r.path] != r.share {
			t.Errorf("%s %s: %d of 100, not %d", r.method, r.path, count[r.method+r.path], r.share)
		}
	}
}
