// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package world

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limit bounds an exploration. Zero fields don't.
type Limit struct {
	Depth  int // steps
	States int
	Until  time.Time
	// LiveEvery makes the check of liveness begin from each state with a number that it divides; 1 when 0.
	LiveEvery int
}

// LimitFrom returns the limit of an exploration: for how long, or else to which depth, both as text; without either a fixed
// depth.
func LimitFrom(length, depth string, fixed int) (Limit, error) {
	const liveEvery = 5
	switch {
	case length != "":
		d, err := time.ParseDuration(length)
		return Limit{Until: time.Now().Add(d), LiveEvery: liveEvery}, err
	case depth != "":
		n, err := strconv.Atoi(depth)
		return Limit{Depth: n, LiveEvery: liveEvery}, err
	}
	return Limit{Depth: fixed, LiveEvery: liveEvery}, nil
}

// Result is what an exploration has found.
type Result struct {
	Scenario            string
	States, Transitions int
	Engines             int  // different states of the engine among the states
	Depth               int  // up to which all states were visited
	Complete            bool // there are no further states
	Took                time.Duration
	Counterexamples     []Counterexample
}

// Counterexample is a way to a broken promise, the shortest there is for this check and kind of step.
type Counterexample struct {
	Check Check
	Step  Kind
	Cut   bool // the step was cut off by a crash, or something happened in its middle
	Text  string
}

func (r *Result) String() string {
	var b strings.Builder
	all := ""
	if r.Complete {
		all = ", which is all"
	}
	fmt.Fprintf(&b, "%s: %d states (%d of the engine) and %d transitions to depth %d%s, in %s: %d counterexamples", r.Scenario, r.States,
		r.Engines, r.Transitions, r.Depth, all, r.Took.Round(time.Millisecond), len(r.Counterexamples))
	return b.String()
}

// engineState is a state of the engine, with what can be seen of it.
type engineState struct {
	snapshot Snapshot
	number   int
	views    []*View // by node
}

// state is one of the world. Two with the same key are the same.
type state struct {
	key
	engine *engineState
	number int

	parent *state
	step   string
}

type key struct {
	situation
	engine int
}

// step is something that may happen in a state, and how it is cut off or interrupted.
type step struct {
	Op
	crashAfter  int
	interruptAt int // -1: never
}

func (s step) String() string {
	switch {
	case s.crashAfter >= 0:
		return fmt.Sprintf("%s, and a crash after %d writes", s.Op, s.crashAfter)
	case s.interruptAt >= 0:
		return fmt.Sprintf("%s, and in its middle (at read %d) what follows", s.Op, s.interruptAt)
	}
	return s.Op.String()
}

// successor is what came of a step.
type successor struct {
	to    *state
	text  string
	kind  Kind
	cut   bool
	check Check // that failed
	why   string
	err   error
}

type explorer struct {
	*Scenario
	limit Limit

	mu      sync.Mutex // for engines
	engines map[string]*engineState
}

