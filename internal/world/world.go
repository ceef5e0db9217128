// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package world is a small world around an engine that rotates keys: a server that knows kids of clients, people who
// change the server and the configuration, outages, crashes and time. It explores exhaustively what can happen in it,
// and holds the engine to what it promises. It knows the engine from outside only: what it may do, what it answers, and
// which questions reach the server. So it can't share a mistake with the engine's own records.
package world

import (
	"fmt"
	"slices"
	"strings"
)

// The bounds of a world.
const (
	MaxClients  = 2
	MaxVersions = 4
)

// KIDs is a set of kids: bit n-1 is that of version n.
type KIDs uint8

// KID returns the set of one kid, as KIDName spells it. It is empty for any other name.
func KID(name string) KIDs {
	for n := 1; n <= MaxVersions; n++ {
		if name == KIDName(n) {
			return 1 << (n - 1)
		}
	}
	return 0
}

// KIDName returns the kid of the version with a number.
func KIDName(number int) string { return fmt.Sprintf("k%d", number) }

func (k KIDs) String() string {
	var names []string
	for n := 1; n <= MaxVersions; n++ {
		if k&(1<<(n-1)) != 0 {
			names = append(names, KIDName(n))
		}
	}
	if names == nil {
		return "nothing"
	}
	return strings.Join(names, "+")
}

// ClientName returns the client ID of a client, which is counted from 0.
func ClientName(client int) string { return fmt.Sprintf("client-%d", client+1) }

// RoleName returns the name of a role, which is counted from 0.
func RoleName(role int) string { return fmt.Sprintf("role-%d", role+1) }

// MistypedScope is the scope of a role whose scope the server rejects, whatever signs.
const MistypedScope = "mistyped"

// Server is the world's server.
type Server struct {
	Down    bool
	Clients [MaxClients]struct {
		KIDs   KIDs
		Broken bool // all its requests are rejected, as of a disabled API key
	}
}

// Answer is the server's to the question for a token.
type Answer int

// The answers of a server.
const (
	Taken Answer = iota
	UnknownKey
	Refused // for another reason than the key
	NoAnswer
)

// ask answers the question for a token of a client, signed with a kid.
func (s *Server) ask(client int, kid KIDs, scope string) Answer {
	switch {
	case s.Down:
		return NoAnswer
	case client < 0 || s.Clients[client].Broken || scope == MistypedScope:
		return Refused
	case s.Clients[client].KIDs&kid == 0:
		return UnknownKey
	}
	return Taken
}

// Role is what is configured of one role.
type Role struct {
	Client                         int
	Mistyped, Disabled, Unreadable bool
}

// View is what a node tells of itself, read from outside.
type View struct {
	Known, Held              KIDs // of all versions, and of those that are not destroyed
	Pending, Active, Retired KIDs
	Compromised              KIDs
	Roles                    map[int]Role
	Signs                    [MaxClients]KIDs // what signs for each client that is configured
	TokenURL                 string
}

// clients returns whom the roles of a view resolve to, as bits.
func (v *View) clients(which func(Role) bool) (set uint8) {
	for _, r := range v.Roles {
		if which(r) {
			set |= 1 << r.Client
		}
	}
	return set
}

func anyRole(Role) bool { return true }

func (v *View) String() string {
	var parts []string
	for n := 1; n <= MaxVersions; n++ {
		kid, state := KIDs(1<<(n-1)), "destroyed"
		switch {
		case v.Known&kid == 0:
			continue
		case v.Pending&kid != 0:
			state = "pending"
		case v.Active&kid != 0:
			state = "active"
		case v.Retired&kid != 0:
			state = "retired"
		}
		parts = append(parts, KIDName(n)+" "+state)
	}
	for c := range v.Signs {
		if v.Signs[c] != 0 {
			parts = append(parts, fmt.Sprintf("%s signs with %s", ClientName(c), v.Signs[c]))
		}
	}
	return strings.Join(parts, ", ")
}

// Kind is what may happen.
type Kind string

// What may happen. Adversary, configuration, and time:
const (
	Add        Kind = "the dashboard adds"    // Version at Client
	Remove     Kind = "the dashboard removes" // Version at Client
	Break      Kind = "the server begins to reject all of"
	Mend       Kind = "the server ends to reject all of"
	Outage     Kind = "an outage begins"
	OutageEnds Kind = "the outage ends"
	WriteRole  Kind = "made or written again:"
	DeleteRole Kind = "deleted:"
	Disable    Kind = "disabled:"
	Enable     Kind = "enabled:"
	Spoil      Kind = "the stored entry becomes unreadable:"
	Repoint    Kind = "another token URL of the same server is configured"
	Hour       Kind = "an hour passes"
	Day        Kind = "a day passes"
	SetBack    Kind = "the clock is set back by a year"
	Restart    Kind = "restarts, and has lost what was in its memory:"
)

