// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package tokencache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestDoubt: a token that is doubted is served again only when a mint has confirmed it, which is no mint of a token; it
// keeps its times. If it is not confirmed, it is never served again.
func TestDoubt(t *testing.T) {
	doubts := map[string]func(*fixture){
		"one":      func(f *fixture) { f.Doubt("a") },
		"all":      func(f *fixture) { f.DoubtAll() },
		"some":     func(f *fixture) { f.DoubtFunc(func(value string) bool { return value == "a-1" }) },
		"it twice": func(f *fixture) { f.Doubt("a"); f.DoubtAll() },
	}
	for name, doubt := range doubts {
		t.Run(name+", confirmed", func(t *testing.T) {
			f := newFixture(t)
			f.share = 0.5
			before := f.get("a")
			f.ended = nil
			f.share, f.confirms = 0, true
			doubt(f)
			f.breakWith(errBroken)
			after := f.get("a")
			f.wantValue(after, "a-1")
			if after.Waited || after.Stale != nil || after.RotationPeriod() != before.RotationPeriod() || after.TTL() != before.TTL() {
				t.Errorf("served %+v, before %+v", after, before)
			}
			f.wantMints(1)
			if len(f.demands) != 2 || len(f.ended) != 0 {
				t.Errorf("%d mints were called, told of %q", len(f.demands), f.ended)
			}
			f.get("a") // from memory
			if len(f.demands) != 2 {
				t.Error("it is doubted still")
			}
		})
		t.Run(name+", wrong", func(t *testing.T) {
			f := newFixture(t)
			f.get("a")
			doubt(f)
			f.wantValue(f.get("a"), "a-2")
			f.wantMints(2)
		})
		t.Run(name+", wrong while mints fail", func(t *testing.T) {
			f := newFixture(t)
			f.get("a")
			doubt(f)
			f.breakWith(errBroken)
			if s, err := f.Get(t.Context(), "a"); !errors.Is(err, errBroken) {
				t.Fatalf("served %q, %v", s.Value, err)
			}
			f.confirms = true // if somebody still held it
			f.advance(maxPause)
			if s, err := f.Get(t.Context(), "a"); !errors.Is(err, errBroken) {
				t.Errorf("later served %q, %v", s.Value, err)
			}
		})
	}
}

// TestDoubtInTime: what could not be looked at in time stays doubted, and is not lost.
func TestDoubtInTime(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.Doubt("a")
	f.breakWith(context.DeadlineExceeded)
	if _, err := f.Get(t.Context(), "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	f.breakWith(nil)
	f.confirms = true
	f.advance(maxPause)
	f.wantValue(f.get("a"), "a-1")
}

// TestDoubtAtTheEnd: a token that ends while it is looked at is replaced, and its readers notice nothing.
func TestDoubtAtTheEnd(t *testing.T) {
	f := newFixture(t)
	f.confirms = true
	f.get("a")
	f.advance(lifetime - time.Second)
	f.Doubt("a")
	mint := f.options.Mint
	f.options.Mint = func(ctx context.Context, name string, d Demand[string]) (Minted[string], error) {
		if d.Held != nil {
			f.advance(time.Second)
		}
		return mint(ctx, name, d)
	}
	f.wantValue(f.get("a"), "a-2")
}

// TestDoubtOfOthers: tokens that do not match are not doubted, and mints that began before the change begin again.
func TestDoubtOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.get("b")
		f.DoubtFunc(func(value string) bool { return value == "b-1" })
		f.wantValue(f.get("a"), "a-1")
		if len(f.demands) != 2 {
			t.Error("another token is doubted")
		}
		release := f.hold()
		got := make(chan string)
		go func() { got <- f.get("c").Value }()
		synctest.Wait()
		f.DoubtAll()
		synctest.Wait()
		release()
		if value := <-got; value != "c-2" {
			t.Errorf("a mint that a change has superseded gave %q", value)
		}
		f.Doubt("nobody")
		if f.Len() != 3 {
			t.Errorf("%d names are known", f.Len())
		}
	})
}

