// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
)

// To probe is to ask the server for a token, to see which version it takes from a client. The tokens are discarded.

const (
	// probeWait bounds one request.
	probeWait = 20 * time.Second
	// probeBudget bounds the probes of one key in one pass: other keys wait behind it. The next pass goes on.
	probeBudget = 2 * time.Minute
	// verbBudget bounds the probes that a request waits for. Vault ends a request after 90 s.
	verbBudget = 45 * time.Second
	// maxRolesProbed bounds with how many roles of one client the server is asked in one pass. The next pass takes others.
	maxRolesProbed = 8
)

// probes is what came of probing some clients of a key.
type probes struct {
	events []rotation.Event // to be stored
	noWord error            // why it ended before all were asked, nil when it did not
}

// probe asks the server about some clients of a key, until it gives no answer: waiting once is enough, for other work
// waits behind this. What was heard is noted at once; what else came of it is returned.
func (m *maintainer) probe(ctx context.Context, s *keySnapshot, clients *keyClients, due []rotation.Client, budget time.Duration) (*probes, error) {
	done := &probes{}
	if len(due) == 0 {
		return done, nil
	}
	ctx = gate.With(ctx, gate.Place{Class: gate.Upkeep})
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	missing := m.notServed(ctx, clients, s.signingKey)
	m.unserved.note(s.name, m.words(missing))
	if missing != nil { // which says nothing of a client; but an older version may wait to be destroyed
		done.noWord = missing
		due = slices.DeleteFunc(slices.Clone(due), func(client rotation.Client) bool { return !s.rotation().Needs(client, m.now().Wall) })
	}
	results := make([]probeResult, len(due))
	atOnce(m.concurrent, len(due), func(i int) (more bool) {
		result, err := m.probeClient(ctx, s, due[i], clients.byClient[due[i]])
		results[i] = probeResult{result, err, true}
		return err == nil && result.outcome != rotation.Unanswered
	})
	var failed error
	for i, client := range due {
		switch result := results[i]; {
		case !result.asked:
		case ctx.Err() != nil && (result.failed != nil || result.outcome == rotation.Unanswered):
			done.noWord = ctx.Err() // the budget is used up, which says nothing of this client
		case result.failed != nil:
			failed = result.failed
		case notSent(result.err):
			done.noWord = result.err // which says nothing of this client either
		default:
			m.keys.observe(s.signingKey, client, result.news)
			done.events = append(done.events, rotation.Probed{Client: client, Outcome: result.outcome, Answer: result.answer})
			if result.outcome != "" {
				m.telemetry.logger.Debug("Redox does not take a version", "key", s.name, "client_id", client.ClientID,
					"outcome", string(result.outcome), "answer", result.answer)
			}
			if result.outcome == rotation.Unanswered {
				done.noWord = result.err
			}
		}
	}
	return done, cmp.Or(whole.Err(), failed)
}

// probeResult is what came of probing one client, if it was asked about.
type probeResult struct {
	probed
	failed error // of this node
	asked  bool
}

// probed is what came of probing one client.
type probed struct {
	news    heardOf
	outcome rotation.Outcome // empty when the server takes the version that is wanted
	answer  string           // the last one, fit to be shown
	err     error            // the same
}

// probeClient asks about one client: with its roles one after the other, until the wanted version is taken with one of them.
// Of several roles any that proves a version proves it, for one may be mistyped.
func (m *maintainer) probeClient(ctx context.Context, s *keySnapshot, client rotation.Client, c *configuredClient) (probed, error) {
	wanted, _ := s.rotation().Wanted()
	best := probed{outcome: rotation.Broken}
	turn := s.rotation().Of(client).Probe.Count
	for i := range min(len(c.roles), maxRolesProbed) {
		with := c.roles[i]
		if len(c.roles) > maxRolesProbed {
			with = c.roles[(turn*maxRolesProbed+i)%len(c.roles)]
		}
		result, err := m.probeRole(ctx, s, client, with)
		if err != nil {
			return probed{}, err
		}
		switch {
		case result.news[wanted.Number].taken, result.outcome == rotation.Unanswered:
			return result, nil
		case result.outcome == rotation.Rejected && best.outcome == rotation.Broken, best.err == nil:
			best = result
		}
	}
	return best, nil
}

