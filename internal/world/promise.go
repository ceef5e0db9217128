// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package world

import (
	"fmt"
	"math/bits"
)

// What the engine promises, stated on the world.

// marks is what the world remembers of questions, to leave out what is not promised: a change at the server between a
// question and the step that rests on it. An engine may rest on an answer for an hour.
type marks struct {
	recent  KIDs // taken in the last hour, by the last answer
	once    KIDs // taken in the last hour, by any answer: what a restart makes recent, since later answers may be forgotten
	asked   bool // in the last hour
	changed bool // at the server, since it was asked
	mute    int  // 1 since a question had no answer, 2 when that was a day ago; 0 after an answer
}

// stale reports whether the engine has recently been told something of a client that is not true any more.
func (m marks) stale(registered KIDs) bool { return m.recent&^registered != 0 }

// situation is all that a promise is about, at one moment.
type situation struct {
	server  Server
	marks   [MaxClients]marks
	covered uint8 // the clients that are configured, or were within the last day
}

// lost returns what a step has taken from a client. A server that is down and a client that is broken come back, so what
// counts is which kids are registered.
func lost(s *situation, before, after *View, node int, checks func(Check) bool) (Check, string) {
	for c := range MaxClients {
		registered := s.server.Clients[c].KIDs
		if s.covered&(1<<c) == 0 || s.marks[c].stale(registered) {
			continue
		}
		if node > 0 && s.marks[c].once&^registered != 0 {
			continue // another node gets to know late what was true when it was heard
		}
		if checks(TokenKept) && registered&before.Held != 0 && registered&after.Held == 0 {
			return TokenKept, fmt.Sprintf("%s could get a token with %s; now only %s is held", ClientName(c), registered&before.Held, after.Held)
		}
		if checks(AssertionKept) && registered&before.Signs[c] != 0 && after.Signs[c] != 0 && registered&after.Signs[c] == 0 {
			return AssertionKept, fmt.Sprintf("the assertions of %s on node %c were signed with %s, which the server takes; now with %s, which it does not",
				ClientName(c), 'A'+node, before.Signs[c], after.Signs[c])
		}
	}
	return "", ""
}

// dishonest returns what is wrong with a promotion that nobody has forced.
func dishonest(s *situation, before, after *View) string {
	promoted := after.Active & before.Pending
	if promoted == 0 {
		return ""
	}
	enabled := after.clients(func(r Role) bool { return !r.Disabled && !r.Mistyped && !r.Unreadable })
	taken, unsure := false, s.server.Down
	for c := range MaxClients {
		if s.marks[c].changed || s.marks[c].stale(s.server.Clients[c].KIDs) || s.marks[c].mute == 2 {
			unsure = true
			continue
		}
		client := s.server.Clients[c]
		switch healthy := !client.Broken && client.KIDs&before.Held != 0; {
		case enabled&(1<<c) == 0 || !healthy:
		case client.KIDs&promoted != 0:
			taken = true
		default:
			return fmt.Sprintf("%s is promoted, and the server rejects it from %s", promoted, ClientName(c))
		}
	}
	if !taken && !unsure {
		return fmt.Sprintf("%s is promoted, and the server takes it from nobody", promoted)
	}
	return ""
}

// malformed returns what is wrong with the states of a key's versions.
func malformed(v *View) string {
	active, pending := bits.OnesCount8(uint8(v.Active)), bits.OnesCount8(uint8(v.Pending))
	if v.Held != 0 && active != 1 || v.Held == 0 && active != 0 || pending > 1 {
		return fmt.Sprintf("%d versions are active and %d pending, of those held: %s", active, pending, v.Held)
	}
	return ""
}