// Explore visits all states of a scenario breadth first, up to the limits. Each of the engines is used by one goroutine.
func Explore(s *Scenario, engines []Engine, limit Limit) (*Result, error) {
	started := time.Now()
	x := &explorer{Scenario: s, limit: limit, engines: map[string]*engineState{}}
	for _, e := range engines {
		if err := e.New(s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	first, err := x.begin(engines[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	result := &Result{Scenario: s.Name, States: 1}
	seen := map[key]bool{first.key: true}
	kinds := map[Counterexample]bool{}
	for level := []*state{first}; ; result.Depth++ {
		if len(level) == 0 {
			result.Complete = true
			break
		}
		if limit.Depth > 0 && result.Depth >= limit.Depth {
			break
		}
		var next []*state
		over := false
		const chunk = 64
		for part := range slices.Chunk(level, chunk) {
			if !limit.Until.IsZero() && time.Now().After(limit.Until) || limit.States > 0 && result.States > limit.States {
				over = true
				break
			}
			for _, successors := range x.expandAll(engines, part) {
				for _, n := range successors {
					if n.err != nil {
						return nil, fmt.Errorf("%s: %w\n%s", s.Name, n.err, x.path(n.to.parent, n.text))
					}
					result.Transitions++
					if n.check != "" {
						if kind := (Counterexample{Check: n.check, Step: n.kind, Cut: n.cut}); !kinds[kind] {
							kinds[kind] = true
							text := fmt.Sprintf("-- %s is lost: %s\n%s", n.check, n.why, x.path(n.to.parent, n.text))
							result.Counterexamples = append(result.Counterexamples, Counterexample{n.check, n.kind, n.cut, text})
						}
						continue // what follows from a broken promise is no news
					}
					if !seen[n.to.key] {
						seen[n.to.key] = true
						n.to.number = result.States
						result.States++
						next = append(next, n.to)
					}
				}
			}
		}
		if over {
			break
		}
		level = next
	}
	result.Engines, result.Took = len(x.engines), time.Since(started)
	return result, nil
}

// begin makes the state to begin from.
func (x *explorer) begin(e Engine) (*state, error) {
	st := &state{}
	for c := range x.Clients {
		st.server.Clients[c].KIDs = 1
	}
	if err := x.look(e, st); err != nil {
		return nil, err
	}
	st.covered = st.engine.views[0].clients(anyRole)
	for _, op := range x.Before {
		n := x.take(e, st, step{op, -1, -1})
		if n.err != nil {
			return nil, n.err
		}
		st = n.to
	}
	return st, nil
}

// look takes the state of the engine into a state of the world.
func (x *explorer) look(e Engine, st *state) error {
	snapshot := e.Save()
	fingerprint := snapshot.Fingerprint()
	x.mu.Lock()
	known := x.engines[fingerprint]
	x.mu.Unlock()
	if known == nil {
		known = &engineState{snapshot: snapshot}
		for node := range x.nodes() {
			view, err := e.Look(node)
			if err != nil {
				return err
			}
			known.views = append(known.views, view)
		}
		x.mu.Lock()
		if other := x.engines[fingerprint]; other != nil {
			known = other
		} else {
			known.number = len(x.engines)
			x.engines[fingerprint] = known
		}
		x.mu.Unlock()
	}
	st.engine, st.key.engine = known, known.number
	return nil
}

// expandAll returns the successors of each state.
func (x *explorer) expandAll(engines []Engine, states []*state) [][]successor {
	results := make([][]successor, len(states))
	indices := make(chan int, len(states))
	for i := range states {
		indices <- i
	}
	close(indices)
	var workers sync.WaitGroup
	for _, e := range engines {
		workers.Go(func() {
			for i := range indices {
				results[i] = x.expand(e, states[i])
			}
		})
	}
	workers.Wait()
	return results
}

func (x *explorer) expand(e Engine, st *state) []successor {
	var found []successor
	for _, op := range x.possible(st) {
		plain := x.take(e, st, step{op, -1, -1})
		found = append(found, plain)
		if x.Crashes && slices.Contains(crashing, op.Kind) {
			for after := 0; ; after++ {
				n := x.take(e, st, step{op, after, -1})
				if n.to == nil {
					break
				}
				found = append(found, n)
				if n.err != nil {
					return found
				}
			}
		}
		if op.Kind == Pass && len(x.During) > 0 {
			for at := 0; ; at++ {
				n := x.take(e, st, step{op, -1, at})
				if n.to == nil {
					break
				}
				found = append(found, n)
				if n.err != nil {
					return found
				}
			}
		}
	}
	if every := max(x.limit.LiveEvery, 1); x.checks(Live) && st.number%every == 0 {
		found = append(found, x.completes(e, st)...)
	}
	return found
}

// possible returns what may happen in a state.
func (x *explorer) possible(st *state) []Op {
	var ops []Op
	view := st.engine.views[0]
	add := func(op Op, when bool) {
		if when {
			ops = append(ops, op)
		}
	}
	for _, kind := range x.Ops {
		switch kind {
		case Add, Remove:
			for c := range x.Clients {
				for n := 1; n <= MaxVersions; n++ {
					kid := KIDs(1 << (n - 1))
					add(Op{Kind: kind, Client: c, Version: n}, view.Held&kid != 0 && (st.server.Clients[c].KIDs&kid == 0) == (kind == Add))
				}
			}
		case Break, Mend:
			for c := range x.Clients {
				add(Op{Kind: kind, Client: c}, st.server.Clients[c].Broken == (kind == Mend))
			}
		case Outage, OutageEnds:
			add(Op{Kind: kind}, st.server.Down == (kind == OutageEnds))
		case WriteRole, DeleteRole, Disable, Enable, Spoil:
			for r := range x.Roles {
				role, there := view.Roles[r]
				possible := there
				if x.Roles[r].Config && kind != WriteRole && kind != DeleteRole {
					continue
				}
				switch kind {
				case WriteRole:
					possible = !there || role.Unreadable
				case Disable, Enable:
					possible = there && !role.Unreadable && role.Disabled == (kind == Enable)
				case Spoil:
					possible = there && !role.Unreadable
				}
				add(Op{Kind: kind, Role: r}, possible)
			}
		case Token, Assertion:
			for r, setup := range x.Roles {
				role, there := view.Roles[r]
				for node := range x.nodes() {
					where := kind == Assertion || strings.ContainsRune(setup.ReadOn, 'A'+rune(node))
					add(Op{Kind: kind, Role: r, Node: node}, where && there && !role.Disabled && !role.Unreadable)
				}
			}
		case Rotate:
			made := bits.Len8(uint8(view.Known))
			add(Op{Kind: kind, Version: made + 1}, view.Pending == 0 && made < x.Versions)
		case Import:
			for n := 1; n <= x.Versions; n++ {
				kid := KIDs(1 << (n - 1))
				next := n == 1 || view.Known&(kid>>1) != 0
				add(Op{Kind: kind, Version: n}, view.Pending == 0 && next && (view.Held|view.Compromised)&kid == 0)
			}
		case Activate, Force, Abandon:
			add(Op{Kind: kind}, view.Pending != 0)
		case RetireAll:
			add(Op{Kind: kind}, view.Retired != 0)
		case RetireHard, DestroyNow:
			for n := 1; n <= MaxVersions; n++ {
				kid := KIDs(1 << (n - 1))
				add(Op{Kind: kind, Version: n}, view.Held&kid != 0 && (kind == DestroyNow || view.Retired&kid != 0))
			}
		case Restart:
			for node := range x.nodes() {
				add(Op{Kind: kind, Node: node}, true)
			}
		default: // a pass, time, another URL
			add(Op{Kind: kind}, true)
		}
	}
	return ops
}

// take lets a step happen. The successor has no state when the step is over before its crash or interruption.
func (x *explorer) take(e Engine, st *state, s step) successor {
	next := &state{key: st.key, engine: st.engine, parent: st}
	n := successor{to: next, kind: s.Kind, cut: s.crashAfter >= 0 || s.interruptAt >= 0, text: s.String()}
	if slices.Contains(outside, s.Kind) {
		x.change(next, s.Op)
		next.step = n.text
		return n
	}
	e.Load(st.engine.snapshot)
	before := st.engine.views
	if s.crashAfter >= 0 { // what a crash makes forgotten was no step's doing
		if _, n.err = e.Do(Op{Kind: Restart}, Hooks{CrashAfter: -1}); n.err != nil {
			return n
		}
		forgotten := &state{}
		if n.err = x.look(e, forgotten); n.err != nil {
			return n
		}
		before = forgotten.engine.views
		e.Load(st.engine.snapshot)
	}
	hooks := x.hooks(&next.situation)
	hooks.CrashAfter = s.crashAfter
	var middle []*View
	var said []string
	if s.interruptAt >= 0 {
		hooks.InterruptAt = s.interruptAt
		hooks.Interrupt = func() {
			for _, op := range x.During {
				if slices.Contains(outside, op.Kind) {
					x.change(next, op)
				} else if _, err := e.Do(op, x.hooks(&next.situation)); err != nil {
					n.err = err
				}
				said = append(said, op.String())
			}
			for node := range x.nodes() {
				view, err := e.Look(node)
				if err != nil {
					n.err = err
					return
				}
				middle = append(middle, view)
			}
		}
	}
	report, err := e.Do(s.Op, hooks)
	if n.err == nil {
		n.err = err
	}
	if n.err != nil {
		return n
	}
	if !report.Reached && (s.crashAfter >= 0 || s.interruptAt >= 0) {
		return successor{}
	}
	if s.Kind == Hour || s.Kind == Day {
		for c, m := range next.marks {
			next.marks[c] = marks{mute: m.mute}
			if m.mute > 0 && s.Kind == Day {
				next.marks[c].mute = 2
			}
		}
	}
	if s.Kind == Restart || s.Kind == Repoint || s.crashAfter >= 0 { // what was heard may be forgotten, or be of another URL
		for c := range next.marks {
			next.marks[c].recent = next.marks[c].once
		}
	}
	if n.err = x.look(e, next); n.err != nil {
		return n
	}
	after := next.engine.views
	resolved := after[0].clients(anyRole)
	if s.Kind == Day {
		next.covered = 0
	}
	next.covered |= resolved
	if said != nil {
		n.text += ": " + strings.Join(said, ", ")
	}
	if report.Answer != "" {
		n.text += " [" + report.Answer + "]"
	}
	next.step = n.text
	if x.checks(OneActive) {
		if n.why = malformed(after[0]); n.why != "" {
			n.check = OneActive
			return n
		}
	}
	if !slices.Contains(promised, s.Kind) {
		return n
	}
	for node := range after {
		at := next.situation
		at.covered = st.covered
		n.check, n.why = lost(&at, before[node], after[node], node, x.checks)
		if n.check == "" && middle != nil {
			at.covered |= middle[node].clients(anyRole)
			n.check, n.why = lost(&at, middle[node], after[node], node, x.checks)
		}
		if n.check != "" {
			return n
		}
	}
	if role := after[0].Roles[s.Role]; x.checks(Learned) && s.Kind == Token && s.Node == 0 && !role.Mistyped {
		client := next.server.Clients[role.Client]
		if took := !next.server.Down && !client.Broken && client.KIDs&after[0].Held != 0; took && client.KIDs&after[0].Signs[role.Client] == 0 {
			n.check, n.why = Learned, fmt.Sprintf("the server takes %s from %s, and %s signs its assertions", client.KIDs, ClientName(role.Client), after[0].Signs[role.Client])
			return n
		}
	}
	if x.checks(Honest) && (s.Kind == Pass || s.Kind == Activate) {
		if n.why = dishonest(&next.situation, st.engine.views[0], after[0]); n.why != "" {
			n.check = Honest
		}
	}
	return n
}

// hooks answers an engine's questions, and remembers what was answered. What a node that may not write learns is none of
// the business of the one that does.
func (x *explorer) hooks(s *situation) Hooks {
	return Hooks{CrashAfter: -1, Ask: func(node int, clientID, kid, scope string) Answer {
		client := -1
		for c := range x.Clients {
			if clientID == ClientName(c) {
				client = c
			}
		}
		answer := s.server.ask(client, KID(kid), scope)
		if client < 0 || node != 0 {
			return answer
		}
		m := &s.marks[client]
		if answer == NoAnswer {
			m.mute = max(m.mute, 1)
			return answer
		}
		m.asked, m.changed, m.mute = true, false, 0
		switch answer { // of what is refused for another reason nothing new is known
		case Taken:
			m.recent |= KID(kid)
			m.once |= KID(kid)
		case UnknownKey:
			m.recent &^= KID(kid)
		}
		return answer
	}}
}

// change changes the server.
func (x *explorer) change(st *state, op Op) {
	client := &st.server.Clients[op.Client]
	kid := KIDs(1) << max(op.Version-1, 0)
	switch op.Kind {
	case Add:
		client.KIDs |= kid
	case Remove:
		client.KIDs &^= kid
	case Break, Mend:
		client.Broken = op.Kind == Break
	case Outage, OutageEnds:
		st.server.Down = op.Kind == Outage
		return
	}
	if m := &st.marks[op.Client]; m.asked {
		m.changed = true
	}
}

// path tells how a state came about, and a step further.
func (x *explorer) path(st *state, last string) string {
	steps := []string{last + "   <=="}
	for s := st; s != nil; s = s.parent {
		text := s.step
		if s.parent == nil {
			text = "in the beginning"
		}
		var server []string
		for c := range x.Clients {
			client := s.server.Clients[c]
			one := fmt.Sprintf("%s at the server: %s", ClientName(c), client.KIDs)
			if client.Broken {
				one += " (broken)"
			}
			server = append(server, one)
		}
		if s.parent == nil || s.key.engine != s.parent.key.engine || s.server != s.parent.server {
			text += "\n      " + strings.Join(server, ", ") + "\n      " + s.engine.views[0].String()
			if len(s.engine.views) > 1 && s.engine.views[1].Signs != s.engine.views[0].Signs {
				text += "\n      on node B: " + s.engine.views[1].String()
			}
		}
		steps = append(steps, text)
	}
	slices.Reverse(steps)
	var b strings.Builder
	for i, text := range steps {
		fmt.Fprintf(&b, "  %2d. %s\n", i, text)
	}
	return b.String()
}

// roundsToComplete is how many passes a rotation may take, and as many the destruction of what it retired. A day is
// between them, since whoever stands in the way may be asked no more often than that.
const roundsToComplete = 4

// completes lets everything be well from now on, with a dashboard that adds each kid: then a pending version is
// promoted, and what is retired is destroyed. A client of which all roles are mistyped or unreadable never is well, and
// where none is enabled there is nobody to promote for.
func (x *explorer) completes(e Engine, st *state) []successor {
	view := st.engine.views[0]
	if view.Pending == 0 && view.Retired == 0 {
		return nil
	}
	all := view.clients(anyRole)
	well := view.clients(func(r Role) bool { return !r.Mistyped && !r.Unreadable })
	enabled := view.clients(func(r Role) bool { return !r.Mistyped && !r.Unreadable && !r.Disabled })
	unreadable := view.clients(func(r Role) bool { return r.Unreadable })
	if all != well || enabled == 0 || unreadable != 0 {
		return nil
	}
	now := &state{key: st.key, engine: st.engine, parent: st, step: "from now on the dashboard adds each kid, and nothing fails"}
	now.server.Down = false
	for c := range x.Clients {
		now.server.Clients[c].KIDs |= view.Held
		now.server.Clients[c].Broken = false
	}
	for round := range 2 * roundsToComplete {
		for _, op := range []Op{{Kind: Day}, {Kind: Pass}} {
			n := x.take(e, now, step{op, -1, -1})
			if n.err != nil || n.check != "" {
				return []successor{n}
			}
			now = n.to
		}
		view = now.engine.views[0]
		if view.Pending == 0 && view.Retired == 0 {
			return nil
		}
		if round == roundsToComplete-1 && view.Pending != 0 {
			break
		}
	}
	why := "a retired version is never destroyed"
	if view.Pending != 0 {
		why = "the pending version is never promoted"
	}
	return []successor{{to: &state{parent: now.parent}, text: now.step, kind: Pass, check: Live, why: why}}
}
