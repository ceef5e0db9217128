// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alice = Client{"alice", "https://redox.test/token"}
	bob   = Client{"bob", "https://redox.test/token"}
)

// keyIn returns a key whose versions 1, 2, … are in the given states.
func keyIn(states ...State) Key {
	k := Key{Grace: grace}
	for i, state := range states {
		v := Version{Number: i + 1, KID: string(rune('a' + i)), State: state, CreatedTime: start}
		if state == Retired {
			v.RetiredTime = start
		}
		k.Versions = append(k.Versions, v)
	}
	return k
}

// accepted returns the key with what was accepted for some clients.
func (k Key) accepted(number int, clients ...Client) Key {
	k = k.clone()
	for _, client := range clients {
		k.Clients.Standings = append(k.Clients.Standings, Standing{Client: client, Accepted: number, AcceptedTime: start})
	}
	return k
}

// after returns the key after an event that is possible and moves no version.
func (k Key) after(t *testing.T, e Event, now time.Time) Key {
	t.Helper()
	next, transitions, err := k.Apply(e, now)
	if err != nil || len(transitions) > 0 {
		t.Fatalf("%T: %v %v", e, transitions, err)
	}
	return next
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		key  Key
		want []int
	}{
		"nothing accepted: active, pending, retired":  {keyIn(Retired, Retired, Active, Pending), []int{3, 4, 2, 1}},
		"another client's acceptance changes nothing": {keyIn(Active, Pending).accepted(2, bob), []int{1, 2}},
		"the pending one is accepted":                 {keyIn(Active, Pending).accepted(2, alice), []int{2, 1}},
		"the active one is accepted":                  {keyIn(Retired, Active, Pending).accepted(2, alice), []int{2, 3, 1}},
		"gone back to a retired one":                  {keyIn(Retired, Retired, Active, Pending).accepted(2, alice), []int{2, 4, 3, 1}},
		"what was accepted is destroyed":              {keyIn(Destroyed, Active, Pending).accepted(1, alice), []int{2, 3}},
		"no version is active":                        {keyIn(Destroyed).accepted(1, alice), nil},
	} {
		if got := c.key.Order(alice); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

func TestVersionsAreFound(t *testing.T) {
	k := keyIn(Destroyed, Retired, Retired, Active)
	for name, c := range map[string]struct {
		find func() (Version, bool)
		want int // 0 for none
	}{
		"the newest of two": {func() (Version, bool) { return k.Find(Retired) }, 3},
		"none in a state":   {func() (Version, bool) { return k.Find(Pending) }, 0},
		"by its number":     {func() (Version, bool) { return k.Get(2) }, 2},
		"no such number":    {func() (Version, bool) { return k.Get(5) }, 0},
		"wanted: active":    {k.Wanted, 4},
		"wanted: pending":   {keyIn(Active, Pending).Wanted, 2},
		"wanted: none":      {keyIn(Destroyed).Wanted, 0},
	} {
		if v, found := c.find(); v.Number != c.want || found != (c.want > 0) {
			t.Errorf("%s: %v, version %d", name, found, v.Number)
		}
	}
}

func TestProbesBackOff(t *testing.T) {
	k, now := keyIn(Active, Pending).accepted(1, alice, bob), start
	k = k.after(t, Accepted{bob, 2}, now)
	var pauses []time.Duration
	for range 7 {
		if due := k.Due(now); !slices.Equal(due, []Client{alice}) {
			t.Fatalf("due: %v", due)
		}
		k = k.after(t, Rejected{alice, 2, "rejected"}, now)
		probe := k.standing(alice).Probe
		pauses = append(pauses, probe.NextTime.Sub(now))
		for _, early := range []time.Time{now, probe.NextTime.Add(-1)} {
			if due := k.Due(early); len(due) > 0 {
				t.Fatalf("due before its time: %v", due)
			}
		}
		now = probe.NextTime
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute,
		15 * time.Minute, 15 * time.Minute, 15 * time.Minute}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses: %v", pauses)
	}
	probe := k.standing(alice).Probe
	if probe.Asked != 7 || !probe.FirstTime.Equal(start) || probe.Answer != "rejected" {
		t.Errorf("probe: %+v", probe)
	}
	if due := k.Due(start.Add(-time.Hour)); len(due) != 1 {
		t.Error("a clock that was set back puts the next probe off")
	}
	// Another version is another probe, and a success ends it.
	k = k.after(t, Rejected{alice, 3, "rejected"}, now)
	if probe := k.standing(alice).Probe; probe.Asked != 1 || probe.Version != 3 {
		t.Errorf("probe of the next version: %+v", probe)
	}
	before := k
	k = k.after(t, Accepted{alice, 3}, now)
	if k.Clients.Equal(before.Clients) || k.standing(alice).Probe != (Probe{}) {
		t.Error("a success does not end the probe")
	}
	if after := k.after(t, Rejected{Client{"carol", ""}, 2, "rejected"}, now); !after.Clients.Equal(k.Clients) {
		t.Error("an unknown client is recorded by a rejection: a mistyped role would hold promotions up")
	}
}

