// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// patientConfig lets the engine wait for Redox longer than a rush holds its answers.
var patientConfig = map[string]any{"request_timeout": "18s", "max_concurrent_requests": 1000}

// firstReaders is a crowd that asks for a token that nobody has asked for before.
func firstReaders(d *report) {
	m := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second, config: patientConfig})
	c := newCrowd(d, m.vault)
	d.do("%d readers, with a connection each, ask for a role's first token; Redox answers %s after all have asked",
		crowdSize, heldFor)
	began := time.Now()
	r := c.rush(d, m.redox, true, func(int) string { return m.token(0) })
	s, tokens := summary(r.outcomes)
	requests := len(m.redox.since(began))
	d.do("all had asked within %s, and all were answered within %s of Redox's answer", short(r.sending), short(r.all))
	d.saw("%s", s.counts())
	d.atRedox("%d token requests", requests)
	d.check(r.early == 0, "%d readers were answered before Redox had answered", r.early)
	d.checkCrowd("", s)
	d.check(len(tokens) == 1, "they got %d different tokens", len(tokens))
	d.check(requests == 1, "Redox got %d token requests", requests)
}

const (
	stampedeRoles    = 200
	stampedeLifetime = 40 * time.Second
)

// atExpiry is a crowd for many roles, at the moment at which all their tokens have ended.
func atExpiry(d *report) {
	m := newMount(d, d.servers[0], mountOptions{lifetime: stampedeLifetime, roles: stampedeRoles, config: patientConfig})
	c := newCrowd(d, m.vault)
	d.do("%d roles with %d readers each, tokens that live %s; all readers ask at once", stampedeRoles, crowdSize/stampedeRoles,
		stampedeLifetime)
	for _, moment := range []struct {
		what    string
		age     time.Duration // of the tokens
		waiting bool
	}{
		{"before there are tokens", 0, true},
		{"when all have ended", stampedeLifetime + time.Second, true},
		{"when they are to be renewed ahead", stampedeLifetime/2 + 2*time.Second, false},
	} {
		time.Sleep(moment.age)
		began := time.Now()
		r := c.rush(d, m.redox, moment.waiting, func(number int) string { return m.token(number % stampedeRoles) })
		// Readers do not wait for a renewal ahead of time, so some of those may only come to Redox when all are served.
		d.must(await("Redox to have answered", func() bool {
			return answered(m.redox) && (moment.waiting || len(m.redox.perClient(began)) >= stampedeRoles)
		}))
		s, tokens := summary(r.outcomes)
		per := m.redox.perClient(began)
		most, all := 0, 0
		for _, count := range per {
			most, all = max(most, count), all+count
		}
		d.saw("%s: %s; %d different tokens", moment.what, s.counts(), len(tokens))
		d.atRedox("%s: %d requests, at most %d for a role", moment.what, all, most)
		d.checkCrowd(moment.what+": ", s)
		// The times of a crowd's tokens are spread over their life, so a few are renewed while the crowd is still served.
		d.check(len(per) == stampedeRoles && most <= 2 && all <= stampedeRoles*11/10,
			"%s: %d roles asked Redox, each at most %d times, all together %d times", moment.what, len(per), most, all)
		if moment.waiting {
			d.check(r.early == 0, "%s: %d readers were answered before Redox had answered", moment.what, r.early)
			d.check(len(tokens) >= stampedeRoles && len(tokens) <= all, "%s: %d different tokens", moment.what, len(tokens))
		}
	}
}

// checkCrowd checks that everybody got a token.
func (d *report) checkCrowd(when string, s seen) {
	text := ""
	if s.failed() > 0 {
		text = "; the others: " + s.mostly()
	}
	d.check(s.ok == crowdSize, "%s%d of %d readers got a token%s", when, s.ok, crowdSize, text)
}

// answered says whether Redox has no token request under way.
func answered(redox *localRedox) bool {
	t := redox.Counters().Token
	ended := t.Issued + t.Faulted + t.Abandoned
	for _, count := range t.Rejected {
		ended += count
	}
	return t.Requests == ended
}