// TestDoubtAndFresh: a token that is in doubt is not given to who wants a fresh one, however new it is.
func TestDoubtAndFresh(t *testing.T) {
	for _, age := range []time.Duration{0, time.Minute} {
		f := newFixture(t)
		f.confirms = age > 0
		f.get("a")
		f.advance(age)
		f.Doubt("a")
		s, err := f.Fresh(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		f.wantValue(s, "a-2")
		f.wantMints(2)
	}
}

// TestAtTheMargin: with exactly the margin left, who gets the old token is told why there is no new one.
func TestAtTheMargin(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.advance(lifetime - margin)
	f.breakWith(errBroken)
	if s := f.get("a"); !errors.Is(s.Stale, errBroken) {
		t.Errorf("a token with its margin left comes with %v", s.Stale)
	}
}

// TestTTLWhenTheNextOneIsDue: who comes at that very moment is told to come back soon.
func TestTTLWhenTheNextOneIsDue(t *testing.T) {
	s := Served[string]{Minted: Minted[string]{Lifetime: lifetime, MinTTL: margin}}
	s.spread(1, false)
	s.Remaining = s.due()
	if ttl := s.TTL(); ttl != int64(staleTTL/time.Second) {
		t.Errorf("ttl is %d", ttl)
	}
}

// TestDeadAtItsTime: a place is kept for a time, and not longer.
func TestDeadAtItsTime(t *testing.T) {
	at := Instant{Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	e := &entry[string]{failure: &failure{err: errBroken, at: at}}
	if e.dead(at.Add(placeKept-1)) || !e.dead(at.Add(placeKept)) {
		t.Error("it is not dropped when its time is over")
	}
}

// TestDemand: a mint knows whether a reader waits, also when one comes later, and since when a token is wanted.
func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		isAwaited := func(n int) bool {
			select {
			case <-f.demands[n].Awaited:
				return true
			default:
				return false
			}
		}
		start := f.clock()
		f.breakWith(errBroken)
		for n := range 3 { // who failed keeps its place
			_, _ = f.Get(t.Context(), "a")
			if len(f.demands) != n+1 || f.demands[n].Since != start || !isAwaited(n) {
				t.Fatalf("demand %d: %+v", n, f.demands)
			}
			f.advance(maxPause)
		}
		f.breakWith(nil)
		f.get("a")
		f.advance(lifetime - refreshAt)
		release := f.hold()
		f.get("a")
		synctest.Wait()
		if n := len(f.demands) - 1; isAwaited(n) || f.demands[n].Since != f.clock() {
			t.Errorf("ahead of time: %+v", f.demands[n])
		}
		f.advance(refreshAt - margin)
		got := make(chan string)
		go func() {
			s, _ := f.Get(t.Context(), "a")
			got <- s.Value
		}()
		synctest.Wait()
		if n := len(f.demands) - 1; !isAwaited(n) {
			t.Error("a reader that came later does not count")
		}
		release()
		if value := <-got; value != "a-5" {
			t.Errorf("it got %q", value)
		}
		f.advance(2 * lifetime)
		f.get("a")
		if n := len(f.demands) - 1; f.demands[n].Since != f.clock() {
			t.Errorf("wanted since %v, now is %v", f.demands[n].Since, f.clock())
		}
	})
}

// TestSpread: a token's times are spread by its share; those of a crowd over its whole life.
func TestSpread(t *testing.T) {
	for _, test := range []struct {
		name               string
		share              float64
		crowd              bool
		renewed            time.Duration // age
		ttl, period, later int64         // at first; when it is renewed
	}{
		{"least", 0, false, 240 * time.Second, 270, 270, 30},
		{"half", 0.5, false, 240 * time.Second, 263, 262, 23},
		{"most", 0.999999, false, 240 * time.Second, 256, 255, 15},
		{"least of a crowd", 0, true, 240 * time.Second, 263, 262, 23},
		{"half of a crowd", 0.5, true, 120 * time.Second, 132, 131, 12},
		{"most of a crowd", 0.999999, true, time.Millisecond, 1, 1, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			if test.crowd {
				for n := range crowd {
					f.get(string(rune('b' + n)))
				}
			}
			f.share = test.share
			s := f.get("a")
			if s.TTL() != test.ttl || s.RotationPeriod() != test.period {
				t.Errorf("ttl %d, rotation_period %d", s.TTL(), s.RotationPeriod())
			}
			before := f.mints()
			f.advance(test.renewed - 2*time.Millisecond)
			f.wantValue(f.get("a"), "a-1")
			f.Wait()
			f.wantMints(before)
			f.breakWith(errBroken)
			f.advance(3 * time.Millisecond)
			if s = f.get("a"); s.Stale != nil || s.Waited {
				t.Error("it is not renewed ahead of time")
			}
			f.Wait()
			f.wantMints(before + 1)
			if s.TTL() != test.later {
				t.Errorf("while it is renewed, ttl is %d", s.TTL())
			}
			// After the next one it is one like any other.
			f.breakWith(nil)
			f.advance(minPause)
			f.get("a")
			f.Wait()
			if s = f.get("a"); s.Value != "a-3" || s.RotationPeriod() < 240 {
				t.Errorf("then %q with rotation_period %d", s.Value, s.RotationPeriod())
			}
		})
	}
}

// TestComingBack: who comes back when told gets the next token, though the one before has life enough; not if it takes long or
// fails, which nobody is told of then.
func TestComingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.share = 0.9
		s := f.get("a")
		f.advance(time.Duration(s.TTL()+1) * time.Second)
		if s = f.get("a"); s.Value != "a-2" || !s.Waited {
			t.Errorf("got %q", s.Value)
		}
		f.advance(time.Duration(s.TTL()+1) * time.Second)
		release := f.hold()
		start := time.Now()
		if s = f.get("a"); s.Value != "a-2" || s.Stale != nil || time.Since(start) != briefly || s.TTL() != 10 {
			t.Errorf("after %s got %q with ttl %d, %v", time.Since(start), s.Value, s.TTL(), s.Stale)
		}
		release()
		synctest.Wait()
		f.wantValue(f.get("a"), "a-3")
		s = f.get("a")
		f.advance(time.Duration(s.TTL()+1) * time.Second)
		f.breakWith(errBroken)
		for range 3 {
			start = time.Now()
			if s = f.get("a"); s.Value != "a-3" || s.Stale != nil || time.Since(start) != 0 {
				t.Errorf("after %s got %q, %v", time.Since(start), s.Value, s.Stale)
			}
		}
		f.wantMints(4)
	})
}

// TestCrowdEnds: what was minted a minute ago is no crowd with what is minted now.
func TestCrowdEnds(t *testing.T) {
	f := newFixture(t)
	f.share = 0.5
	for n := range 3 * crowd {
		if s := f.get(string(rune('a' + n))); s.RotationPeriod() < 240 {
			t.Fatalf("token %d is spread wide", n)
		}
		f.advance(crowdWithin / crowd)
	}
}
