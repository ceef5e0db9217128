// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one   = rotation.Client{ClientID: "client-1", TokenURL: "https://redox.test/token"}
	two   = rotation.Client{ClientID: "client-2", TokenURL: "https://redox.test/token"}
)

// table is a key to which things happen at a time.
type table struct {
	t    *testing.T
	key  rotation.Key
	now  time.Time
	conf rotation.Configuration
}

// newTable makes a key with version 1 active, and a second one pending, for clients that are enabled.
func newTable(t *testing.T, clients ...rotation.Client) *table {
	k := &table{t: t, key: rotation.Key{Grace: 24 * time.Hour}, now: start}
	for _, client := range clients {
		k.conf.Clients = append(k.conf.Clients, rotation.Configured{Client: client, Enabled: true})
	}
	k.add()
	k.add()
	return k
}

func (k *table) apply(events ...rotation.Event) {
	k.t.Helper()
	if err := k.try(events...); err != nil {
		k.t.Fatalf("%+v: %v", events, err)
	}
}

func (k *table) try(events ...rotation.Event) error {
	k.t.Helper()
	before := fmt.Sprintf("%+v", k.key)
	next, _, err := k.key.Replay(events, k.now)
	if after := fmt.Sprintf("%+v", k.key); after != before {
		k.t.Fatalf("%+v has changed the key that it was applied to, from %s to %s", events, before, after)
	}
	if err == nil {
		k.key = next
	}
	return err
}

func (k *table) add() {
	k.t.Helper()
	k.apply(rotation.Add{Version: rotation.Version{KID: fmt.Sprint("kid-", len(k.key.Versions)+1), CreatedTime: k.now}})
}

// says lets the server say of a client what it takes, and what it rejects, which are negative numbers.
func (k *table) says(client rotation.Client, versions ...int) {
	k.t.Helper()
	answered := rotation.Answered{Client: client}
	for _, v := range versions {
		answered.Verdicts = append(answered.Verdicts, rotation.Verdict{Version: max(v, -v), Taken: v > 0, Time: k.now})
	}
	k.apply(answered)
}

func (k *table) probed(client rotation.Client, outcome rotation.Outcome) {
	k.t.Helper()
	k.apply(rotation.Probed{Client: client, Outcome: outcome, Answer: "no"})
}

func (k *table) settle() { k.t.Helper(); k.apply(rotation.Settle{Configuration: k.conf}) }

func (k *table) later(d time.Duration) { k.now = k.now.Add(d) }

func (k *table) states() string {
	var states []string
	for _, v := range k.key.Versions {
		states = append(states, string(v.State))
	}
	return strings.Join(states, " ")
}

func (k *table) want(states string) {
	k.t.Helper()
	if got := k.states(); got != states {
		k.t.Errorf("the versions are %s, not %s", got, states)
	}
}

func (k *table) signs(client rotation.Client, version int) {
	k.t.Helper()
	if got := k.key.Signing(client); got != version {
		k.t.Errorf("version %d signs for %s, not %d", got, client.ClientID, version)
	}
}

func TestWhoSigns(t *testing.T) {
	k := newTable(t, one, two)
	k.signs(one, 1) // nothing is known: the active one
	k.says(one, 1)
	k.signs(one, 1)
	k.says(one, 2)
	k.signs(one, 2) // the newest that is proven
	if got := k.key.Order(one); !slices.Equal(got, []int{2, 1}) {
		t.Errorf("minted with %v", got)
	}
	k.says(one, -2, 1)
	k.signs(one, 1) // a rejection that was told apart ends a proof
	k.says(one, -1)
	k.signs(one, 1) // one that was not ends nothing
	if at, proven := k.key.Of(one).Proven(1); !proven || at.IsZero() {
		t.Errorf("version 1 is proven: %v at %s", proven, at)
	}
	k.apply(rotation.Answered{Client: one, Doubted: []int{1, 2}})
	if at, proven := k.key.Of(one).Proven(1); !proven || !at.IsZero() {
		t.Errorf("in doubt version 1 is proven: %v at %s", proven, at)
	}
	k.apply(rotation.Force{})
	k.signs(two, 2) // a forced version signs for everybody
	k.signs(one, 1) // but for whom it was rejected
	k.says(two, -2, 1)
	k.signs(two, 1)
	k.apply(rotation.Compromise{Version: 1})
	k.signs(one, 2) // what is left
	k.says(one, 1)  // a late answer about what is destroyed
	k.signs(one, 2)
}

