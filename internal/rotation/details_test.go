// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
)

// TestSameBut: two differ by what is worth a write, and not by times alone.
func TestSameBut(t *testing.T) {
	record := rotation.Record{
		Verdicts: []rotation.Verdict{{Version: 1, Taken: true, Time: start}, {Version: 2, Time: start}}, Recorded: 1,
		Probe: rotation.Probe{Version: 2, Outcome: rotation.Rejected, Count: 1},
	}
	for name, test := range map[string]struct {
		change func(*rotation.Record)
		same   bool
	}{
		"nothing":         {func(*rotation.Record) {}, true},
		"a time":          {func(r *rotation.Record) { r.Verdicts[0].Time = start.Add(time.Hour) }, true},
		"what is taken":   {func(r *rotation.Record) { r.Verdicts[1].Taken = true }, false},
		"which version":   {func(r *rotation.Record) { r.Verdicts[1].Version = 3 }, false},
		"fewer verdicts":  {func(r *rotation.Record) { r.Verdicts = r.Verdicts[:1] }, false},
		"what is noted":   {func(r *rotation.Record) { r.Recorded = 2 }, false},
		"the probe":       {func(r *rotation.Record) { r.Probe.Count = 2 }, false},
		"probe, verdicts": {func(r *rotation.Record) { r.Probe.Count, r.Verdicts = 2, nil }, false},
	} {
		other := record
		other.Verdicts = slices.Clone(record.Verdicts)
		test.change(&other)
		a, b := rotation.Clients{one.Digest(): record}, rotation.Clients{one.Digest(): other}
		if a.SameBut(b) != test.same || b.SameBut(a) != test.same {
			t.Errorf("%s: the same is %v, not %v", name, !test.same, test.same)
		}
	}
}

// TestDestructionForgets: what was observed of a destroyed version goes, for every client, and nothing else.
func TestDestructionForgets(t *testing.T) {
	k := newTable(t)
	k.key.Clients = rotation.Clients{}
	client := func(kind string, n int) rotation.Client {
		return rotation.Client{ClientID: fmt.Sprint(kind, n), TokenURL: one.TokenURL}
	}
	taken := func(version int) rotation.Verdict {
		return rotation.Verdict{Version: version, Taken: true, Time: start}
	}
	for n := range 20 {
		k.key.Clients[client("both", n).Digest()] = rotation.Record{Verdicts: []rotation.Verdict{taken(1), taken(2)}, Recorded: 2}
		k.key.Clients[client("noted", n).Digest()] = rotation.Record{Verdicts: []rotation.Verdict{taken(2)}, Recorded: 1}
		k.key.Clients[client("other", n).Digest()] = rotation.Record{Verdicts: []rotation.Verdict{taken(2)}, Recorded: 2}
	}
	k.apply(rotation.Compromise{Version: 1})
	for n := range 20 {
		for kind, recorded := range map[string]int{"both": 2, "noted": 0, "other": 2} {
			r := k.key.Of(client(kind, n))
			_, first := r.Proven(1)
			_, second := r.Proven(2)
			if first || !second || r.Recorded != recorded {
				t.Fatalf("of %s is known %+v", kind, r)
			}
		}
	}
}

// TestAnsweredDetails: what an answer does to what was known before.
func TestAnsweredDetails(t *testing.T) {
	verdict := func(version int, taken bool, at time.Duration) rotation.Verdict {
		return rotation.Verdict{Version: version, Taken: taken, Time: start.Add(at)}
	}
	asked := func(outcome rotation.Outcome) rotation.Probe {
		return rotation.Probe{Version: 2, Outcome: outcome, Count: 1, LastTime: start, NextTime: start.Add(time.Minute)}
	}
	for name, test := range map[string]struct {
		before   rotation.Record
		verdicts []rotation.Verdict
		recorded int
		probed   bool // the probe stays
		proven   int
	}{
		"a version that is not held is left out": {verdicts: []rotation.Verdict{verdict(9, true, 0), verdict(1, true, 0)}, proven: 1},
		"another one is rejected":                {before: rotation.Record{Recorded: 1}, verdicts: []rotation.Verdict{verdict(2, false, 0), verdict(3, true, 0)}, recorded: 1, proven: 3},
		"the recorded one is rejected":           {before: rotation.Record{Recorded: 1}, verdicts: []rotation.Verdict{verdict(1, false, 0), verdict(3, true, 0)}, proven: 3},
		"the recorded one is taken":              {before: rotation.Record{Recorded: 1}, verdicts: []rotation.Verdict{verdict(1, true, 0)}, recorded: 1, proven: 1},
		"it answers again":                       {before: rotation.Record{Probe: asked(rotation.Unanswered)}, verdicts: []rotation.Verdict{verdict(1, true, time.Second)}, proven: 1},
		"the proof is older than the question": {before: rotation.Record{Probe: asked(rotation.Unanswered)},
			verdicts: []rotation.Verdict{verdict(1, true, -time.Minute), verdict(2, false, time.Second)}, probed: true, proven: 1},
		"what is wanted is still rejected": {before: rotation.Record{Probe: asked(rotation.Rejected)}, verdicts: []rotation.Verdict{verdict(1, true, time.Second)}, probed: true, proven: 1},
		"nothing is left to ask":           {before: rotation.Record{Probe: asked(rotation.Rejected)}, verdicts: []rotation.Verdict{verdict(2, true, time.Second)}, proven: 2},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTable(t, one)
			if test.proven == 3 { // 2 is active then, and 3 pending
				k.apply(rotation.Force{})
				k.add()
			}
			k.key.Clients = rotation.Clients{one.Digest(): test.before}
			k.later(2 * time.Second)
			k.apply(rotation.Answered{Client: one, Verdicts: test.verdicts})
			r := k.key.Of(one)
			_, proven := r.Proven(test.proven)
			if r.Recorded != test.recorded || (r.Probe != rotation.Probe{}) != test.probed || !proven {
				t.Errorf("of the client is known %+v", r)
			}
		})
	}
}

