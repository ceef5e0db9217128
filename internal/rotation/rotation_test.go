// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	alice = User{"alice", "https://redox.test/token"}
	bob   = User{"bob", "https://redox.test/token"}
)

// versionsIn gives versions 1, 2, … in the given states.
func versionsIn(states ...State) []Version {
	var versions []Version
	for i, state := range states {
		v := Version{Number: i + 1, KeyID: string(rune('a' + i)), State: state, CreatedTime: start}
		if state == Retired {
			v.RetiredTime = start
		}
		versions = append(versions, v)
	}
	return versions
}

func accepted(number int, users ...User) *Acceptance {
	a := &Acceptance{}
	for _, user := range users {
		a.Standings = append(a.Standings, Standing{User: user, Accepted: number, AcceptedTime: start})
	}
	return a
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		versions   []Version
		acceptance *Acceptance
		want       []int
	}{
		"nothing accepted: active, pending, retired": {versionsIn(Retired, Retired, Active, Pending), &Acceptance{}, []int{3, 4, 2, 1}},
		"another user's acceptance says nothing":     {versionsIn(Active, Pending), accepted(2, bob), []int{1, 2}},
		"the pending one is accepted":                {versionsIn(Active, Pending), accepted(2, alice), []int{2, 1}},
		"the active one is accepted":                 {versionsIn(Retired, Active, Pending), accepted(2, alice), []int{2, 3, 1}},
		"gone back to a retired one":                 {versionsIn(Retired, Retired, Active, Pending), accepted(2, alice), []int{2, 4, 3, 1}},
		"what was accepted is destroyed":             {versionsIn(Destroyed, Active, Pending), accepted(1, alice), []int{2, 3}},
		"no version is active":                       {versionsIn(Destroyed), accepted(1, alice), nil},
	} {
		if got := Order(c.versions, c.acceptance, alice); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, not %v", name, got, c.want)
		}
	}
}

func TestTrialsBackOff(t *testing.T) {
	versions, a, now := versionsIn(Active, Pending), accepted(1, alice, bob), start
	a.Minted(versions, bob, 2, now)
	var pauses []time.Duration
	for range 7 {
		if due := a.Due(versions, now); !slices.Equal(due, []User{alice}) {
			t.Fatalf("due: %v", due)
		}
		a.Refused(alice, 2, "refused", now)
		trial := a.standing(alice).Trial
		pauses = append(pauses, trial.NextTime.Sub(now))
		for _, early := range []time.Time{now, trial.NextTime.Add(-1)} {
			if due := a.Due(versions, early); len(due) > 0 {
				t.Fatalf("due before its time: %v", due)
			}
		}
		now = trial.NextTime
	}
	want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute,
		15 * time.Minute, 15 * time.Minute, 15 * time.Minute}
	if !slices.Equal(pauses, want) {
		t.Errorf("pauses: %v", pauses)
	}
	trial := a.standing(alice).Trial
	if trial.Tries != 7 || !trial.FirstTime.Equal(start) || trial.Answer != "refused" {
		t.Errorf("trial: %+v", trial)
	}
	if due := a.Due(versions, start.Add(-time.Hour)); len(due) != 1 {
		t.Error("a clock that was set back puts the next trial off")
	}
	// Another version is another trial, and a success ends it.
	a.Refused(alice, 3, "refused", now)
	if trial := a.standing(alice).Trial; trial.Tries != 1 || trial.Version != 3 {
		t.Errorf("trial of the next version: %+v", trial)
	}
	if !a.Minted(versions, alice, 3, now) || a.standing(alice).Trial != nil {
		t.Error("a success does not end the trial")
	}
	if a.Refused(User{"carol", ""}, 2, "refused", now) {
		t.Error("an unknown user is recorded by a refusal: a mistyped role would hold promotions up")
	}
}