func TestAcceptedStoresOnlyWhatIsNew(t *testing.T) {
	k := keyIn(Retired, Active)
	k.Grace = time.Hour
	steps := []struct {
		what   string
		number int
		after  time.Duration
		stores bool
	}{
		{"first mint", 2, 0, true},
		{"second mint", 2, time.Minute, false},
		{"a retired version mints", 1, 2 * time.Minute, true},
		{"and again soon", 1, 3 * time.Minute, false},
		{"and a little less than an hour later", 1, 62*time.Minute - 1, false},
		{"and an hour later", 1, 62 * time.Minute, true},
		{"back to the active one", 2, 64 * time.Minute, true},
	}
	for _, step := range steps {
		after := k.after(t, Accepted{alice, step.number}, start.Add(step.after))
		if stores := !after.Clients.Equal(k.Clients); stores != step.stores {
			t.Errorf("%s: stores: %v", step.what, stores)
		}
		k = after
	}
	if end := k.GraceEnd(k.Versions[0]); !end.Equal(start.Add(62*time.Minute + time.Hour)) {
		t.Errorf("the grace period does not begin again with the last use: %v", end)
	}
	if after := k.after(t, Prune{[]Client{alice}}, start); !after.Clients.Equal(k.Clients) || len(after.Clients.RetiredUse) != 1 {
		t.Error("the use of a retired version is dropped, or something else has changed")
	}
	k.Versions = keyIn(Destroyed, Active).Versions
	if after := k.after(t, Prune{[]Client{alice}}, start); after.Clients.Equal(k.Clients) || len(after.Clients.RetiredUse) > 0 {
		t.Error("the use of a destroyed version is kept")
	}
}

func TestAdd(t *testing.T) {
	add := func(k Key, kid string) (Key, Transition, error) {
		k, transitions, err := k.Apply(Add{Version{KID: kid, CreatedTime: start}, "test"}, start)
		if len(transitions) != 1 {
			return k, Transition{}, err
		}
		return k, transitions[0], err
	}
	first, made, err := add(Key{}, "a")
	if v := first.Versions[0]; err != nil || v.State != Active || v.Number != 1 || !v.ActivatedTime.Equal(start) || made.To != Active {
		t.Errorf("the first version: %+v %+v %v", first, made, err)
	}
	second, made, err := add(first, "b")
	if v := second.Versions[1]; err != nil || v.State != Pending || v.Number != 2 || made.To != Pending || len(first.Versions) != 1 {
		t.Errorf("the second version: %+v %+v %v", second, made, err)
	}
	if _, _, err := add(second, "c"); !errors.Is(err, ErrPendingExists) {
		t.Errorf("a second pending version: %v", err)
	}
	third, _, err := add(keyIn(Destroyed), "b")
	if err != nil || third.Versions[1].State != Active {
		t.Errorf("after the only version was destroyed: %+v %v", third, err)
	}
}

// TestRefusals are the changes that would take a key away from somebody.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		event Event
		key   Key
		want  error
	}{
		"abandon nothing":             {Abandon{}, keyIn(Active), ErrNoPending},
		"abandon what somebody uses":  {Abandon{}, keyIn(Active, Pending).accepted(2, alice), ErrPendingInUse},
		"abandon":                     {Abandon{}, keyIn(Active, Pending).accepted(1, alice), nil},
		"retire the active one":       {Retire{1}, keyIn(Active), ErrNotRetired},
		"retire a destroyed one":      {Retire{1}, keyIn(Destroyed, Active), ErrDestroyed},
		"retire none":                 {Retire{3}, keyIn(Active), ErrNoSuchVersion},
		"retire what somebody uses":   {Retire{1}, keyIn(Retired, Active).accepted(1, alice), ErrVersionInUse},
		"retire":                      {Retire{1}, keyIn(Retired, Active).accepted(2, alice), nil},
		"compromised and used":        {Compromise{1}, keyIn(Active).accepted(1, alice), nil},
		"compromised and destroyed":   {Compromise{1}, keyIn(Destroyed, Active), ErrDestroyed},
		"compromised, and none such":  {Compromise{9}, keyIn(Active), ErrNoSuchVersion},
		"force nothing":               {Force{}, keyIn(Active), ErrNoPending},
		"force what nobody accepted":  {Force{}, keyIn(Active, Pending).accepted(1, alice), nil},
		"force what nobody ever used": {Force{}, keyIn(Active, Pending), nil},
	} {
		before := slices.Clone(c.key.Versions)
		changed, transitions, err := c.key.Apply(c.event, start)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
		if err != nil != (len(changed.Versions) == 0 && len(transitions) == 0) {
			t.Errorf("%s: %v %v", name, changed, transitions)
		}
		if !slices.Equal(before, c.key.Versions) {
			t.Errorf("%s: the record given was changed in place", name)
		}
	}
}