// TestRetireOne ends the grace of the version that is named, and of no other.
func TestRetireOne(t *testing.T) {
	k := newTable(t)
	k.apply(rotation.Force{})
	k.add()
	k.apply(rotation.Force{}) // 1 and 2 are retired
	k.apply(rotation.Retire{Version: 1})
	first, _ := k.key.Get(1)
	second, _ := k.key.Get(2)
	if !first.GraceEnded || second.GraceEnded {
		t.Errorf("the grace of 1 has ended: %v, that of 2: %v", first.GraceEnded, second.GraceEnded)
	}
}

// TestGraceAtItsBounds: also a time that is as far in the future as the grace is long counts as long ago.
func TestGraceAtItsBounds(t *testing.T) {
	key := rotation.Key{Grace: time.Hour}
	for retired, over := range map[time.Duration]bool{
		-time.Hour: true, -time.Hour + 1: false, 0: false, time.Hour - 1: false, time.Hour: true,
	} {
		if key.GraceOver(rotation.Version{State: rotation.Retired, RetiredTime: start.Add(retired)}, start) != over {
			t.Errorf("retired %s from now: the grace is over: %v", retired, !over)
		}
	}
}

// TestStaysAndUnsettled: which versions stay, and when there may be something to ask.
func TestStaysAndUnsettled(t *testing.T) {
	version := func(number int, state rotation.State, retired time.Duration) rotation.Version {
		return rotation.Version{Number: number, State: state, RetiredTime: start.Add(-retired)}
	}
	key := rotation.Key{Grace: time.Hour, Versions: []rotation.Version{
		version(1, rotation.Destroyed, 0), version(2, rotation.Retired, 2*time.Hour), version(3, rotation.Retired, time.Minute),
		version(4, rotation.Active, 0), version(5, rotation.Pending, 0),
	}}
	for number, stays := range map[int]bool{1: false, 2: false, 3: true, 4: true, 5: true, 9: false} {
		if key.Stays(number, start) != stays {
			t.Errorf("version %d stays: %v", number, !stays)
		}
	}
	for name, test := range map[string]struct {
		versions  []rotation.Version
		unsettled bool
	}{
		"all": {key.Versions, true}, "settled": {[]rotation.Version{key.Versions[0], key.Versions[2], key.Versions[3]}, false},
		"pending": {key.Versions[3:], true}, "doomed": {key.Versions[1:4], true},
	} {
		if (rotation.Key{Grace: time.Hour, Versions: test.versions}).Unsettled(start) != test.unsettled {
			t.Errorf("%s: unsettled is %v", name, !test.unsettled)
		}
	}
}

// TestDueByThePause: what was asked about another version puts nothing off, and a pause ends in its time, or when it is longer than
// any.
func TestDueByThePause(t *testing.T) {
	for name, test := range map[string]struct {
		version int
		next    time.Duration
		due     bool
	}{
		"another version": {1, 5 * time.Minute, true}, "this one": {2, 5 * time.Minute, false},
		"the longest pause": {2, 15 * time.Minute, false}, "longer than any": {2, 15*time.Minute + 1, true}, "over": {2, 0, true},
	} {
		k := newTable(t, one)
		k.key.Clients = rotation.Clients{one.Digest(): {Probe: rotation.Probe{
			Version: test.version, Outcome: rotation.Unanswered, Count: 1, LastTime: start, NextTime: start.Add(test.next)}}}
		if due := k.key.Due(k.conf, start); (len(due) == 1) != test.due {
			t.Errorf("%s: due are %v", name, due)
		}
	}
}
