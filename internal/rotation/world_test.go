// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/world"
)

// The rules alone as internal/world explores them: a Key, and around it no more than who asks the server in which order.
// Without storage and requests it goes deeper than the whole engine does.

type pure struct {
	scenario *world.Scenario
	hooks    world.Hooks
	state    pureState
}

// pureState is the state of a pure engine. Of the roles it has what is configured.
type pureState struct {
	key       rotation.Key
	roles     map[int]world.Role
	left, now time.Time
	elsewhere bool // another token URL is configured
}

const (
	grace = 24 * time.Hour
	year  = 365 * 24 * time.Hour
)

func (e *pure) New(s *world.Scenario) error {
	e.scenario = s
	e.state = pureState{key: rotation.Key{Grace: grace}, roles: map[int]world.Role{}, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for n, role := range s.Roles {
		if !role.Later {
			e.state.roles[n] = world.Role{Client: role.Client, Mistyped: role.Mistyped}
		}
	}
	return e.apply(rotation.Add{Version: rotation.Version{KID: world.KIDName(1), CreatedTime: e.state.now}})
}

func (e *pure) Load(s world.Snapshot) {
	e.state = *s.(*pureState)
	e.state.roles = maps.Clone(e.state.roles)
}

func (e *pure) Save() world.Snapshot {
	saved := e.state
	saved.roles = maps.Clone(saved.roles)
	return &saved
}

// Fingerprint tells times apart as far as the rules do.
func (s *pureState) Fingerprint() string {
	var b strings.Builder
	age := func(t time.Time) string {
		switch d := s.now.Sub(t); {
		case t.IsZero():
			return "never"
		case d >= grace:
			return "old"
		case d <= -grace:
			return "far ahead"
		case d < 0:
			return "ahead"
		case d < time.Minute, d < 5*time.Minute, d < 15*time.Minute, d < time.Hour:
			return d.Truncate(time.Minute).String()
		}
		return "hours"
	}
	for _, v := range s.key.Versions {
		fmt.Fprint(&b, v.Number, v.State, v.KID, v.Forced, v.GraceEnded, v.Compromised, age(v.RetiredTime), " ")
	}
	for _, digest := range slices.Sorted(maps.Keys(s.key.Clients)) {
		r := s.key.Clients[digest]
		fmt.Fprint(&b, digest, r.Recorded, r.Probe.Version, r.Probe.Outcome, min(r.Probe.Count, 11), age(r.Probe.FirstTime), age(r.Probe.LastTime),
			r.Probe.NextTime.Sub(s.now).Truncate(time.Minute), " ")
		for _, v := range r.Verdicts {
			fmt.Fprint(&b, v.Version, v.Taken, age(v.Time), " ")
		}
	}
	fmt.Fprint(&b, s.roles, age(s.left), s.elsewhere) // maps are printed sorted
	return b.String()
}

func (e *pure) apply(events ...rotation.Event) error {
	next, _, err := e.state.key.Replay(events, e.state.now)
	if err == nil {
		e.state.key = next
	}
	return err
}

func (e *pure) client(role world.Role) rotation.Client {
	url := "https://redox.example/token"
	if e.state.elsewhere {
		url = "https://other.example/token"
	}
	return rotation.Client{ClientID: world.ClientName(role.Client), TokenURL: url}
}

// configuration is what the roles resolve to.
func (e *pure) configuration() rotation.Configuration {
	c := rotation.Configuration{LeftTime: e.state.left}
	enabled := map[rotation.Client]bool{}
	for _, role := range e.state.roles {
		if role.Unreadable {
			c.Incomplete = true
			continue
		}
		client := e.client(role)
		enabled[client] = enabled[client] || !role.Disabled
	}
	for client, is := range enabled {
		c.Clients = append(c.Clients, rotation.Configured{Client: client, Enabled: is})
	}
	slices.SortFunc(c.Clients, func(a, b rotation.Configured) int { return strings.Compare(a.ClientID, b.ClientID) })
	return c
}

// tried is what came of asking with one role.
type tried struct {
	answered        rotation.Answered
	taken, noAnswer bool
}

// try asks the server with a role about one version after the other, until enough reports that it is.
func (e *pure) try(role world.Role, order []int, enough func(rotation.Key, int) bool) tried {
	t := tried{answered: rotation.Answered{Client: e.client(role)}}
	scope := ""
	if role.Mistyped {
		scope = world.MistypedScope
	}
	after := e.state.key
	for _, number := range order {
		v, _ := e.state.key.Get(number)
		switch e.hooks.Ask(0, t.answered.Client.ClientID, v.KID, scope) {
		case world.NoAnswer:
			t.noAnswer = true
			return t
		case world.Taken:
			t.taken = true
			t.answered.Verdicts = append(t.answered.Verdicts, rotation.Verdict{Version: number, Taken: true, Time: e.state.now})
			after, _, _ = after.Apply(t.answered, e.state.now)
			if enough(after, number) {
				return t
			}
		default:
			t.answered.Verdicts = append(t.answered.Verdicts, rotation.Verdict{Version: number, Time: e.state.now})
		}
	}
	if !t.taken { // nothing tells the rejections from a client that is broken
		t.answered.Verdicts, t.answered.Doubted = nil, order
	}
	return t
}

// mint reads a token of a role.
func (e *pure) mint(role world.Role) error {
	order := e.state.key.Order(e.client(role))
	t := e.try(role, order, func(rotation.Key, int) bool { return true })
	if t.noAnswer {
		return nil
	}
	return e.apply(t.answered)
}

// probe asks about clients, each with its roles one after the other, and settles.
func (e *pure) probe(clients []rotation.Client) error {
	for _, client := range clients {
		wanted, _ := e.state.key.Wanted()
		best, outcome := tried{}, rotation.Broken
		for _, n := range slices.Sorted(maps.Keys(e.state.roles)) {
			role := e.state.roles[n]
			if role.Unreadable || e.client(role) != client {
				continue
			}
			t := e.try(role, e.state.key.ProbeOrder(), func(after rotation.Key, number int) bool {
				return after.Stays(number, e.state.now) && !after.Needs(client, e.state.now)
			})
			takesWanted := slices.ContainsFunc(t.answered.Verdicts, func(v rotation.Verdict) bool { return v.Version == wanted.Number && v.Taken })
			if t.noAnswer || takesWanted {
				best, outcome = t, ""
				if t.noAnswer {
					outcome = rotation.Unanswered
				}
				break
			}
			if t.taken && outcome == rotation.Broken {
				best, outcome = t, rotation.Rejected
			} else if best.answered.Client.ClientID == "" {
				best = t
			}
		}
		if err := e.apply(best.answered, rotation.Probed{Client: client, Outcome: outcome, Answer: "no"}); err != nil {
			return err
		}
		if outcome == rotation.Unanswered {
			break
		}
	}
	return e.apply(rotation.Settle{Configuration: e.configuration()})
}

func (e *pure) Do(op world.Op, hooks world.Hooks) (world.Report, error) {
	if hooks.CrashAfter >= 0 || hooks.Interrupt != nil {
		return world.Report{}, nil // there is nothing that could be cut off
	}
	e.hooks = hooks
	if err := e.act(op); err != nil {
		return world.Report{Answer: err.Error()}, nil
	}
	return world.Report{}, nil
}

func (e *pure) act(op world.Op) error {
	s := &e.state
	role := s.roles[op.Role]
	now := func() error { return e.probe(s.key.Undecided(e.configuration(), s.now)) }
	both := func(first rotation.Event) error {
		if err := e.apply(first); err != nil {
			return err
		}
		return now()
	}
	switch op.Kind {
	case world.WriteRole:
		s.roles[op.Role] = world.Role{Client: e.scenario.Roles[op.Role].Client, Mistyped: e.scenario.Roles[op.Role].Mistyped}
	case world.DeleteRole:
		delete(s.roles, op.Role)
		s.left = s.now
	case world.Disable, world.Enable, world.Spoil:
		role.Disabled = op.Kind == world.Disable || role.Disabled && op.Kind == world.Spoil
		role.Unreadable = op.Kind == world.Spoil
		s.roles[op.Role] = role
	case world.Repoint:
		s.elsewhere = !s.elsewhere
		s.left = s.now
	case world.Hour:
		s.now = s.now.Add(61 * time.Minute)
	case world.Day:
		s.now = s.now.Add(25 * time.Hour)
	case world.SetBack:
		s.now = s.now.Add(-year)
		for digest, r := range s.key.Clients { // how long ago something was heard the engine knows by another clock
			r.Verdicts = slices.Clone(r.Verdicts)
			for i := range r.Verdicts {
				if !r.Verdicts[i].Time.IsZero() {
					r.Verdicts[i].Time = r.Verdicts[i].Time.Add(-year)
				}
			}
			s.key.Clients = maps.Clone(s.key.Clients)
			s.key.Clients[digest] = r
		}
	case world.Token:
		return e.mint(role)
	case world.Assertion, world.Restart:
	case world.Pass:
		return e.probe(s.key.Due(e.configuration(), s.now))
	case world.Rotate, world.Import:
		kid := world.KIDName(op.Version)
		for _, v := range s.key.Versions {
			if v.KID == kid && v.State == rotation.Retired {
				return e.apply(rotation.Revive{Version: v.Number})
			}
		}
		return e.apply(rotation.Add{Version: rotation.Version{KID: kid, CreatedTime: s.now}})
	case world.Activate:
		return now()
	case world.Force:
		return e.apply(rotation.Force{})
	case world.Abandon:
		return both(rotation.Abandon{})
	case world.RetireAll:
		return both(rotation.Retire{})
	case world.RetireHard:
		return e.apply(rotation.Retire{Version: op.Version, Force: true})
	case world.DestroyNow:
		return e.apply(rotation.Compromise{Version: op.Version})
	default:
		return fmt.Errorf("nobody knows how to do %q", op.Kind)
	}
	return nil
}

func (e *pure) Look(int) (*world.View, error) {
	view := &world.View{Roles: maps.Clone(e.state.roles), TokenURL: fmt.Sprint(e.state.elsewhere)}
	for _, v := range e.state.key.Versions {
		kid := world.KID(v.KID)
		view.Known |= kid
		if v.Compromised {
			view.Compromised |= kid
		}
		switch v.State {
		case rotation.Pending:
			view.Pending |= kid
		case rotation.Active:
			view.Active |= kid
		case rotation.Retired:
			view.Retired |= kid
		}
	}
	view.Held = view.Pending | view.Active | view.Retired
	for _, role := range view.Roles {
		if v, found := e.state.key.Get(e.state.key.Signing(e.client(role))); found && !role.Unreadable {
			view.Signs[role.Client] = world.KID(v.KID)
		}
	}
	return view, nil
}

// TestWorld explores what may happen around the rules, breadth first, and holds them to the promise. WORLD_TIME is for how long
// in each of the scenarios, and WORLD_DEPTH to which depth, instead of a small fixed one.
func TestWorld(t *testing.T) {
	for _, s := range world.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			limit, err := world.LimitFrom(os.Getenv("WORLD_TIME"), os.Getenv("WORLD_DEPTH"), 7)
			if err != nil {
				t.Fatal(err)
			}
			result, err := world.Explore(s, []world.Engine{&pure{}, &pure{}}, limit)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result)
			for _, c := range result.Counterexamples {
				t.Error(c.Text)
			}
		})
	}
}
