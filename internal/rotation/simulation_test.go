// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const grace = 24 * time.Hour

// simulation is a key, Redox, and people who do with both what people do, in random order.
type simulation struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	history []string // the last steps, for a failure's sake

	versions   []Version
	acceptance Acceptance
	redox      map[User]map[string]bool // the kids that Redox holds of each client
	configured map[User]bool
	made       int
}

func (s *simulation) fail(format string, arguments ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\nversions: %+v\nacceptance: %+v\nredox: %v\nlast steps: %q", fmt.Sprintf(format, arguments...),
		s.versions, s.acceptance, s.redox, s.history)
}

// mint signs in the engine's order until Redox takes a version, and records the outcome. It gives the number, 0 for
// none.
func (s *simulation) mint(user User) int {
	wanted := Wanted(s.versions)
	for _, number := range Order(s.versions, &s.acceptance, user) {
		v := Get(s.versions, number)
		if !v.Held() {
			s.fail("%v is to sign with version %d, which is destroyed", user, number)
		}
		if s.redox[user][v.KeyID] {
			s.acceptance.Minted(s.versions, user, number, s.now)
			return number
		}
		if number == wanted.Number {
			s.acceptance.Refused(user, number, "Public key not found", s.now)
		}
	}
	return 0
}

// registered says whether Redox holds the version that the user's last token was minted with: who can mint.
func (s *simulation) registered(user User) bool {
	standing := s.acceptance.standing(user)
	if standing == nil {
		return false
	}
	v := Get(s.versions, standing.Accepted)
	return v != nil && v.Held() && s.redox[user][v.KeyID]
}

// try tries the wanted version for a user, as the periodic work does.
func (s *simulation) try(user User) {
	wanted := Wanted(s.versions)
	if s.redox[user][wanted.KeyID] {
		s.acceptance.Minted(s.versions, user, wanted.Number, s.now)
	} else {
		s.acceptance.Refused(user, wanted.Number, "Public key not found", s.now)
	}
}

func (s *simulation) user() (User, bool) {
	if len(s.configured) == 0 {
		return User{}, false
	}
	users := make([]User, 0, len(s.configured))
	for user := range s.configured {
		users = append(users, user)
	}
	slices.SortFunc(users, func(a, b User) int { return strings.Compare(a.ClientID, b.ClientID) })
	return users[s.random.IntN(len(users))], true
}

// step does one random thing. engine says that it was the engine's own doing, which must never cause an outage.
func (s *simulation) step() (what string, engine bool) {
	user, known := s.user()
	number := 1 + s.random.IntN(len(s.versions))
	switch s.random.IntN(16) {
	case 0:
		s.made++
		next := Version{KeyID: fmt.Sprintf("kid-%d", s.made), CreatedTime: s.now}
		versions, _, err := Add(s.versions, next, "test")
		if err != nil {
			return "rotate, refused", true
		}
		s.versions = versions
		return "rotate", true
	case 1, 2, 3:
		if known {
			return fmt.Sprintf("mint %v: %d", user, s.mint(user)), true
		}
	case 4, 5:
		for _, due := range s.acceptance.Due(s.versions, s.now) {
			s.try(due)
		}
		return "periodic trials", true
	case 6, 7:
		versions, transitions := Settle(s.versions, &s.acceptance, grace, s.now)
		s.checkSettled(versions, transitions)
		s.versions = versions
		return fmt.Sprintf("settle: %v", transitions), true
	case 8:
		s.now = s.now.Add(time.Duration(s.random.Int64N(int64(30 * time.Hour))))
		return "time passes", true
	case 9: // add the new JWK beside the old one
		if known {
			s.redox[user][Wanted(s.versions).KeyID] = true
			return fmt.Sprintf("register the wanted kid for %v", user), false
		}
	case 10: // replace the JWK set by any version's
		if known {
			s.redox[user] = map[string]bool{Get(s.versions, number).KeyID: true}
			return fmt.Sprintf("replace the JWK set of %v by %d", user, number), false
		}
	case 11:
		if s.random.IntN(3) == 0 {
			if versions, _, err := Abandon(s.versions, &s.acceptance, s.now); err == nil {
				s.versions = versions
			}
			return "abandon", true
		}
		if versions, _, err := Retire(s.versions, &s.acceptance, number, s.now); err == nil {
			s.versions = versions
		}
		return fmt.Sprintf("retire %d", number), true
	case 12:
		if s.random.IntN(4) == 0 {
			if versions, _, err := Force(s.versions, &s.acceptance, s.now); err == nil {
				s.versions = versions
			}
			return "force", false
		}
	case 13:
		if s.random.IntN(8) == 0 {
			if versions, _, err := Compromise(s.versions, number, s.now); err == nil {
				s.versions = versions
			}
			if Wanted(s.versions) == nil { // the next rotation mends that
				s.made++
				s.versions, _, _ = Add(s.versions, Version{KeyID: fmt.Sprintf("kid-%d", s.made), CreatedTime: s.now}, "test")
			}
			return fmt.Sprintf("compromise %d", number), false
		}
	case 14: // a team comes
		if len(s.configured) < 4 {
			user := User{ClientID: fmt.Sprintf("client-%03d", len(s.redox)), TokenURL: "https://redox.test/token"}
			s.configured[user] = true
			s.redox[user] = map[string]bool{Get(s.versions, number).KeyID: true}
			return fmt.Sprintf("%v is configured", user), false
		}
	case 15: // a team goes
		if known && s.random.IntN(4) == 0 {
			delete(s.configured, user)
			s.acceptance.Prune(s.versions, func(u User) bool { return s.configured[u] })
			return fmt.Sprintf("%v is gone", user), false
		}
	}
	return "nothing", true
}