// failingEndpoint is a crowd for many roles while Redox fails.
func failingEndpoint(d *report) {
	const length = 20 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second, roles: stampedeRoles})
	c := newCrowd(d, m.vault)
	m.redox.SetFaults(sandbox.Faults{Status: http.StatusServiceUnavailable})
	d.do("%d roles with %d readers each, which ask again a second after each answer, for %s; Redox answers 503",
		stampedeRoles, crowdSize/stampedeRoles, length)
	began := time.Now()
	outcomes := make([][]outcome, crowdSize)
	_ = c.each(crowdSize, func(number int) error {
		time.Sleep(time.Duration(number) * time.Second / crowdSize)
		for time.Since(began) < length {
			got := c.ask(number, m.token(number%stampedeRoles))
			outcomes[number] = append(outcomes[number], got)
			if got.err != nil {
				return got.err
			}
			time.Sleep(time.Second)
		}
		return nil
	})
	took := time.Since(began)
	s, _ := summary(slices.Concat(outcomes...))
	most, all := 0, 0
	for _, count := range m.redox.perClient(began) {
		most, all = max(most, count), all+count
	}
	tries, allowed := most/(1+defaultRetries), mostTries(took)
	d.saw("%s in %s", s.counts(), short(took))
	d.atRedox("%d requests, at most %d for a role: %d tries of up to %d requests (max_retries=2)", all, most,
		tries, 1+defaultRetries)
	d.check(s.ok == 0 && s.failed() == s.errors[http.StatusBadGateway]+s.errors[http.StatusGatewayTimeout],
		"readers got nothing but 502 (or 504, where a slow machine lets the engine's own time run out)%s", s.others())
	d.check(most <= allowed*(1+defaultRetries),
		"no role was tried more than %d times, which is what pauses of 1, 2, 4, 8, … s allow", allowed)
	d.check(float64(tries) <= took.Seconds(), "that is at most %.2f tries a second", float64(tries)/took.Seconds())
}

// limitedHost is a host that answers one role with 429: its other roles wait, and are served in the end; those of another
// host are served meanwhile.
func limitedHost(d *report) {
	const roles, pause = 100, 6 * time.Second
	limited := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second, roles: roles, config: map[string]any{"max_retries": 0}})
	other := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second, roles: roles, path: d.drill.name + "-other"})
	d.must2(limited.vault.must("GET", limited.token(1), nil)) // has a token that lives
	limited.redox.SetFaults(sandbox.Faults{Status: http.StatusTooManyRequests, RetryAfter: "6", Count: 1})
	began := time.Now()
	_, told := limited.vault.must("GET", limited.token(0), nil)
	d.do("one of %d roles is answered 429 with Retry-After 6; then all are read at once, and those of another host", roles)
	type served struct {
		took time.Duration
		err  error
	}
	readAll := func(m *mount) []served {
		results := make([]served, roles)
		var readers sync.WaitGroup
		for number := range results {
			readers.Go(func() {
				asked := time.Now()
				_, err := m.vault.must("GET", m.token(number), nil)
				results[number] = served{time.Since(asked), err}
			})
		}
		readers.Wait()
		return results
	}
	var slowed, others []served
	var both sync.WaitGroup
	both.Go(func() { slowed = readAll(limited) })
	both.Go(func() { others = readAll(other) })
	both.Wait()
	summarize := func(all []served) (failed int, least, most time.Duration) {
		least = time.Hour
		for _, one := range all {
			if one.err != nil {
				failed++
			}
			least, most = min(least, one.took), max(most, one.took)
		}
		return failed, least, most
	}
	early := 0
	for _, a := range limited.redox.since(began)[1:] {
		if a.at.Before(began.Add(pause)) {
			early++
		}
	}
	living := slowed[1]
	failed, least, most := summarize(slowed[2:])
	otherFailed, _, otherMost := summarize(others)
	d.saw("the role that was told: %v; others of its host: %d errors, served after %s to %s; the one with a token after %s; another host's: %d errors, after %s at most",
		told != nil, failed, short(least), short(most), short(living.took), otherFailed, short(otherMost))
	d.atRedox("%d requests in the pause, %d after it", early, len(limited.redox.since(began))-1-early)
	d.check(told != nil, "the first role was told")
	d.check(early == 0, "%d requests came in the pause", early)
	d.check(failed == 0 && least >= pause/2, "the other roles of the host waited, and got a token: %d errors", failed)
	d.check(living.err == nil && living.took < pause/2, "the role with a token did not wait")
	d.check(otherFailed == 0 && otherMost < pause/2, "no role of the other host waited: %d errors", otherFailed)
}

// defaultRetries is the default of max_retries.
const defaultRetries = 2

// mostTries is how many tries the pauses after failures, 1 s doubling to 30 s, allow within a time.
func mostTries(within time.Duration) int {
	tries := 1
	for pause, at := time.Second, time.Second; at <= within; at += pause {
		tries++
		pause = min(2*pause, 30*time.Second)
	}
	return tries
}