// probeRole asks with one role about one version after the other, the wanted one first, until one is taken and nothing is
// left to ask: before a version is destroyed, the client has to take what it will sign with afterwards.
func (m *maintainer) probeRole(ctx context.Context, s *keySnapshot, client rotation.Client, c *roleConfig) (probed, error) {
	key, result := s.rotation(), probed{news: heardOf{}}
	taken := false
	for _, number := range key.ProbeOrder() {
		v := s.version(number)
		one, cancel := context.WithTimeout(ctx, probeWait)
		_, requestedAt, err := m.minter.request(one, c, s.name, v)
		cancel()
		remote := (*redox.Error)(nil)
		switch {
		case err == nil:
			taken = true
			result.news[number] = heard{taken: true, at: requestedAt}
			if key, _, err = key.Apply(result.news.answered(client, m.now()), m.now().Wall); err != nil {
				return probed{}, err
			}
		case isRejection(err):
			result.news[number] = heard{at: m.now()}
			result.err, result.answer, result.outcome = err, err.Error(), rotation.Rejected
		case errors.As(err, &remote):
			result.err, result.answer, result.outcome = err, err.Error(), rotation.Unanswered
		default:
			return probed{}, err
		}
		if result.outcome == rotation.Unanswered || taken && key.Stays(number, m.now().Wall) && !key.Needs(client, m.now().Wall) {
			break
		}
	}
	wanted, _ := key.Wanted()
	switch {
	case !taken && result.outcome == rotation.Rejected:
		result.news, result.outcome = result.news.doubted(), rotation.Broken // nothing tells the rejections from a broken client
	case !taken:
		result.news = nil
	case result.outcome == rotation.Rejected && result.news[wanted.Number].taken:
		result.outcome, result.answer, result.err = "", "", nil // an older version is rejected, which nobody waits for
	}
	return result, nil
}

// notServed returns why a pending version can't be known to Redox yet: with registration=jwks_url and public_jwks_url, when
// what is served there does not hold it. Nil when nothing speaks against a probe.
func (m *maintainer) notServed(ctx context.Context, clients *keyClients, k *signingKey) error {
	pending := k.in(rotation.Pending)
	if pending == nil || k.Registration != registrationJWKSURL || k.PublicJWKSURL == "" || len(clients.Clients) == 0 {
		return nil
	}
	c := clients.byClient[clients.Clients[0].Client].roles[0]
	connection, err := m.minter.connections.get(c.CAPEM, m.now)
	if err != nil {
		return err
	}
	served, err := connection.ReadJWKSet(ctx, k.PublicJWKSURL, min(c.RequestTimeout, 10*time.Second))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(served, hasKID(pending.KID)) {
		return fieldError("public_jwks_url", "a cache in between may hold the JWKS for a minute; if it stays, check that the URL leads to jwks/"+
			k.name+" or jwks of this mount", "the URL does not serve the kid %s yet", pending.KID)
	}
	return nil
}

// unserved is why the JWKS URL of a key does not serve its pending version, by key; memory only.
type unserved struct {
	mu    sync.Mutex
	byKey map[string]string
}

// note remembers a problem, or that there is none.
func (u *unserved) note(key, problem string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byKey == nil {
		u.byKey = map[string]string{}
	}
	u.byKey[key] = problem
	if problem == "" {
		delete(u.byKey, key)
	}
}

func (u *unserved) of(key string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.byKey[key]
}

// ask probes the clients of a key that something waits for, whatever the pauses, and does what may be done then. It is for a
// request that waits.
func (m *maintainer) ask(ctx context.Context, name string) (after *keySnapshot, clients *keyClients, done *probes, err error) {
	s, err := m.keys.existing(ctx, "name", name)
	if err != nil {
		return nil, nil, nil, err
	}
	if clients, err = m.directory.of(ctx, name); err != nil {
		return nil, nil, nil, err
	}
	if s.unusable == nil {
		if err := m.register(ctx, s, clients.roleConfigs(), onAsked); err != nil {
			return nil, nil, nil, err
		}
	}
	if done, err = m.probe(ctx, s, clients, s.rotation().Undecided(clients.Configuration, m.now().Wall), verbBudget); err != nil {
		return nil, nil, nil, err
	}
	after, err = m.keys.settle(ctx, name, m.directory, done.events)
	return after, clients, done, err
}

