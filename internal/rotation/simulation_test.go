// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const grace = 24 * time.Hour

// simulation is a key, Redox, and people who do to both what people do, in random order.
type simulation struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	history []string // the last steps, for a failure's sake

	key        Key
	redox      map[Client]map[string]bool // the kids that Redox holds of each client
	configured map[Client]bool
	made       int

	applying func(Key, Event) // looks on before each event, if set
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{
		t: t, random: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		key: Key{Grace: grace}, redox: map[Client]map[string]bool{}, configured: map[Client]bool{},
	}
	s.add()
	return s
}

// apply replaces the key by what an event makes of it, if the event is possible.
func (s *simulation) apply(e Event) ([]Transition, error) {
	if s.applying != nil {
		s.applying(s.key, e)
	}
	next, transitions, err := s.key.Apply(e, s.now)
	if err == nil {
		s.key = next
	}
	return transitions, err
}

// add makes a version with a kid of its own.
func (s *simulation) add() error {
	_, err := s.apply(Add{Version{KID: fmt.Sprintf("kid-%d", s.made), CreatedTime: s.now}, "test"})
	s.made++
	return err
}

// kid returns the kid of a version that there is.
func (s *simulation) kid(number int) string {
	v, found := s.key.Get(number)
	if !found {
		s.fail("there is no version %d", number)
	}
	return v.KID
}

// wanted returns the version that is to be probed. There always is one.
func (s *simulation) wanted() Version {
	wanted, found := s.key.Wanted()
	if !found {
		s.fail("no version is wanted")
	}
	return wanted
}

func (s *simulation) fail(format string, arguments ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nkey: %+v\nredox: %v\nlast steps: %q", fmt.Sprintf(format, arguments...), s.key, s.redox, s.history)
}

// mint signs in the engine's order until Redox takes a version, and records the outcome. It returns the number, 0 for
// none.
func (s *simulation) mint(client Client) int {
	for _, number := range s.key.Order(client) {
		v, _ := s.key.Get(number)
		if !v.Held() {
			s.fail("%v is to sign with version %d, which is destroyed", client, number)
		}
		if s.redox[client][v.KID] {
			_, _ = s.apply(Accepted{client, number})
			return number
		}
		if number == s.wanted().Number {
			_, _ = s.apply(Rejected{client, number, "Public key not found"})
		}
	}
	return 0
}

// registered reports whether Redox holds the version that the client's last token was minted with: such a
// client can mint.
func (s *simulation) registered(client Client) bool {
	standing := s.key.standing(client)
	if standing == nil {
		return false
	}
	v, found := s.key.Get(standing.Accepted)
	return found && v.Held() && s.redox[client][v.KID]
}

// probe asks Redox for a token with the wanted version for a client, as the periodic work does.
func (s *simulation) probe(client Client) {
	wanted := s.wanted()
	if s.redox[client][wanted.KID] {
		_, _ = s.apply(Accepted{client, wanted.Number})
	} else {
		_, _ = s.apply(Rejected{client, wanted.Number, "Public key not found"})
	}
}

// configuredClients returns them in an order that does not depend on the map's.
func (s *simulation) configuredClients() []Client {
	return slices.SortedFunc(maps.Keys(s.configured), func(a, b Client) int { return strings.Compare(a.ClientID, b.ClientID) })
}

func (s *simulation) client() (Client, bool) {
	clients := s.configuredClients()
	if len(clients) == 0 {
		return Client{}, false
	}
	return clients[s.random.IntN(len(clients))], true
}