func TestPromotion(t *testing.T) {
	for name, c := range map[string]struct {
		happens  func(*table)
		promoted bool
	}{
		"nobody was asked":              {func(*table) {}, false},
		"proven for all":                {func(k *table) { k.says(one, 2); k.says(two, 2) }, true},
		"proven for one, one not asked": {func(k *table) { k.says(one, 2) }, false},
		"proven for one, one rejects":   {func(k *table) { k.says(one, 2); k.says(two, -2, 1) }, false},
		"proven for one, one is broken": {func(k *table) { k.says(one, 2); k.probed(two, rotation.Broken) }, true},
		"it was broken, and rejects now": {func(k *table) {
			k.says(one, 2)
			k.probed(two, rotation.Broken)
			k.says(two, -2, 1)
		}, false},
		"one is broken, nobody has proven it": {func(k *table) { k.probed(one, rotation.Broken); k.probed(two, rotation.Broken) }, false},
		"one gives no answer":                 {func(k *table) { k.says(one, 2); k.probed(two, rotation.Unanswered) }, false},
		"one gives no answer for a day": {func(k *table) {
			k.probed(two, rotation.Unanswered)
			k.later(24 * time.Hour)
			k.says(one, 2)
		}, true},
		"it answers then": {func(k *table) {
			k.probed(two, rotation.Unanswered)
			k.later(24 * time.Hour)
			k.says(one, 2)
			k.says(two, 1)
		}, false},
		"the proof is an hour old": {func(k *table) { k.says(one, 2); k.says(two, 2); k.later(time.Hour) }, false},
		"who rejects is disabled":  {func(k *table) { k.says(one, 2); k.says(two, -2, 1); k.conf.Clients[1].Enabled = false }, true},
		"who rejects has left":     {func(k *table) { k.says(one, 2); k.says(two, -2, 1); k.conf.Clients = k.conf.Clients[:1] }, true},
		"an entry is unreadable":   {func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.Incomplete = true }, true},
		"nobody is configured":     {func(k *table) { k.says(one, 2); k.conf.Clients = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTable(t, one, two)
			c.happens(k)
			k.settle()
			k.want(map[bool]string{true: "retired active", false: "active pending"}[c.promoted])
		})
	}
}

// A promotion takes nothing from those that nothing is known for: what signed so far goes on.
func TestPromotionRecords(t *testing.T) {
	k := newTable(t, one, two)
	k.conf.Clients[1].Enabled = false
	k.says(one, 2)
	k.settle()
	k.want("retired active")
	k.signs(one, 2)
	k.signs(two, 1)
	if r := k.key.Of(two); r.Recorded != 1 {
		t.Errorf("recorded is %+v", r)
	}
	k.says(two, -1, 2) // the record ends like a proof
	k.signs(two, 2)
}