// activate asks the server now for every client that is configured to use a key whether it takes the pending version, and
// promotes that if it may. It returns the key before and after. Without a pending version it changes nothing.
func (m *maintainer) activate(ctx context.Context, name string) (before, after *keySnapshot, err error) {
	before, err = m.keys.existing(ctx, "name", name)
	if err != nil {
		return nil, nil, err
	}
	if before.in(rotation.Pending) == nil {
		if before.in(rotation.Active) == nil {
			return nil, nil, explain(before.signingKey, rotation.ErrNoPending)
		}
		return before, before, nil
	}
	after, clients, done, err := m.ask(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if after.in(rotation.Pending) != nil {
		return nil, nil, m.notPromoted(after, clients, done)
	}
	return before, after, nil
}

// notPromoted explains why the pending version was not promoted: a 400 where the server rejects it or nobody can be asked,
// else a 502 or 504 where it gave no answer.
func (m *maintainer) notPromoted(s *keySnapshot, clients *keyClients, done *probes) error {
	stays := fmt.Sprintf("key %q stays as it is: ", s.name)
	blockers, proven := s.rotation().PromotionBlockers(clients.Configuration, m.now().Wall)
	if len(blockers) == 0 && !proven {
		if len(clients.Clients) == 0 {
			return fieldError("name", "name the key in config or a role; or, where Vault only hands out assertions, add force=true",
				"%sno client ID uses the key, so there is nobody to ask Redox for", stays)
		}
		return fieldError("name", "mend or enable one of them (see keys/"+s.name+"/clients), then activate again",
			"%sRedox takes no version from any client ID that is enabled%s", stays, answersOf(s, clients))
	}
	rejected := slices.ContainsFunc(blockers, func(b rotation.Blocker) bool { return b.Reason == rotation.IsRejected })
	if rejected {
		return fieldError("name", "see to it that Redox knows pending_public_jwk, then activate again",
			"%sRedox does not accept the pending version for every client ID: %s", stays, reasons(blockers))
	}
	if user := (*userError)(nil); errors.As(done.noWord, &user) {
		return &userError{user.field, stays + user.problem, user.wayOut}
	}
	progress := ""
	if total := len(clients.Clients); total > 1 {
		progress = fmt.Sprintf("; %d of %d client IDs are still to be asked, what was answered is kept: activate again", len(blockers), total)
	}
	status := http.StatusBadGateway
	answer := "Redox was not asked about every client ID in time"
	if done.noWord != nil {
		answer = m.words(done.noWord)
	}
	remote := (*redox.Error)(nil)
	if errors.Is(done.noWord, context.DeadlineExceeded) || errors.As(done.noWord, &remote) && remote.Kind == redox.Timeout {
		status = http.StatusGatewayTimeout
	}
	return &statusError{status, stays + answer + progress}
}

// answersOf returns what Redox has said of the clients of a key, for an error.
func answersOf(s *keySnapshot, clients *keyClients) string {
	var blockers []rotation.Blocker
	for _, client := range clients.Clients {
		if p := s.rotation().Of(client.Client).Probe; client.Enabled && p.Answer != "" {
			blockers = append(blockers, rotation.Blocker{Client: client.Client, Reason: rotation.IsBroken, Probe: p})
		}
	}
	if len(blockers) == 0 {
		return ""
	}
	return ": " + reasons(blockers)
}

// reasons says why clients stand in the way, those with the same reason together.
func reasons(blockers []rotation.Blocker) string {
	clientIDs := map[string][]string{} // by answer: most have the same
	for _, b := range blockers {
		answer := b.Probe.Answer
		if answer == "" {
			answer = "not asked yet"
		}
		clientIDs[answer] = append(clientIDs[answer], b.ClientID)
	}
	var words []string
	for _, answer := range slices.Sorted(maps.Keys(clientIDs)) {
		words = append(words, "client ID "+someOf(clientIDs[answer])+": "+answer)
	}
	return strings.Join(words, "; ")
}

// letGo lets versions go that an operator wants to be rid of, if every client takes what it will sign with afterwards.
func (m *maintainer) letGo(ctx context.Context, name string, event rotation.Event) (*keySnapshot, error) {
	applied, err := m.keys.apply(ctx, name, event)
	if err != nil {
		return nil, err
	}
	after, _, _, err := m.ask(ctx, name)
	if err != nil { // the grace is over all the same: the next pass goes on
		m.failed(ctx, "the clients of a key could not be asked", name, err)
		return applied, nil
	}
	return after, nil
}