// step does one random thing. engine is true when it was the engine's own doing, which must never cause an outage.
func (s *simulation) step() (what string, engine bool) {
	client, known := s.client()
	number := 1 + s.random.IntN(len(s.key.Versions))
	switch s.random.IntN(16) {
	case 0:
		if s.add() != nil {
			return "rotate, refused", true
		}
		return "rotate", true
	case 1, 2, 3:
		if known {
			return fmt.Sprintf("mint %v: %d", client, s.mint(client)), true
		}
	case 4, 5:
		for _, due := range s.key.Due(s.now) {
			s.probe(due)
		}
		return "periodic probes", true
	case 6, 7:
		before := s.key
		transitions, _ := s.apply(Settle{})
		s.checkSettled(before, transitions)
		return fmt.Sprintf("settle: %v", transitions), true
	case 8:
		s.now = s.now.Add(time.Duration(s.random.Int64N(int64(30 * time.Hour))))
		return "time passes", true
	case 9: // add the new JWK beside the old one
		if known {
			s.redox[client][s.wanted().KID] = true
			return fmt.Sprintf("register the wanted kid for %v", client), false
		}
	case 10: // replace the JWK set by any version's
		if known {
			s.redox[client] = map[string]bool{s.kid(number): true}
			return fmt.Sprintf("replace the JWK set of %v by %d", client, number), false
		}
	case 11:
		if s.random.IntN(3) == 0 {
			_, _ = s.apply(Abandon{})
			return "abandon", true
		}
		_, _ = s.apply(Retire{number})
		return fmt.Sprintf("retire %d", number), true
	case 12:
		if s.random.IntN(4) == 0 {
			_, _ = s.apply(Force{})
			return "force", false
		}
	case 13:
		if s.random.IntN(8) == 0 {
			_, _ = s.apply(Compromise{number})
			if _, found := s.key.Wanted(); !found { // the next rotation mends that
				_ = s.add()
			}
			return fmt.Sprintf("compromise %d", number), false
		}
	case 14: // a team comes
		if len(s.configured) < 4 {
			client := Client{ClientID: fmt.Sprintf("client-%03d", len(s.redox)), TokenURL: "https://redox.test/token"}
			s.configured[client] = true
			s.redox[client] = map[string]bool{s.kid(number): true}
			return fmt.Sprintf("%v is configured", client), false
		}
	case 15: // a team goes
		if known && s.random.IntN(4) == 0 {
			delete(s.configured, client)
			_, _ = s.apply(Prune{s.configuredClients()})
			return fmt.Sprintf("%v is gone", client), false
		}
	}
	return "nothing", true
}

// checkSettled looks at what Settle has done of its own.
func (s *simulation) checkSettled(before Key, transitions []Transition) {
	for _, t := range transitions {
		switch t.To {
		case Active:
			for _, standing := range s.key.Clients.Standings {
				if standing.Accepted != t.Version {
					s.fail("version %d was promoted, but %v has not accepted it", t.Version, standing.Client)
				}
			}
		case Destroyed:
			if v, _ := before.Get(t.Version); s.now.Sub(v.RetiredTime) < grace {
				s.fail("version %d was destroyed within its grace period", t.Version)
			}
			if last, used := s.key.Clients.RetiredUse[t.Version]; used && s.now.Sub(last) < grace {
				s.fail("version %d was destroyed though it minted %s ago", t.Version, s.now.Sub(last))
			}
		}
	}
	if again, more, _ := s.key.Apply(Settle{}, s.now); len(more) > 0 {
		s.fail("settling twice goes on: %v %v", again, more)
	}
}

var rank = map[State]int{Pending: 0, Active: 1, Retired: 2, Destroyed: 3}

// check looks at what must hold after each step.
func (s *simulation) check(before []Version) {
	counts := map[State]int{}
	kids := map[string]bool{}
	for i, v := range s.key.Versions {
		counts[v.State]++
		if kids[v.KID] || v.Number != i+1 {
			s.fail("kids or numbers are not unique and rising")
		}
		kids[v.KID] = true
		if i < len(before) && rank[v.State] < rank[before[i].State] {
			s.fail("version %d went back from %s to %s", v.Number, before[i].State, v.State)
		}
		if (v.State == Destroyed) == v.DestroyedTime.IsZero() {
			s.fail("version %d is %s, destroyed at %v", v.Number, v.State, v.DestroyedTime)
		}
	}
	if len(s.key.Versions) < len(before) || counts[Pending] > 1 || counts[Active] > 1 || counts[Active] == 0 {
		s.fail("the states don't fit together: %v", counts)
	}
	for _, standing := range s.key.Clients.Standings {
		if !s.configured[standing.Client] {
			s.fail("%v is known, but gone", standing.Client)
		}
	}
	for client := range s.configured {
		order := s.key.Order(client)
		held := 0
		for _, v := range s.key.Versions {
			if v.Held() {
				held++
			}
		}
		if len(order) != held {
			s.fail("the order for %v leaves a version out: %v", client, order)
		}
	}
}