func TestDestruction(t *testing.T) {
	for name, c := range map[string]struct {
		happens   func(*table)
		destroyed bool
	}{
		"within the grace period":      {func(k *table) { k.later(-time.Second); k.says(one, 2); k.says(two, 2) }, false},
		"all take the newer one":       {func(k *table) { k.says(one, 2); k.says(two, 2) }, true},
		"one was not asked":            {func(k *table) { k.says(one, 2) }, false},
		"one rejects the newer one":    {func(k *table) { k.says(one, 2); k.says(two, -2, 1) }, false},
		"one is broken":                {func(k *table) { k.says(one, 2); k.probed(two, rotation.Broken) }, false},
		"a disabled one was not asked": {func(k *table) { k.says(one, 2); k.conf.Clients[1].Enabled = false }, false},
		"who was not asked has left":   {func(k *table) { k.says(one, 2); k.conf.Clients = k.conf.Clients[:1] }, true},
		"an answer is an hour old":     {func(k *table) { k.says(one, 2); k.later(time.Hour); k.says(two, 2) }, false},
		"an answer is in doubt": {func(k *table) {
			k.says(one, 2)
			k.says(two, 2)
			k.apply(rotation.Answered{Client: two, Doubted: []int{1, 2}})
		}, false},
		"an answer is of the future": {func(k *table) {
			k.later(time.Minute)
			k.says(one, 2)
			k.says(two, 2)
			k.later(-time.Minute)
		}, false},
		"an entry is unreadable":      {func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.Incomplete = true }, false},
		"nobody is configured":        {func(k *table) { k.conf.Clients = nil }, false},
		"a client left today":         {func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.LeftTime = k.now.Add(-23 * time.Hour) }, false},
		"a client left yesterday":     {func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.LeftTime = k.now.Add(-24 * time.Hour) }, true},
		"a client leaves in a minute": {func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.LeftTime = k.now.Add(time.Minute) }, false},
		"a client leaves in a year": { // a clock was ahead
			func(k *table) { k.says(one, 2); k.says(two, 2); k.conf.LeftTime = k.now.Add(365 * 24 * time.Hour) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTable(t, one, two)
			k.says(one, 2)
			k.says(two, 2)
			k.settle()
			k.later(24 * time.Hour)
			c.happens(k)
			k.settle()
			k.want(map[bool]string{true: "destroyed active", false: "retired active"}[c.destroyed])
		})
	}
}

// Each version goes when its own clients can do without it, the oldest first.
func TestDestructionOfSeveral(t *testing.T) {
	k := newTable(t, one)
	k.apply(rotation.Force{})
	k.add()
	k.apply(rotation.Force{}, rotation.Retire{})
	k.says(one, -3, 2)
	k.settle()
	k.want("destroyed retired active")
	k.says(one, 3)
	k.settle()
	k.want("destroyed destroyed active")
	if len(k.key.Of(one).Verdicts) != 1 {
		t.Errorf("of destroyed versions is known %+v", k.key.Of(one))
	}
}

// Who asks again, and when.
func TestDue(t *testing.T) {
	k := newTable(t, one, two)
	due := func(clients ...rotation.Client) {
		t.Helper()
		if got := k.key.Due(k.conf, k.now); !slices.Equal(got, clients) {
			t.Errorf("%s after the start %v are due, not %v", k.now.Sub(start), got, clients)
		}
	}
	due(one, two)
	k.says(one, -2, 1)
	k.probed(one, rotation.Rejected)
	k.says(two, 2)
	k.probed(two, "")
	due()
	var pauses []time.Duration
	for asked := k.now; len(pauses) < 6; {
		k.later(time.Second)
		if len(k.key.Due(k.conf, k.now)) > 0 {
			due(one) // whoever has taken it is not asked again as long as another one rejects it
			pauses = append(pauses, k.now.Sub(asked))
			k.probed(one, rotation.Rejected)
			asked = k.now
		}
	}
	if want := []time.Duration{1, 2, 4, 8, 15, 15}; !reflect.DeepEqual(pauses, minutes(want)) {
		t.Errorf("while a version is pending the pauses are %v", pauses)
	}
	k.later(-48 * time.Hour)
	due(one) // a clock that was set back puts nothing off
	k.later(48*time.Hour + 15*time.Minute)

	// Before a destruction all are asked, disabled ones, too; then only those in the way, ever less often.
	k.apply(rotation.Force{}, rotation.Retire{})
	k.conf.Clients[1].Enabled = false
	k.later(2 * time.Hour)
	k.says(one, 2)
	k.probed(one, "")
	due(two)
	pauses = nil
	for asked := k.now; len(pauses) < 12; {
		if len(pauses) > 0 {
			k.later(time.Minute)
		}
		if len(k.key.Due(k.conf, k.now)) > 0 {
			due(two)
			pauses = append(pauses, k.now.Sub(asked))
			k.probed(two, rotation.Broken)
			asked = k.now
		}
	}
	if last := pauses[len(pauses)-1]; pauses[1] != 5*time.Minute || last < 16*time.Hour || last > 24*time.Hour {
		t.Errorf("before a destruction the pauses are %v", pauses)
	}
	k.conf.Incomplete = true
	k.later(24 * time.Hour)
	due() // nothing could be destroyed, whatever they say
	if undecided := k.key.Undecided(k.conf, k.now); len(undecided) > 0 {
		t.Errorf("undecided are %v", undecided)
	}
	k.conf.Incomplete = false
	if undecided := k.key.Undecided(k.conf, k.now); len(undecided) != 2 {
		t.Errorf("whatever the pauses, undecided are %v", undecided)
	}
}