func TestForceCountsForAll(t *testing.T) {
	k, transitions, err := keyIn(Active, Pending).accepted(1, alice, bob).Apply(Force{}, start)
	if err != nil || k.Versions[1].State != Active || k.Versions[0].State != Retired || !k.Versions[1].Forced || len(transitions) != 2 {
		t.Fatalf("%+v %+v %v", k, transitions, err)
	}
	if needs := k.Needs(2); len(needs) != 2 {
		t.Errorf("accepted for %v only", needs)
	}
	if k, _, _ := keyIn(Active, Pending).accepted(2, alice).Apply(Force{}, start); k.Versions[1].Forced {
		t.Error("what everybody had accepted is recorded as forced")
	}
}

func TestCompromisedActiveVersionIsSucceeded(t *testing.T) {
	k, transitions, err := keyIn(Active, Pending).Apply(Compromise{1}, start)
	if err != nil || k.Versions[0].State != Destroyed || !k.Versions[0].Compromised || k.Versions[1].State != Active || !k.Versions[1].Forced {
		t.Errorf("%+v %+v %v", k, transitions, err)
	}
}

// RetireAll takes what nobody needs, and nothing else.
func TestRetireAll(t *testing.T) {
	k, transitions, err := keyIn(Retired, Retired, Destroyed, Active, Pending).accepted(2, alice).Apply(RetireAll{}, start)
	if err != nil || len(transitions) != 1 || transitions[0].Version != 1 {
		t.Fatalf("%+v %v", transitions, err)
	}
	for i, want := range []State{Destroyed, Retired, Destroyed, Active, Pending} {
		if k.Versions[i].State != want {
			t.Errorf("version %d is %s, not %s", i+1, k.Versions[i].State, want)
		}
	}
	if _, _, err := keyIn(Retired, Active).accepted(1, alice).Apply(RetireAll{}, start); !errors.Is(err, ErrVersionInUse) {
		t.Errorf("with one that somebody uses: %v", err)
	}
	if _, _, err := keyIn(Destroyed, Active, Pending).Apply(RetireAll{}, start); !errors.Is(err, ErrNotRetired) {
		t.Errorf("with none: %v", err)
	}
}

func TestPromotionWaitsForEveryClient(t *testing.T) {
	k := keyIn(Active, Pending).accepted(1, alice, bob).after(t, Accepted{alice, 2}, start)
	if _, transitions, _ := k.Apply(Settle{}, start); len(transitions) > 0 {
		t.Fatalf("promoted with bob waiting: %v", transitions)
	}
	if waiting := k.Waiting(); len(waiting) != 1 || waiting[0].Client != bob {
		t.Errorf("waiting: %v", waiting)
	}
	k = k.after(t, Prune{[]Client{alice}}, start)
	settled, transitions, _ := k.Apply(Settle{}, start)
	if len(transitions) != 2 || settled.Versions[1].State != Active || settled.Versions[0].State != Retired {
		t.Errorf("not promoted once bob is gone: %v", transitions)
	}
	if _, transitions, _ := keyIn(Active, Pending).Apply(Settle{}, start); len(transitions) > 0 {
		t.Errorf("promoted with nobody to prove it: %v", transitions)
	}
}