// TestNoOutage runs random histories, in which people register, replace, force and compromise, teams come and go, and
// time passes. Nothing that the engine does of its own ever takes a version away from a client that can mint with it.
func TestNoOutage(t *testing.T) {
	const histories, steps = 2000, 1000
	promoted, destroyed, fellBack := 0, 0, 0
	for seed := range uint64(histories) {
		s := newSimulation(t, seed)
		for range steps {
			before := slices.Clone(s.key.Versions)
			could := map[Client]bool{}
			for client := range s.configured {
				could[client] = s.registered(client)
			}
			what, engine := s.step()
			s.history = append(s.history[max(0, len(s.history)-20):], what)
			s.check(before)
			for client, could := range could {
				if could && engine && !s.canMint(client) {
					s.fail("%s took the key away from %v", what, client)
				}
			}
			for i, v := range before {
				switch after := s.key.Versions[i].State; {
				case v.State == Pending && after == Active:
					promoted++
				case v.State == Retired && after == Destroyed:
					destroyed++
				}
			}
			for _, standing := range s.key.Clients.Standings {
				if v, found := s.key.Get(standing.Accepted); found && v.State == Retired {
					fellBack++
				}
			}
		}
	}
	t.Logf("%d steps: %d promotions, %d destructions, %d moments on a retired version", histories*steps, promoted, destroyed, fellBack)
	if promoted == 0 || destroyed == 0 || fellBack == 0 {
		t.Error("the histories don't show what they are for")
	}
}

// canMint reports whether a mint would succeed now, without recording it.
func (s *simulation) canMint(client Client) bool {
	return slices.ContainsFunc(s.key.Order(client), func(number int) bool { return s.redox[client][s.kid(number)] })
}

// TestApplyIsPure runs random histories, too. An event leaves the key and itself as they were, comes to the same each
// time, and what it made shares nothing with the key: not even when all of it is overwritten.
func TestApplyIsPure(t *testing.T) {
	const histories, steps = 100, 300
	events := map[string]bool{}
	for seed := range uint64(histories) {
		s := newSimulation(t, seed)
		s.applying = func(k Key, e Event) {
			events[fmt.Sprintf("%T", e)] = true
			keyBefore, eventBefore := k.clone(), e
			if prune, ok := e.(Prune); ok {
				eventBefore = Prune{slices.Clone(prune.Configured)}
			}
			made, transitions, err := k.Apply(e, s.now)
			again, transitionsAgain, errAgain := k.Apply(e, s.now)
			if !reflect.DeepEqual(made, again) || !slices.Equal(transitions, transitionsAgain) || fmt.Sprint(err) != fmt.Sprint(errAgain) {
				s.fail("%T makes %+v (%v), and then %+v (%v)", e, made, err, again, errAgain)
			}
			overwrite(again)
			if !reflect.DeepEqual(k, keyBefore) {
				s.fail("%T has changed the key, or what was made of it shares memory with it", e)
			}
			if !reflect.DeepEqual(e, eventBefore) {
				s.fail("%T has changed itself", e)
			}
			overwrite(k.clone()) // the copy above is a copy
			if !reflect.DeepEqual(k, keyBefore) {
				s.fail("a clone shares memory with the key")
			}
		}
		for range steps {
			what, _ := s.step()
			s.history = append(s.history[max(0, len(s.history)-20):], what)
			s.checkQueriesArePure()
			for _, e := range []Event{Activate{}, RetireAll{}} { // which no history takes
				s.applying(s.key, e)
			}
		}
	}
	if len(events) != 11 {
		t.Errorf("the histories had only %v", slices.Sorted(maps.Keys(events)))
	}
}

// checkQueriesArePure overwrites what queries return: that must not change the key.
func (s *simulation) checkQueriesArePure() {
	before := s.key.clone()
	for client := range s.redox {
		clear(s.key.Order(client))
	}
	clear(s.key.Waiting())
	clear(s.key.Due(s.now))
	for _, v := range before.Versions {
		clear(s.key.Needs(v.Number))
		s.key.GraceEnd(v)
	}
	if !reflect.DeepEqual(s.key, before) {
		s.fail("a query has changed the key, or returned a part of it: %+v", before)
	}
}

// overwrite changes all memory that a key refers to.
func overwrite(k Key) {
	clear(k.Versions[:cap(k.Versions)])
	clear(k.Clients.Standings[:cap(k.Clients.Standings)])
	for number := range k.Clients.RetiredUse {
		k.Clients.RetiredUse[number] = time.Time{}
	}
}