func minutes(counts []time.Duration) []time.Duration {
	for i := range counts {
		counts[i] *= time.Minute
	}
	return counts
}

// Who gives no answer is asked last, so that the others are asked at all.
func TestDueAsksTheMuteLast(t *testing.T) {
	k := newTable(t, one, two)
	k.probed(one, rotation.Unanswered)
	k.later(time.Hour)
	if due := k.key.Due(k.conf, k.now); !slices.Equal(due, []rotation.Client{two, one}) {
		t.Errorf("due are %v", due)
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []rotation.Event
		err    error
		states string
	}{
		{"abandon", []rotation.Event{rotation.Abandon{}}, nil, "active retired"},
		{"abandon by force", []rotation.Event{rotation.Abandon{Force: true}}, nil, "active destroyed"},
		{"abandon twice", []rotation.Event{rotation.Abandon{}, rotation.Abandon{}}, rotation.ErrNoPending, "active pending"},
		{"force without one", []rotation.Event{rotation.Force{}, rotation.Force{}}, rotation.ErrNoPending, "active pending"},
		{"another pending one", []rotation.Event{rotation.Add{}}, rotation.ErrPendingExists, "active pending"},
		{"retire nothing", []rotation.Event{rotation.Retire{}}, rotation.ErrNotRetired, "active pending"},
		{"retire the active one", []rotation.Event{rotation.Retire{Version: 1}}, rotation.ErrNotRetired, "active pending"},
		{"retire what is not there", []rotation.Event{rotation.Retire{Version: 3}}, rotation.ErrNoSuchVersion, "active pending"},
		{"retire what is destroyed", []rotation.Event{rotation.Abandon{Force: true}, rotation.Retire{Version: 2}}, rotation.ErrDestroyed, "active pending"},
		{"retire", []rotation.Event{rotation.Force{}, rotation.Retire{}}, nil, "retired active"},
		{"retire by force", []rotation.Event{rotation.Force{}, rotation.Retire{Force: true}}, nil, "destroyed active"},
		{"revive", []rotation.Event{rotation.Abandon{}, rotation.Revive{Version: 2}}, nil, "active pending"},
		{"revive beside a pending one", []rotation.Event{rotation.Force{}, rotation.Add{}, rotation.Revive{Version: 1}}, rotation.ErrPendingExists, "active pending"},
		{"revive what is destroyed", []rotation.Event{rotation.Abandon{Force: true}, rotation.Revive{Version: 2}}, rotation.ErrNotRetired, "active pending"},
		{"the active one is compromised", []rotation.Event{rotation.Compromise{Version: 1}}, nil, "destroyed active"},
		{"it has a retired successor only", []rotation.Event{rotation.Force{}, rotation.Compromise{Version: 2}}, nil, "active destroyed"},
		{"the last one, too", []rotation.Event{rotation.Compromise{Version: 1}, rotation.Compromise{Version: 2}}, nil, "destroyed destroyed"},
		{"and another one is made", []rotation.Event{rotation.Compromise{Version: 1}, rotation.Compromise{Version: 2}, rotation.Add{}}, nil, "destroyed destroyed active"},
		{"compromised twice", []rotation.Event{rotation.Compromise{Version: 1}, rotation.Compromise{Version: 1}}, rotation.ErrDestroyed, "active pending"},
	} {
		k := newTable(t, one)
		if err := k.try(c.events...); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := k.states(); got != c.states {
			t.Errorf("%s: the versions are %s", c.name, got)
		}
	}
}

