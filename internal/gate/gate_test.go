// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// trial is a gate in a bubble of synctest, with those who come to it.
type trial struct {
	*Gate
	t     *testing.T
	start time.Time

	mu      sync.Mutex
	order   []string // who was let in, at which second, or refused
	passes  map[string]*Pass
	seconds map[string]time.Duration
}

func newTrial(t *testing.T, l Limits) *trial {
	return &trial{Gate: New(l, nil), t: t, start: time.Now(), passes: map[string]*Pass{}, seconds: map[string]time.Duration{}}
}

// comes has somebody come to the gate, who waits at most so long and stays until let go.
func (r *trial) comes(name string, patience time.Duration, p Place) {
	ctx, cancel := context.WithTimeout(With(context.Background(), p), patience)
	go func() {
		defer cancel()
		pass, err := r.Enter(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seconds[name] = time.Since(r.start)
		if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
			why := "busy"
			switch {
			case refusal.Closed:
				why = "closed"
			case refusal.Wait > 0:
				why = "rate"
			}
			name = fmt.Sprintf("not %s (%s)", name, why)
		} else if err != nil {
			name = "not " + name
		}
		r.passes[name] = pass
		r.order = append(r.order, name)
	}()
	synctest.Wait()
}

// leaves lets somebody go.
func (r *trial) leaves(name string) {
	r.t.Helper()
	r.mu.Lock()
	pass := r.passes[name]
	r.mu.Unlock()
	if pass == nil {
		r.t.Fatalf("%s is not inside: %v", name, r.order)
	}
	pass.Leave()
	synctest.Wait()
}

func (r *trial) want(order ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.order, order) {
		r.t.Errorf("the order is %q, want %q", r.order, order)
	}
	r.order = nil
}

// TestOrder: so many at once; those who are waited for go first, and of one class who has wanted it longest; who begins to
// be waited for moves up; who gives up is not counted.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{AtOnce: 2})
		raised := make(chan struct{})
		long := time.Hour
		r.comes("a", long, Place{})
		r.comes("b", long, Place{})
		r.comes("probe", long, Place{Class: Upkeep})
		r.comes("ahead", long, Place{Class: Ahead})
		r.comes("raised", long, Place{Class: Ahead, Raised: raised})
		r.comes("late", long, Place{})
		r.comes("impatient", time.Second, Place{})
		r.comes("old", long, Place{Waited: time.Minute})
		r.want("a", "b")
		if s := r.State(); s.Inside != 2 || s.Waiting != 6 || s.Left != -1 || s.ClosedFor != 0 {
			t.Errorf("the state is %+v", s)
		}
		time.Sleep(2 * time.Second)
		r.want("not impatient (busy)")
		close(raised)
		synctest.Wait()
		for _, one := range []string{"a", "b", "old", "raised", "late", "ahead"} {
			r.leaves(one)
		}
		r.want("old", "raised", "late", "ahead", "probe")
		r.leaves("probe")
		if s := r.State(); s.Inside != 0 || s.Waiting != 0 || !r.Idle() {
			t.Errorf("at the end the state is %+v", s)
		}
	})
}

// TestRate: in any five minutes no more than the limit go through, a quarter of them at once.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 400
		r := newTrial(t, Limits{PerWindow: limit})
		var mu sync.Mutex
		var passed []time.Duration
		for range 1500 {
			go func() {
				pass, err := r.Enter(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				passed = append(passed, time.Since(r.start))
				mu.Unlock()
				pass.Leave()
			}()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(passed) != 1500 {
			t.Fatalf("%d went through", len(passed))
		}
		if at := passed[limit/4-1]; at != 0 {
			t.Errorf("a quarter had gone through after %s", at)
		}
		for i := range passed {
			within := 0
			for _, at := range passed[i:] {
				if at < passed[i]+window {
					within++
				}
			}
			if within > limit {
				t.Fatalf("%d went through within five minutes", within)
			}
		}
		// Unused for a window, a quarter may go through again.
		if s := r.State(); s.Left != limit/4 || !r.Idle() {
			t.Errorf("an hour later the state is %+v", s)
		}
	})
}

// TestInVain: who can't be let through in time is told so at once, and who can waits.
func TestInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{PerWindow: 400}) // one a second after the first hundred
		for n := range 100 {
			r.comes(fmt.Sprint(n), time.Second, Place{})
		}
		r.order = nil
		r.comes("first", 10*time.Second, Place{})
		r.comes("second", 10*time.Second, Place{})
		r.comes("hasty", 2500*time.Millisecond, Place{})
		r.want("not hasty (rate)")
		raised := make(chan struct{})
		close(raised)
		r.comes("before all", 1500*time.Millisecond, Place{Class: Upkeep, Waited: time.Minute, Raised: raised})
		r.comes("probe", 3500*time.Millisecond, Place{Class: Upkeep})
		r.want("not probe (rate)")
		time.Sleep(10 * time.Second)
		r.want("before all", "first", "second")
		if first, second := r.seconds["first"], r.seconds["second"]; first != 2*time.Second || second != 3*time.Second {
			t.Errorf("let in after %s and %s", first, second)
		}
	})
}