// checkSettled looks at what Settle has done of its own.
func (s *simulation) checkSettled(versions []Version, transitions []Transition) {
	for _, t := range transitions {
		switch t.To {
		case Active:
			for _, standing := range s.acceptance.Standings {
				if standing.Accepted != t.Version {
					s.fail("version %d was promoted, but %v has not accepted it", t.Version, standing.User)
				}
			}
		case Destroyed:
			if v := Get(s.versions, t.Version); s.now.Sub(v.RetiredTime) < grace {
				s.fail("version %d was destroyed within its grace period", t.Version)
			}
			if last, used := s.acceptance.RetiredUse[t.Version]; used && s.now.Sub(last) < grace {
				s.fail("version %d was destroyed though it minted %s ago", t.Version, s.now.Sub(last))
			}
		}
	}
	if again, more := Settle(versions, &s.acceptance, grace, s.now); len(more) > 0 {
		s.fail("settling twice goes on: %v %v", again, more)
	}
}

var rank = map[State]int{Pending: 0, Active: 1, Retired: 2, Destroyed: 3}

// check looks at what must hold after each step.
func (s *simulation) check(before []Version) {
	counts := map[State]int{}
	kids := map[string]bool{}
	for i, v := range s.versions {
		counts[v.State]++
		if kids[v.KeyID] || v.Number != i+1 {
			s.fail("kids or numbers are not unique and rising")
		}
		kids[v.KeyID] = true
		if i < len(before) && rank[v.State] < rank[before[i].State] {
			s.fail("version %d went back from %s to %s", v.Number, before[i].State, v.State)
		}
		if (v.State == Destroyed) == v.DestroyedTime.IsZero() {
			s.fail("version %d is %s, destroyed at %v", v.Number, v.State, v.DestroyedTime)
		}
	}
	if len(s.versions) < len(before) || counts[Pending] > 1 || counts[Active] > 1 || counts[Active] == 0 {
		s.fail("the states don't fit together: %v", counts)
	}
	for _, standing := range s.acceptance.Standings {
		if !s.configured[standing.User] {
			s.fail("%v is known, but gone", standing.User)
		}
	}
	for user := range s.configured {
		order := Order(s.versions, &s.acceptance, user)
		held := 0
		for _, v := range s.versions {
			if v.Held() {
				held++
			}
		}
		if len(order) != held {
			s.fail("the order for %v leaves a version out: %v", user, order)
		}
	}
}

// TestNoOutage runs random histories, in which people register, replace, force and compromise, teams come and go, and
// time passes. Nothing that the engine does of its own ever takes a version away from a user who can mint with it.
func TestNoOutage(t *testing.T) {
	const histories, steps = 2000, 1000
	promoted, destroyed, fellBack := 0, 0, 0
	for seed := range uint64(histories) {
		s := &simulation{
			t: t, random: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			redox: map[User]map[string]bool{}, configured: map[User]bool{},
		}
		s.versions, _, _ = Add(nil, Version{KeyID: "kid-0", CreatedTime: s.now}, "test")
		for range steps {
			before := slices.Clone(s.versions)
			could := map[User]bool{}
			for user := range s.configured {
				could[user] = s.registered(user)
			}
			what, engine := s.step()
			s.history = append(s.history[max(0, len(s.history)-20):], what)
			s.check(before)
			for user, could := range could {
				if could && engine && !s.canMint(user) {
					s.fail("%s took the key away from %v", what, user)
				}
			}
			for i, v := range before {
				switch after := s.versions[i].State; {
				case v.State == Pending && after == Active:
					promoted++
				case v.State == Retired && after == Destroyed:
					destroyed++
				}
			}
			for _, standing := range s.acceptance.Standings {
				if v := Get(s.versions, standing.Accepted); v != nil && v.State == Retired {
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

// canMint says whether a mint would succeed now, without recording it.
func (s *simulation) canMint(user User) bool {
	return slices.ContainsFunc(Order(s.versions, &s.acceptance, user), func(number int) bool {
		return s.redox[user][Get(s.versions, number).KeyID]
	})
}