// What the engine does by itself, or when it is told to.
const (
	Token      Kind = "a fresh token is read:"
	Assertion  Kind = "an assertion is read:"
	Pass       Kind = "background pass"
	Rotate     Kind = "rotate"
	Activate   Kind = "activate"
	Abandon    Kind = "abandon"
	RetireAll  Kind = "retire"
	Force      Kind = "activate force=true"
	RetireHard Kind = "retire force=true version"
	DestroyNow Kind = "retire destroy_now=true version"
	// Import is what Rotate is for a key pair that was made elsewhere. It can be imported again when it was destroyed.
	Import Kind = "import"
)

// promised are the steps that may take nothing from anybody. In those that write nothing and ask nobody the engine may
// change its mind, too.
var promised = []Kind{Token, Assertion, Pass, Rotate, Import, Activate, Abandon, RetireAll, Hour, Day, SetBack}

// outside are those that the engine is not told of.
var outside = []Kind{Add, Remove, Break, Mend, Outage, OutageEnds}

// crashing are those that may be cut off between two writes.
var crashing = []Kind{Pass, Rotate, Import, Activate, Abandon, RetireAll, Force, RetireHard, DestroyNow, WriteRole, DeleteRole, Repoint}

// Op is one thing that happens. Fields that its kind has no use for are zero.
type Op struct {
	Kind                        Kind
	Client, Role, Node, Version int // Version from 1, the others from 0
}

func (o Op) String() string {
	node := string(rune('A' + o.Node))
	switch o.Kind {
	case Add, Remove:
		return fmt.Sprintf("%s %s at %s", o.Kind, KIDName(o.Version), ClientName(o.Client))
	case Break, Mend:
		return fmt.Sprintf("%s %s", o.Kind, ClientName(o.Client))
	case WriteRole, DeleteRole, Disable, Enable, Spoil:
		return fmt.Sprintf("%s %s", o.Kind, RoleName(o.Role))
	case Token, Assertion:
		return fmt.Sprintf("%s %s on node %s", o.Kind, RoleName(o.Role), node)
	case Restart:
		return fmt.Sprintf("%s node %s", o.Kind, node)
	case Import:
		return fmt.Sprintf("%s %s", o.Kind, KIDName(o.Version))
	case RetireHard, DestroyNow:
		return fmt.Sprintf("%s=%d", o.Kind, o.Version)
	}
	return string(o.Kind)
}

// Snapshot is the state of an engine at rest: what is stored, the memory of its nodes, and its clock. It is never
// changed.
type Snapshot interface {
	// Fingerprint is the same for states that behave alike.
	Fingerprint() string
}

// Hooks are how the world takes part in what an engine does.
type Hooks struct {
	// Ask is the server. The node is the one that asks.
	Ask func(node int, clientID, kid, scope string) Answer
	// CrashAfter is after how many writes to storage the node crashes, and is made anew from what is stored. -1: never.
	CrashAfter int
	// Interrupt is called at the read of storage with the number InterruptAt, from 0, not counting those with a lock
	// that others wait for. Nil: never.
	Interrupt   func()
	InterruptAt int
}

// Report is what came of something.
type Report struct {
	Answer  string // for the reader of a counterexample
	Reached bool   // the crash or the interruption has taken place
}

// Engine is what is explored: nodes over one storage. It is used by one goroutine at a time.
type Engine interface {
	// New makes an engine with a key whose version 1 is active, and the scenario's roles.
	New(s *Scenario) error
	Load(Snapshot)
	Save() Snapshot
	// Do lets one thing happen. What is refused is no error.
	Do(op Op, hooks Hooks) (Report, error)
	Look(node int) (*View, error)
}

// RoleSetup is a role of a scenario.
type RoleSetup struct {
	Client   int
	Config   bool // it is no role, but the configuration itself
	Mistyped bool
	Later    bool   // it is not there from the beginning
	ReadOn   string // the nodes on which tokens are read: "A", "B", "AB", or none
}

// Scenario is a small world.
type Scenario struct {
	Name     string
	Nodes    int // 1 when 0
	Clients  int
	Versions int // that are made at most
	Roles    []RoleSetup
	Before   []Op   // what happens first
	Ops      []Kind // what may happen then
	Crashes  bool   // steps may be cut off between any two writes
	During   []Op   // what may happen in the middle of a pass
	// OtherWords makes the server reject unknown keys in other words than Redox.
	OtherWords bool
	// Only are the checks to make; all when empty.
	Only []Check
}

// Check is one of the things that must hold.
type Check string

// What must hold.
const (
	// TokenKept: if the server would take any version that was held before a step, it takes one that is held after it.
	TokenKept Check = "a token"
	// AssertionKept: if the server would take the version that signs before a step, it takes the one that signs after it.
	AssertionKept Check = "an assertion"
	// Honest: what is promoted is taken from one enabled client and rejected from no healthy one.
	Honest Check = "an honest promotion"
	// OneActive: a key that holds any version has exactly one that is active, and at most one that is pending.
	OneActive Check = "exactly one active version"
	// Learned: once the server has taken a token, what signs assertions is what it takes.
	Learned Check = "an assertion after a token"
	// Live: with a dashboard that adds each kid, and no outage, rotations complete.
	Live Check = "a rotation that completes"
)

func (s *Scenario) checks(c Check) bool { return len(s.Only) == 0 || slices.Contains(s.Only, c) }

func (s *Scenario) nodes() int { return max(s.Nodes, 1) }