// A clock that was ahead when a version was retired does not keep it for good, and one that was set back does not end its
// grace period early.
func TestGraceByAClockThatIsWrong(t *testing.T) {
	for ahead, over := range map[time.Duration]bool{time.Minute: false, 23 * time.Hour: false, 365 * 24 * time.Hour: true} {
		k := newTable(t, one)
		k.later(ahead)
		k.apply(rotation.Force{})
		k.later(-ahead)
		v, _ := k.key.Get(1)
		if got := k.key.GraceOver(v, k.now); got != over {
			t.Errorf("retired by a clock %s ahead, its grace period is over: %v", ahead, got)
		}
	}
}

// Nothing grows without end: ten versions are held, and the records of a hundred destroyed ones stay.
func TestBounds(t *testing.T) {
	k := newTable(t, one)
	for k.apply(rotation.Force{}); len(k.key.Versions) < rotation.MaxHeld; k.apply(rotation.Force{}) {
		k.add()
	}
	if err := k.try(rotation.Add{}); !errors.Is(err, rotation.ErrTooManyHeld) {
		t.Errorf("an eleventh: %v", err)
	}
	for range 130 {
		k.apply(rotation.Retire{Force: true})
		k.add()
		k.apply(rotation.Force{})
	}
	destroyed := 0
	for i, v := range k.key.Versions {
		if v.State == rotation.Destroyed {
			destroyed++
		}
		if i > 0 && v.Number != k.key.Versions[i-1].Number+1 {
			t.Errorf("version %d follows %d", v.Number, k.key.Versions[i-1].Number)
		}
	}
	if last := k.key.Versions[len(k.key.Versions)-1]; destroyed != 100 || last.Number != 140 {
		t.Errorf("%d destroyed ones are kept, the last is version %d", destroyed, last.Number)
	}
}

// What is known of clients that left goes, unless they may come back.
func TestClientsThatLeft(t *testing.T) {
	for _, left := range []time.Duration{23 * time.Hour, 24 * time.Hour} {
		k := newTable(t, one, two)
		k.says(two, 1)
		k.conf.Clients = k.conf.Clients[:1]
		k.conf.LeftTime = k.now
		k.later(left)
		k.settle()
		if _, known := k.key.Clients[two.Digest()]; known != (left < 24*time.Hour) {
			t.Errorf("%s after it left it is known: %v", left, known)
		}
	}
}

// TestRandomEvents keeps the form of a key, whatever comes in whatever order, and never changes what it is applied to.
func TestRandomEvents(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		k := newTable(t, one, two)
		for range 300 {
			version, client := 1+r.IntN(len(k.key.Versions)+1), k.conf.Clients[r.IntN(2)].Client
			events := []rotation.Event{
				rotation.Add{}, rotation.Add{}, rotation.Force{}, rotation.Abandon{}, rotation.Abandon{Force: true}, rotation.Retire{},
				rotation.Retire{Version: version, Force: true}, rotation.Compromise{Version: version}, rotation.Revive{Version: version},
				rotation.Settle{Configuration: k.conf}, rotation.Probed{Client: client, Outcome: rotation.Broken},
				rotation.Answered{Client: client, Verdicts: []rotation.Verdict{{Version: version, Taken: true, Time: k.now}}},
				rotation.Answered{Client: client, Verdicts: []rotation.Verdict{
					{Version: version, Time: k.now}, {Version: 1 + r.IntN(version), Taken: true, Time: k.now}}},
			}
			_ = k.try(events[r.IntN(len(events))])
			k.later(time.Duration(r.Int64N(int64(20 * time.Hour))))
			count := map[rotation.State]int{}
			for _, v := range k.key.Versions {
				count[v.State]++
			}
			held := len(k.key.Versions) - count[rotation.Destroyed]
			if count[rotation.Pending] > 1 || held > rotation.MaxHeld || held > 0 && count[rotation.Active] != 1 {
				t.Fatalf("seed %d: the versions are %s", seed, k.states())
			}
			for _, client := range k.conf.Clients {
				v, found := k.key.Get(k.key.Signing(client.Client))
				if found != (held > 0) || found && !v.Held() {
					t.Fatalf("seed %d: %+v signs", seed, v)
				}
			}
		}
	}
}