// Activate does what Settle does, and is an error when that leaves a pending version.
func TestActivate(t *testing.T) {
	for name, c := range map[string]struct {
		key         Key
		transitions int
		waiting     []Client // for an error
		refused     bool
	}{
		"accepted for all":     {keyIn(Active, Pending).accepted(2, alice, bob), 2, nil, false},
		"accepted for one":     {keyIn(Active, Pending).accepted(1, alice).accepted(2, bob), 0, []Client{alice}, true},
		"no client is known":   {keyIn(Active, Pending), 0, nil, true},
		"nothing is pending":   {keyIn(Active).accepted(1, alice), 0, nil, false},
		"only a grace is over": {keyIn(Retired, Active).accepted(2, alice), 1, nil, false},
	} {
		_, transitions, err := c.key.Apply(Activate{}, start.Add(grace))
		if len(transitions) != c.transitions || err != nil != c.refused {
			t.Errorf("%s: %v %v", name, transitions, err)
		}
		if refusal := (*NotAcceptedError)(nil); errors.As(err, &refusal) != c.refused || c.refused && !slices.Equal(refusal.Waiting, c.waiting) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Events that are replayed each happen at their own time, and the first that is not possible ends them all.
func TestReplay(t *testing.T) {
	k := keyIn(Active, Pending)
	replayed, transitions, err := k.Replay([]At{
		{start, Accepted{alice, 2}}, {start.Add(time.Minute), Settle{}}, {start.Add(time.Minute + grace), Settle{}},
	})
	if err != nil || len(transitions) != 3 || replayed.Versions[0].State != Destroyed ||
		!replayed.Versions[1].ActivatedTime.Equal(start.Add(time.Minute)) || !replayed.Clients.Standings[0].AcceptedTime.Equal(start) {
		t.Errorf("%+v %v %v", replayed, transitions, err)
	}
	if replayed, _, err := k.Replay([]At{{start, Accepted{alice, 2}}, {start, Retire{2}}}); !errors.Is(err, ErrNotRetired) || len(replayed.Versions) > 0 {
		t.Errorf("%+v %v", replayed, err)
	}
}

func TestClientsEqual(t *testing.T) {
	clients := keyIn(Retired, Active).accepted(2, alice).after(t, Accepted{bob, 1}, start).Clients
	for name, change := range map[string]func(*Clients){
		"a standing": func(c *Clients) { c.Standings[1].Probe.Asked++ },
		"one more":   func(c *Clients) { c.Standings = append(c.Standings, Standing{}) },
		"a use":      func(c *Clients) { c.RetiredUse[1] = start.Add(1) },
		"nothing":    nil,
	} {
		other := Key{Clients: clients}.clone().Clients
		if change != nil {
			change(&other)
		}
		if got := clients.Equal(other); got != (change == nil) {
			t.Errorf("with a change of %s, they are equal: %v", name, got)
		}
	}
	if !(Clients{}).Equal(Clients{RetiredUse: map[int]time.Time{}}) {
		t.Error("an empty map is not taken for none")
	}
}

// Key.clone copies versions and standings as they are: that is a copy only as long as they hold nothing that is shared.
func TestRecordsHoldNothingThatIsShared(t *testing.T) {
	var check func(reflect.Type)
	check = func(r reflect.Type) {
		switch r.Kind() {
		case reflect.Struct:
			if r == reflect.TypeFor[time.Time]() {
				return
			}
			for i := range r.NumField() {
				check(r.Field(i).Type)
			}
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
			t.Errorf("%v is shared by copies", r)
		default: // a plain value
		}
	}
	check(reflect.TypeFor[Version]())
	check(reflect.TypeFor[Standing]())
}

// What was not asked is not stored, as it was when a pointer stood for it.
func TestStoredFormOfStandings(t *testing.T) {
	const rejected = `{"client_id":"alice","token_url":"https://redox.test/token","accepted":1,"accepted_time":"2026-01-02T03:04:05Z",` +
		`"trial":{"version":2,"tries":1,"first_time":"2026-01-02T03:04:05Z","last_time":"2026-01-02T03:04:05Z",` +
		`"next_time":"2026-01-02T03:05:05Z","answer":"no"}}`
	const accepted = `{"client_id":"bob","token_url":"https://redox.test/token","accepted":1,"accepted_time":"2026-01-02T03:04:05Z"}`
	const want = `{"standings":[` + rejected + `,` + accepted + `],"retired_use":{"1":"2026-01-02T03:04:05Z"}}`
	k := keyIn(Retired, Active).accepted(1, alice).after(t, Accepted{bob, 1}, start).after(t, Rejected{alice, 2, "no"}, start)
	text, err := json.Marshal(k.Clients)
	if err != nil || string(text) != want {
		t.Errorf("%s %v", text, err)
	}
	var read Clients
	if err := json.Unmarshal(text, &read); err != nil || !read.Equal(k.Clients) {
		t.Errorf("%+v %v", read, err)
	}
}
