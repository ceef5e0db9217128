// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"net/http"
	"slices"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// patientConfig lets the engine wait for Redox longer than a rush holds its answers.
var patientConfig = map[string]any{"request_timeout": "18s"}

// firstReaders is a crowd that asks for a token that nobody has asked for before.
func firstReaders(d *report) {
	m := newMount(d, d.in.servers[0], mountOptions{lifetime: 300 * time.Second, config: patientConfig})
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
	m := newMount(d, d.in.servers[0], mountOptions{lifetime: stampedeLifetime, roles: stampedeRoles, config: patientConfig})
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
		d.check(len(per) == stampedeRoles && most == 1, "%s: %d roles asked Redox, each at most %d times", moment.what, len(per), most)
		if moment.waiting {
			d.check(r.early == 0, "%s: %d readers were answered before Redox had answered", moment.what, r.early)
			d.check(len(tokens) == stampedeRoles, "%s: %d different tokens", moment.what, len(tokens))
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
	m := newMount(d, d.in.servers[0], mountOptions{lifetime: 300 * time.Second, roles: stampedeRoles})
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