func TestMintedStoresOnlyWhatIsNew(t *testing.T) {
	versions, a := versionsIn(Retired, Active), &Acceptance{}
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
		if got := a.Minted(versions, alice, step.number, start.Add(step.after)); got != step.stores {
			t.Errorf("%s: stores: %v", step.what, got)
		}
	}
	if end := GraceEnd(&versions[0], a, time.Hour); !end.Equal(start.Add(62*time.Minute + time.Hour)) {
		t.Errorf("the grace period does not begin again with the last use: %v", end)
	}
	if a.Prune(versions, func(User) bool { return true }) || len(a.RetiredUse) != 1 {
		t.Error("the use of a retired version is dropped, or nothing is said to have changed something")
	}
	if !a.Prune(versionsIn(Destroyed, Active), func(User) bool { return true }) || len(a.RetiredUse) > 0 {
		t.Error("the use of a destroyed version is kept")
	}
}

func TestAdd(t *testing.T) {
	first, made, err := Add(nil, Version{KeyID: "a", CreatedTime: start}, "created")
	if err != nil || first[0].State != Active || first[0].Number != 1 || !first[0].ActivatedTime.Equal(start) || made.To != Active {
		t.Errorf("the first version: %+v %+v %v", first, made, err)
	}
	second, made, err := Add(first, Version{KeyID: "b", CreatedTime: start}, "rotated")
	if err != nil || second[1].State != Pending || second[1].Number != 2 || made.To != Pending || len(first) != 1 {
		t.Errorf("the second version: %+v %+v %v", second, made, err)
	}
	if _, _, err := Add(second, Version{KeyID: "c"}, "rotated"); !errors.Is(err, ErrPendingExists) {
		t.Errorf("a second pending version: %v", err)
	}
	third, _, err := Add(versionsIn(Destroyed), Version{KeyID: "b", CreatedTime: start}, "rotated")
	if err != nil || third[1].State != Active {
		t.Errorf("after the only version was destroyed: %+v %v", third, err)
	}
}

// TestRefusals are the changes that would take a key away from somebody.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]Version, *Acceptance) ([]Version, []Transition, error)
		states []State
		users  *Acceptance
		want   error
	}{
		"abandon nothing":             {abandon, []State{Active}, &Acceptance{}, ErrNoPending},
		"abandon what somebody uses":  {abandon, []State{Active, Pending}, accepted(2, alice), ErrPendingInUse},
		"abandon":                     {abandon, []State{Active, Pending}, accepted(1, alice), nil},
		"retire the active one":       {retire(1), []State{Active}, &Acceptance{}, ErrNotRetired},
		"retire a destroyed one":      {retire(1), []State{Destroyed, Active}, &Acceptance{}, ErrDestroyed},
		"retire none":                 {retire(3), []State{Active}, &Acceptance{}, ErrNoSuchVersion},
		"retire what somebody uses":   {retire(1), []State{Retired, Active}, accepted(1, alice), ErrVersionInUse},
		"retire":                      {retire(1), []State{Retired, Active}, accepted(2, alice), nil},
		"compromised and used":        {compromise(1), []State{Active}, accepted(1, alice), nil},
		"compromised and destroyed":   {compromise(1), []State{Destroyed, Active}, &Acceptance{}, ErrDestroyed},
		"compromised, and none such":  {compromise(9), []State{Active}, &Acceptance{}, ErrNoSuchVersion},
		"force nothing":               {force, []State{Active}, &Acceptance{}, ErrNoPending},
		"force what nobody accepted":  {force, []State{Active, Pending}, accepted(1, alice), nil},
		"force what nobody ever used": {force, []State{Active, Pending}, &Acceptance{}, nil},
	} {
		versions := versionsIn(c.states...)
		before := slices.Clone(versions)
		changed, transitions, err := c.change(versions, c.users)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
		if err != nil != (len(changed) == 0 && len(transitions) == 0) {
			t.Errorf("%s: %v %v", name, changed, transitions)
		}
		if !slices.Equal(before, versions) {
			t.Errorf("%s: the record given was changed in place", name)
		}
	}
}