// TestClosed: a 429 closes the gate, for as long as the server asks but no longer than five minutes; who can't wait so long
// is told at once; then one goes through, and the others wait for what the server says.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{AtOnce: 3})
		r.comes("one", time.Hour, Place{})
		r.comes("two", time.Hour, Place{})
		r.comes("three", time.Hour, Place{})
		r.comes("hasty", 5*time.Second, Place{})
		r.comes("patient", time.Minute, Place{})
		r.comes("patient too", time.Minute, Place{})
		r.want("one", "two", "three")
		r.Limited(10 * time.Second)
		r.want("not hasty (closed)")
		r.Answered() // which was under way before
		if s := r.State(); s.ClosedFor != 10*time.Second {
			t.Errorf("closed for %s", s.ClosedFor)
		}
		r.comes("newcomer", 5*time.Second, Place{})
		r.want("not newcomer (closed)")
		r.leaves("one")
		r.leaves("two")
		r.leaves("three")
		time.Sleep(10 * time.Second)
		r.want("patient")
		time.Sleep(time.Second)
		r.Limited(time.Hour) // which is not believed
		r.want("not patient too (closed)")
		if s := r.State(); s.ClosedFor != 5*time.Minute {
			t.Errorf("closed for %s", s.ClosedFor)
		}
		r.leaves("patient")
		time.Sleep(5*time.Minute - time.Second)
		r.comes("first", time.Minute, Place{})
		r.comes("second", time.Minute, Place{})
		time.Sleep(time.Second)
		r.want("first")
		r.Answered()
		r.want("second")
	})
}

// TestPauses: where the server does not say for how long, pauses grow, and begin small again once it has answered.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{AtOnce: 10})
		pause := func() time.Duration {
			r.Limited(0)
			r.Limited(0) // of the same moment
			closed := r.State().ClosedFor
			time.Sleep(closed)
			return closed
		}
		for n, most := range []time.Duration{2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			if got := pause(); got < most*time.Second/2 || got > most*time.Second {
				t.Errorf("pause %d is %s", n+1, got)
			}
		}
		r.Answered()
		if got := pause(); got > 2*time.Second {
			t.Errorf("after an answer the pause is %s", got)
		}
	})
}

// TestAfterAPause: what was allowed at once before a 429 is not allowed after it.
func TestAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{PerWindow: 400})
		r.comes("one", time.Second, Place{})
		r.leaves("one")
		r.Limited(20 * time.Second)
		time.Sleep(20 * time.Second)
		r.Answered()
		if left := r.State().Left; left != 0 {
			t.Errorf("%d may go through at once", left)
		}
	})
}

// TestChanges: new limits hold at once; a nil gate lets everybody through; nobody is let in who has given up.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, Limits{AtOnce: 1})
		r.comes("one", time.Minute, Place{})
		r.comes("two", time.Minute, Place{})
		r.comes("three", time.Minute, Place{})
		r.want("one")
		r.SetLimits(Limits{AtOnce: 2, PerWindow: 400})
		r.want("two")
		if left := r.State().Left; left != 99 {
			t.Errorf("%d are left", left)
		}
		r.SetLimits(Limits{AtOnce: 2, PerWindow: 800}) // what has gone through counts
		if left := r.State().Left; left > 99 {
			t.Errorf("%d are left", left)
		}
		r.SetLimits(Limits{})
		r.want("three")
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Enter(canceled); !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("entered with a context that has ended: %v", err)
		}
	})
	var none *Gate
	pass, err := none.Enter(t.Context())
	if err != nil {
		t.Error(err)
	}
	none.Limited(time.Hour)
	none.Answered()
	pass.Leave()
}

// TestCrowd: whatever comes and goes, no more are inside than may be, and all who stay are served.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Limits{AtOnce: 3, PerWindow: 100_000}, nil)
		var mu sync.Mutex
		inside, most, served := 0, 0, 0
		var all sync.WaitGroup
		for n := range 500 {
			all.Go(func() {
				patience := time.Duration(n%7+1) * time.Second
				ctx, cancel := context.WithTimeout(With(t.Context(), Place{Class: Class(n % 3)}), patience)
				defer cancel()
				time.Sleep(time.Duration(n%11) * 100 * time.Millisecond)
				pass, err := g.Enter(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				inside++
				served++
				most = max(most, inside)
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
				if n%50 == 0 {
					g.Limited(100 * time.Millisecond)
				} else {
					g.Answered()
				}
				mu.Lock()
				inside--
				mu.Unlock()
				pass.Leave()
			})
		}
		all.Wait()
		if s := g.State(); most != 3 || served < 100 || s.Inside != 0 || s.Waiting != 0 {
			t.Errorf("%d at once, %d served; the state is %+v", most, served, s)
		}
	})
}