func abandon(v []Version, a *Acceptance) ([]Version, []Transition, error) {
	return Abandon(v, a, start)
}
func force(v []Version, a *Acceptance) ([]Version, []Transition, error) { return Force(v, a, start) }
func retire(number int) func([]Version, *Acceptance) ([]Version, []Transition, error) {
	return func(v []Version, a *Acceptance) ([]Version, []Transition, error) { return Retire(v, a, number, start) }
}
func compromise(number int) func([]Version, *Acceptance) ([]Version, []Transition, error) {
	return func(v []Version, _ *Acceptance) ([]Version, []Transition, error) { return Compromise(v, number, start) }
}

func TestForceCountsForAll(t *testing.T) {
	a := accepted(1, alice, bob)
	versions, transitions, err := Force(versionsIn(Active, Pending), a, start)
	if err != nil || versions[1].State != Active || versions[0].State != Retired || !versions[1].Forced || len(transitions) != 2 {
		t.Fatalf("%+v %+v %v", versions, transitions, err)
	}
	if needs := a.Needs(2); len(needs) != 2 {
		t.Errorf("accepted for %v only", needs)
	}
	if versions, _, _ := Force(versionsIn(Active, Pending), accepted(2, alice), start); versions[1].Forced {
		t.Error("what everybody had accepted is recorded as forced")
	}
}

func TestCompromisedActiveVersionIsSucceeded(t *testing.T) {
	versions, transitions, err := Compromise(versionsIn(Active, Pending), 1, start)
	if err != nil || versions[0].State != Destroyed || !versions[0].Compromised || versions[1].State != Active || !versions[1].Forced {
		t.Errorf("%+v %+v %v", versions, transitions, err)
	}
}

// RetireAll takes what nobody needs, and nothing else.
func TestRetireAll(t *testing.T) {
	versions, transitions, err := RetireAll(versionsIn(Retired, Retired, Destroyed, Active, Pending), accepted(2, alice), start)
	if err != nil || len(transitions) != 1 || transitions[0].Version != 1 {
		t.Fatalf("%+v %v", transitions, err)
	}
	for i, want := range []State{Destroyed, Retired, Destroyed, Active, Pending} {
		if versions[i].State != want {
			t.Errorf("version %d is %s, not %s", i+1, versions[i].State, want)
		}
	}
	if _, _, err := RetireAll(versionsIn(Retired, Active), accepted(1, alice), start); !errors.Is(err, ErrVersionInUse) {
		t.Errorf("with one that somebody uses: %v", err)
	}
	if _, _, err := RetireAll(versionsIn(Destroyed, Active, Pending), &Acceptance{}, start); !errors.Is(err, ErrNotRetired) {
		t.Errorf("with none: %v", err)
	}
}

func TestPromotionWaitsForEveryUser(t *testing.T) {
	versions, a := versionsIn(Active, Pending), accepted(1, alice, bob)
	a.Minted(versions, alice, 2, start)
	if _, transitions := Settle(versions, a, grace, start); len(transitions) > 0 {
		t.Fatalf("promoted with bob waiting: %v", transitions)
	}
	if waiting := a.Waiting(versions); len(waiting) != 1 || waiting[0].User != bob {
		t.Errorf("waiting: %v", waiting)
	}
	a.Prune(versions, func(u User) bool { return u != bob })
	settled, transitions := Settle(versions, a, grace, start)
	if len(transitions) != 2 || settled[1].State != Active || settled[0].State != Retired {
		t.Errorf("not promoted once bob is gone: %v", transitions)
	}
	if _, transitions := Settle(versionsIn(Active, Pending), &Acceptance{}, grace, start); len(transitions) > 0 {
		t.Errorf("promoted with nobody to prove it: %v", transitions)
	}
}
