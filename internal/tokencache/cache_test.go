// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package tokencache

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

const (
	lifetime = 300 * time.Second
	margin   = 30 * time.Second
	// refreshAt is the life left at which a token is renewed ahead of time.
	refreshAt = 2 * margin
)

var errBroken = errors.New("the server is broken")

// fixture is a cache on a clock of its own, whose mints can be counted, held and broken.
type fixture struct {
	*Cache[string]
	t *testing.T

	mu       sync.Mutex
	now      Instant
	minted   map[string]int
	total    int
	fail     error
	lifetime time.Duration
	least    time.Duration
	gate     chan struct{} // when set, mints wait for it to close
	share    float64
	confirms bool             // mints confirm what is held
	demands  []Demand[string] // of all mints
	ended    []string         // mints that were told to have ended
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, minted: map[string]int{}, lifetime: lifetime,
		now: Instant{Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
	f.Cache = New(Options[string]{
		Now: f.clock,
		Pauses: func(err error) (bool, time.Duration) {
			return !errors.Is(err, errUnknown), f.least
		},
		Mint:  f.mint,
		Share: func() float64 { return f.share },
		Ended: func(name string, took time.Duration, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.ended = append(f.ended, fmt.Sprintf("%s after %s: %v", name, took, err))
		},
	})
	t.Cleanup(func() { f.Close(); f.Wait() })
	return f
}

var errUnknown = errors.New("no such role")

func (f *fixture) clock() Instant {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) mint(ctx context.Context, name string, demand Demand[string]) (Minted[string], error) {
	f.mu.Lock()
	f.demands = append(f.demands, demand)
	if demand.Held != nil && f.confirms {
		defer f.mu.Unlock()
		confirmed := *demand.Held
		confirmed.Confirmed = true
		return confirmed, nil
	}
	f.minted[name]++
	f.total++
	m := Minted[string]{Value: fmt.Sprintf("%s-%d", name, f.minted[name]), RequestedAt: f.now, Lifetime: f.lifetime, MinTTL: margin}
	err, gate := f.fail, f.gate
	f.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return Minted[string]{}, ctx.Err()
		}
	}
	return m, err
}

func (f *fixture) breakWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// hold makes mints wait until the returned function is called.
func (f *fixture) hold() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return func() {
		f.mu.Lock()
		f.gate = nil
		f.mu.Unlock()
		close(gate)
	}
}

func (f *fixture) mints() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

func (f *fixture) get(name string) Served[string] {
	f.t.Helper()
	s, err := f.Get(context.Background(), name)
	if err != nil {
		f.t.Fatalf("Get(%s): %v", name, err)
	}
	return s
}

func (f *fixture) wantValue(got Served[string], want string) {
	f.t.Helper()
	if got.Value != want {
		f.t.Fatalf("served %q, want %q", got.Value, want)
	}
}

func (f *fixture) wantMints(want int) {
	f.t.Helper()
	if got := f.mints(); got != want {
		f.t.Fatalf("%d mints, want %d", got, want)
	}
}

func TestReadersShareOneTokenUntilItsMargin(t *testing.T) {
	f := newFixture(t)
	f.wantValue(f.get("a"), "a-1")
	f.advance(lifetime - refreshAt - time.Second)
	f.wantValue(f.get("a"), "a-1")
	f.Wait()
	f.wantMints(1)
}

func TestBetweenTwoMarginsAndOneIsServedAtOnceAndRefreshedBehind(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.advance(lifetime - refreshAt)
	release := f.hold()
	f.wantValue(f.get("a"), "a-1") // although the mint hangs
	f.wantValue(f.get("a"), "a-1")
	release()
	f.Wait()
	f.wantMints(2)
	f.wantValue(f.get("a"), "a-2")
}

// Readers of a token that is to be renewed ahead of time do not hammer a server that fails.
func TestAFailedRefreshIsNotRepeatedAtOnce(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.advance(lifetime - refreshAt)
	f.breakWith(errBroken)
	for range 3 {
		f.wantValue(f.get("a"), "a-1")
		f.Wait()
	}
	f.wantMints(2)
	f.advance(minPause)
	f.get("a")
	f.Wait()
	f.wantMints(3)
}

func TestUnderTheMarginWaitsForTheMint(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.advance(lifetime - margin)
	f.wantValue(f.get("a"), "a-2")
}

func TestShortLifetimesCapTheMargin(t *testing.T) {
	f := newFixture(t)
	f.lifetime = 20 * time.Second // margin 5 s
	f.get("a")
	f.advance(9 * time.Second)
	f.wantValue(f.get("a"), "a-1")
	f.Wait()
	f.wantMints(1)
	f.advance(6 * time.Second)
	f.wantValue(f.get("a"), "a-2")
}

// It is the whole life without the margin.
func TestRotationPeriod(t *testing.T) {
	for life, want := range map[time.Duration]int64{lifetime: 270, 20 * time.Second: 15, time.Second: 1} {
		f := newFixture(t)
		f.lifetime = life
		served := f.get("a")
		if got := served.RotationPeriod(); got != want {
			t.Errorf("of a token that lives %s: %d, not %d", life, got, want)
		}
	}
}

func TestFailedMintServesWhatStillLives(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.advance(lifetime - 5*time.Second)
	f.breakWith(errBroken)
	s := f.get("a")
	f.wantValue(s, "a-1")
	if !errors.Is(s.Stale, errBroken) {
		t.Fatalf("Stale is %v, want the failure", s.Stale)
	}
	if s.TTL() != 5 {
		t.Fatalf("TTL %d, want what is left", s.TTL())
	}
	f.advance(5 * time.Second)
	if _, err := f.Get(context.Background(), "a"); !errors.Is(err, errBroken) {
		t.Fatalf("expired token: error %v, want the failure", err)
	}
}

func TestEitherClockExpiresAToken(t *testing.T) {
	tests := map[string]func(*fixture){
		"wall clock only: the machine was suspended": func(f *fixture) { f.now.Wall = f.now.Wall.Add(lifetime) },
		"monotonic only: the wall clock was set back": func(f *fixture) {
			f.now.Monotonic += lifetime
			f.now.Wall = f.now.Wall.Add(-time.Hour)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.get("a")
			change(f)
			f.wantValue(f.get("a"), "a-2")
		})
	}
}

func TestAThousandFirstReadersMintOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		release := f.hold()
		var readers sync.WaitGroup
		for range 1000 {
			readers.Go(func() {
				if s, err := f.Get(context.Background(), "a"); err != nil || s.Value != "a-1" {
					t.Errorf("got %q, %v", s.Value, err)
				}
			})
		}
		synctest.Wait()
		release()
		readers.Wait()
		f.wantMints(1)
	})
}

func TestAReaderThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		release := f.hold()
		impatient, giveUp := context.WithCancel(context.Background())
		var gaveUp, stayed error
		var readers sync.WaitGroup
		readers.Go(func() { _, gaveUp = f.Get(impatient, "a") })
		synctest.Wait()
		readers.Go(func() { _, stayed = f.Get(context.Background(), "a") })
		synctest.Wait()
		giveUp()
		synctest.Wait()
		release()
		readers.Wait()
		if !errors.Is(gaveUp, context.Canceled) || stayed != nil {
			t.Fatalf("gave up: %v, stayed: %v", gaveUp, stayed)
		}
		f.wantMints(1)
	})
}

// TestAHangingMint: a mint that honors its context ends before its readers' patience does, so that they get to know
// why; one that does not can't hold them for longer.
func TestAHangingMint(t *testing.T) {
	errHung := errors.New("the server did not answer")
	for _, test := range []struct {
		name   string
		honors bool
		want   error
		after  time.Duration
	}{
		{"honors its context", true, errHung, 19 * time.Second},
		{"is deaf", false, context.DeadlineExceeded, 20 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				ended := make(chan struct{})
				f.options.Mint = func(ctx context.Context, _ string, _ Demand[string]) (Minted[string], error) {
					if test.honors {
						<-ctx.Done()
					} else {
						<-ended
					}
					return Minted[string]{}, errHung
				}
				start := time.Now()
				_, err := f.Get(context.Background(), "a")
				if !errors.Is(err, test.want) || time.Since(start) != test.after {
					t.Errorf("got %v after %s, want %v after %s", err, time.Since(start), test.want, test.after)
				}
				close(ended)
			})
		})
	}
}

// TestAHangingMintDoesNotUseUpTheOldTokensLife: with ten seconds left, a reader that waited for its whole patience
// would get nothing.
func TestAHangingMintDoesNotUseUpTheOldTokensLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(lifetime - 10*time.Second)
		release := f.hold()
		start := time.Now()
		s := f.get("a")
		f.wantValue(s, "a-1")
		if waited := time.Since(start); waited != 5*time.Second || !errors.Is(s.Stale, context.DeadlineExceeded) {
			t.Errorf("waited %s, and Stale is %v", waited, s.Stale)
		}
		release()
		f.Wait()
		f.wantValue(f.get("a"), "a-2") // the mint went on
		f.wantMints(2)
	})
}

// A token that ends at this very moment is worth nothing to wait less for: its reader waits for the next one.
func TestATokenThatHasJustEndedIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(lifetime)
		release := f.hold()
		var got Served[string]
		var err error
		var reader sync.WaitGroup
		reader.Go(func() { got, err = f.Get(context.Background(), "a") })
		time.Sleep(10 * time.Second) // of the bubble's clock
		release()
		reader.Wait()
		if err != nil || got.Value != "a-2" {
			t.Errorf("got %q, %v", got.Value, err)
		}
	})
}

// TestAReadersOwnDeadlineServesWhatStillLives: Vault's max_request_duration may be shorter than a mint.
func TestAReadersOwnDeadlineServesWhatStillLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(lifetime - 25*time.Second)
		f.hold()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := f.Get(ctx, "a")
		if err != nil || s.Value != "a-1" || !errors.Is(s.Stale, context.DeadlineExceeded) {
			t.Errorf("got %q (stale: %v), %v", s.Value, s.Stale, err)
		}
	})
}

// TestNowReadsBothClocks also tries the defaults of Options.
func TestNowReadsBothClocks(t *testing.T) {
	// With a monotonic reading inside, Sub would go by that. (There is none in a bubble, so this looks first.)
	if now := Now(); now.Wall != now.Wall.Round(0) {
		t.Error("the wall reading carries a monotonic one")
	}
	synctest.Test(t, func(t *testing.T) {
		c := New(Options[string]{Share: func() float64 { return 0 }, Mint: func(context.Context, string, Demand[string]) (Minted[string], error) {
			return Minted[string]{Value: "x", RequestedAt: Now(), Lifetime: lifetime, MinTTL: margin}, nil
		}})
		first, before := Now(), time.Now()
		time.Sleep(time.Minute) // of the bubble's clock
		later := Now()
		if !first.Wall.Equal(before) || later.Wall.Sub(first.Wall) != time.Minute || later.Monotonic-first.Monotonic != time.Minute {
			t.Errorf("a minute went from %+v to %+v", first, later)
		}
		s, err := c.Get(t.Context(), "a")
		if err != nil || s.Remaining != lifetime || s.TTL() != 270 {
			t.Errorf("got %+v, %v", s, err)
		}
		c.Close()
		c.Wait()
	})
}

func TestAnInstantMovesOnBothClocks(t *testing.T) {
	now := Now()
	if later := now.Add(time.Minute); now.Age(later) != time.Minute || later.Age(now) != -time.Minute {
		t.Errorf("%+v is a minute after %+v", later, now)
	}
}

func TestDropSupersedesTheMintInFlight(t *testing.T) {
	drops := map[string]func(*fixture){
		"Drop":     func(f *fixture) { f.Drop("a") },
		"DropAll":  func(f *fixture) { f.DropAll() },
		"DropFunc": func(f *fixture) { f.DropFunc(func(string) bool { return false }) }, // no token yet: unknown, so dropped
	}
	for name, drop := range drops {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.hold() // the first mint never ends by itself
				var got Served[string]
				var err error
				var reader sync.WaitGroup
				reader.Go(func() { got, err = f.Get(context.Background(), "a") })
				synctest.Wait()
				f.mu.Lock()
				f.gate = nil
				f.mu.Unlock()
				dropped := time.Now() // the clock of synctest
				drop(f)
				reader.Wait()
				if err != nil || got.Value != "a-2" {
					t.Fatalf("got %q, %v; want the second mint's", got.Value, err)
				}
				f.Wait()
				if ran := time.Since(dropped); ran != 0 {
					t.Errorf("the superseded mint ran on for %s", ran)
				}
				f.wantValue(f.get("a"), "a-2")
			})
		})
	}
}

func TestAMintThatEndsAfterItsDropIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ended := make(chan struct{})
		stubborn := f.options.Mint
		f.options.Mint = func(_ context.Context, name string, _ Demand[string]) (Minted[string], error) {
			<-ended // deaf to cancellation
			return stubborn(context.Background(), name, Demand[string]{})
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() { _, _ = f.Get(ctx, "a") }()
		synctest.Wait()
		cancel() // so that the reader does not start again
		synctest.Wait()
		f.Drop("a")
		close(ended)
		f.Wait()
		if f.Len() != 0 {
			t.Fatal("a superseded mint published its token")
		}
	})
}

func TestDropFuncKeepsWhatDoesNotMatch(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.get("b")
	f.DropFunc(func(v string) bool { return v == "a-1" })
	f.wantValue(f.get("a"), "a-2")
	f.wantValue(f.get("b"), "b-1")
}

func TestFresh(t *testing.T) {
	fresh := func(f *fixture) Served[string] {
		f.t.Helper()
		s, err := f.Fresh(context.Background(), "a")
		if err != nil {
			f.t.Fatal(err)
		}
		return s
	}
	t.Run("mints and replaces", func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(2 * time.Second)
		f.wantValue(fresh(f), "a-2")
		f.wantValue(f.get("a"), "a-2")
	})
	t.Run("within two seconds of the mint takes that one", func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(2*time.Second - 1)
		f.wantValue(fresh(f), "a-1")
		f.wantMints(1)
	})
	t.Run("joins a mint in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			f.get("a")
			f.advance(lifetime - refreshAt)
			release := f.hold()
			f.get("a") // starts the refresh
			var got Served[string]
			var reader sync.WaitGroup
			reader.Go(func() { got = fresh(f) })
			synctest.Wait()
			release()
			reader.Wait()
			f.wantValue(got, "a-2")
			f.wantMints(2)
		})
	})
	t.Run("never serves an older token", func(t *testing.T) {
		f := newFixture(t)
		f.get("a")
		f.advance(10 * time.Second)
		f.breakWith(errBroken)
		for range 2 { // the failure, then the remembered failure
			if _, err := f.Fresh(context.Background(), "a"); !errors.Is(err, errBroken) {
				t.Fatalf("error %v, want the failure", err)
			}
		}
		f.wantMints(2)
		f.wantValue(f.get("a"), "a-1")
	})
}

func TestFailuresAreRememberedLongerAndLonger(t *testing.T) {
	f := newFixture(t)
	f.breakWith(errBroken)
	tried := 0
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		pause *= time.Second
		tried++
		for _, wait := range []time.Duration{0, pause - 1} {
			f.advance(wait)
			if _, err := f.Get(context.Background(), "a"); !errors.Is(err, errBroken) {
				t.Fatalf("error %v", err)
			}
			f.wantMints(tried)
		}
		f.advance(1)
	}
	f.breakWith(nil)
	f.wantValue(f.get("a"), "a-8")
	f.breakWith(errBroken)
	f.advance(lifetime)
	_, _ = f.Get(context.Background(), "a")
	f.advance(time.Second)
	_, _ = f.Get(context.Background(), "a")
	f.wantMints(10) // success had made the pause short again
}

// After a minute without a failure the pauses begin anew, also when nobody has got a token since.
func TestFailuresAreForgotten(t *testing.T) {
	for since, want := range map[time.Duration]time.Duration{time.Minute - 1: 2 * time.Second, time.Minute: time.Second} {
		f := newFixture(t)
		f.breakWith(errBroken)
		_, _ = f.Get(context.Background(), "a")
		f.advance(since)
		_, _ = f.Get(context.Background(), "a")
		f.advance(want - 1)
		_, _ = f.Get(context.Background(), "a")
		f.wantMints(2)
		f.advance(1)
		_, _ = f.Get(context.Background(), "a")
		f.wantMints(3)
	}
}

func TestTheServersOwnPauseIsHonouredUpToTheCap(t *testing.T) {
	f := newFixture(t)
	f.least = 7 * time.Second
	f.breakWith(errBroken)
	_, _ = f.Get(context.Background(), "a")
	f.advance(6 * time.Second)
	_, _ = f.Get(context.Background(), "a")
	f.wantMints(1)
	f.advance(time.Second)
	f.least = time.Hour
	_, _ = f.Get(context.Background(), "a")
	f.wantMints(2)
	f.advance(30 * time.Second)
	_, _ = f.Get(context.Background(), "a")
	f.wantMints(3)
}

// An outage that is over before the token ends is noticed by nobody, however long the pause had become.
func TestAPauseEndsWithTheToken(t *testing.T) {
	for name, test := range map[string]struct {
		left, least, wait time.Duration
	}{
		"a pause that would outlast it": {left: 9 * time.Second, wait: 9 * time.Second},
		"not at once":                   {left: time.Millisecond, wait: minPause},
		"not before the server wants":   {left: 3 * time.Second, least: 5 * time.Second, wait: 5 * time.Second},
		"not later than the pause":      {left: 25 * time.Second, wait: 16 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.get("a")
			f.breakWith(errBroken)
			f.advance(lifetime - test.left - 15*time.Second)
			for _, pause := range []time.Duration{1, 2, 4, 8} {
				_, _ = f.Get(context.Background(), "a")
				f.Wait() // between two margins and one the mint is behind the reader
				f.advance(pause * time.Second)
			}
			f.least = test.least
			f.wantValue(f.get("a"), "a-1") // now the pause is 16 s
			f.Wait()
			f.breakWith(nil)
			f.wantMints(6)
			f.advance(test.wait - 1)
			_, _ = f.Get(context.Background(), "a")
			f.wantMints(6)
			f.advance(1)
			f.wantValue(f.get("a"), "a-7")
		})
	}
}

func TestPausesGrowOnAfterTheTokensEnd(t *testing.T) {
	f := newFixture(t)
	f.get("a")
	f.breakWith(errBroken)
	f.advance(lifetime - 5*time.Second)
	tried := 1
	for _, rest := range []time.Duration{1, 2, 2, 8, 16, 30} { // the third would be 4, and outlast the token
		_, _ = f.Get(context.Background(), "a")
		tried++
		f.advance(rest*time.Second - 1)
		_, _ = f.Get(context.Background(), "a")
		f.wantMints(tried)
		f.advance(1)
	}
}

func TestForgetFailureAndDropLetTheNextReaderMint(t *testing.T) {
	for name, forget := range map[string]func(*fixture){
		"ForgetFailure":  func(f *fixture) { f.ForgetFailure("a") },
		"ForgetFailures": func(f *fixture) { f.ForgetFailures() },
		"Drop":           func(f *fixture) { f.Drop("a") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.breakWith(errBroken)
			_, _ = f.Get(context.Background(), "a")
			f.breakWith(nil)
			forget(f)
			f.wantValue(f.get("a"), "a-2")
		})
	}
}

func TestUnknownNamesLeaveNothingBehind(t *testing.T) {
	f := newFixture(t)
	f.breakWith(errUnknown)
	for i := range 100 {
		if _, err := f.Get(context.Background(), fmt.Sprint(i)); !errors.Is(err, errUnknown) {
			t.Fatalf("error %v", err)
		}
	}
	if f.Len() != 0 {
		t.Fatalf("%d entries for unknown names", f.Len())
	}
}

func TestWhatIsToldOfMints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		if served := f.get("a"); !served.Waited {
			t.Error("the first reader is not said to have waited")
		}
		if served := f.get("a"); served.Waited {
			t.Error("the second reader is said to have waited")
		}
		release := f.hold()
		go func() { _, _ = f.Get(t.Context(), "b") }()
		synctest.Wait()
		f.breakWith(errBroken) // for the next mint: the one that is held has begun
		f.Drop("b")            // supersedes it
		synctest.Wait()
		f.advance(3 * time.Second)
		release()
		synctest.Wait()
		f.Close()
		if _, err := f.Get(t.Context(), "c"); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed cache answers %v", err)
		}
		f.Wait()
		want := []string{"a after 0s: <nil>", "b after 3s: the server is broken"}
		if !slices.Equal(f.ended, want) {
			t.Errorf("these mints were told of: %q, not %q", f.ended, want)
		}
	})
}

func TestLiving(t *testing.T) {
	f := newFixture(t)
	want := func(count int, least time.Duration) {
		t.Helper()
		if gotCount, gotLeast := f.Living(); gotCount != count || gotLeast != least {
			t.Errorf("%d tokens live, the least for %s; not %d and %s", gotCount, gotLeast, count, least)
		}
	}
	want(0, 0)
	f.get("a")
	f.advance(time.Minute)
	f.get("b")
	want(2, lifetime-time.Minute)
	f.breakWith(errBroken)
	for i := range 50 { // names that are known for their failure alone
		_, _ = f.Get(context.Background(), fmt.Sprint("broken-", i))
	}
	want(2, lifetime-time.Minute)
	f.advance(lifetime - time.Minute)
	want(1, time.Minute)
	f.advance(time.Minute)
	want(0, 0)
}

func TestDeadEntriesAreEvicted(t *testing.T) {
	f := newFixture(t)
	for i := range 1000 {
		f.get(fmt.Sprint("old-", i))
	}
	f.advance(lifetime)
	for i := range 300 {
		f.get(fmt.Sprint("new-", i))
	}
	// Eviction picks at random: a few of the dead may be there still.
	if dead := f.Len() - 300; dead > 100 {
		t.Fatalf("%d of 1000 dead entries are still there", dead)
	}
}

func TestATokenThatExpiredOnItsWayIsAFailure(t *testing.T) {
	f := newFixture(t)
	f.lifetime = 0
	if _, err := f.Get(context.Background(), "a"); !errors.Is(err, ErrExpired) {
		t.Fatalf("error %v, want ErrExpired", err)
	}
	if _, err := f.Get(context.Background(), "a"); !errors.Is(err, ErrExpired) {
		t.Fatalf("error %v, want ErrExpired", err)
	}
	f.wantMints(1) // it is paused after, as after any other failure
}

func TestCloseEndsMintsAndRefusesNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.hold()
		var err error
		var reader sync.WaitGroup
		reader.Go(func() { _, err = f.Get(context.Background(), "a") })
		synctest.Wait()
		f.Close()
		reader.Wait()
		f.Wait()
		if !errors.Is(err, ErrClosed) {
			t.Fatalf("error %v, want ErrClosed", err)
		}
	})
}

// Close holds nothing back: not the tokens in memory, and not the readers of a mint that does not heed its context.
func TestCloseForgetsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.get("held")
		ended := make(chan struct{})
		f.options.Mint = func(context.Context, string, Demand[string]) (Minted[string], error) {
			<-ended
			return Minted[string]{}, errBroken
		}
		var waiting error
		var reader sync.WaitGroup
		reader.Go(func() { _, waiting = f.Get(context.Background(), "waiting") })
		synctest.Wait()
		f.Close()
		reader.Wait()
		if _, err := f.Get(context.Background(), "held"); !errors.Is(waiting, ErrClosed) || !errors.Is(err, ErrClosed) {
			t.Errorf("a closed cache answers %v to who waited, and %v to who had a token", waiting, err)
		}
		close(ended)
	})
}

// A mint that ends in the middle of Close, which cancels it before it takes it away, tells its readers why.
func TestAMintThatEndsWhileTheCacheIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.hold()
		var err error
		var reader sync.WaitGroup
		reader.Go(func() { _, err = f.Get(context.Background(), "a") })
		synctest.Wait()
		f.cancel() // the first half of Close
		reader.Wait()
		f.Wait()
		if !errors.Is(err, ErrClosed) || len(f.ended) > 0 {
			t.Errorf("error %v, want ErrClosed; told of %q", err, f.ended)
		}
	})
}

// TestWhoComesBackAfterTTLGetsAnotherToken is the contract with consul-template and the Vault Secrets Operator: for
// every remaining life, the reader that comes back a second after TTL gets another token, and nobody is told to come
// back sooner than after a second.
func TestWhoComesBackAfterTTLGetsAnotherToken(t *testing.T) {
	for _, life := range []time.Duration{time.Second, 2 * time.Second, 20 * time.Second, 100 * time.Second, lifetime, time.Hour} {
		for age := time.Duration(0); age < life; age += max(life/999, 7*time.Millisecond) {
			f := newFixture(t)
			f.lifetime = life
			f.get("a")
			f.advance(age)
			f.get("a") // may start a refresh
			f.Wait()
			first := f.get("a")
			if first.TTL() < 1 || first.RotationPeriod() < 1 {
				t.Fatalf("life %s, age %s: TTL %d, rotation period %d", life, age, first.TTL(), first.RotationPeriod())
			}
			f.advance(time.Duration(first.TTL()+1) * time.Second)
			if second := f.get("a"); second.Value == first.Value {
				t.Fatalf("life %s, age %s: the reader came back after TTL %d + 1 s and got the same token", life, age, first.TTL())
			}
			f.Close()
		}
	}
}

// TestTTLSweep is the same contract for every whole and half second of every lifetime up to ten minutes, on the
// numbers alone: when the reader comes back, the margin has begun, under which Get serves no token but a newer one.
func TestTTLSweep(t *testing.T) {
	for life := time.Second; life <= 600*time.Second; life += time.Second {
		for _, minTTL := range []time.Duration{time.Second, 7 * time.Second, 30 * time.Second, 100 * time.Second, time.Hour} {
			margin := min(minTTL, life/4)
			for left := life; left > 0; left -= time.Second / 2 {
				s := Served[string]{Minted: Minted[string]{Lifetime: life, MinTTL: minTTL}, Remaining: left}
				ttl := time.Duration(s.TTL()) * time.Second
				if ttl < time.Second || s.RotationPeriod() < 1 {
					t.Fatalf("life %s, min_ttl %s, left %s: TTL %s, rotation period %d", life, minTTL, left, ttl, s.RotationPeriod())
				}
				if left-ttl-time.Second > margin {
					t.Fatalf("life %s, min_ttl %s, left %s: TTL %s is too short for another token", life, minTTL, left, ttl)
				}
				if ttl > max(time.Second, left) {
					t.Fatalf("life %s, min_ttl %s, left %s: TTL %s is longer than the token lives", life, minTTL, left, ttl)
				}
				s.Stale = errBroken
				stale := time.Duration(s.TTL()) * time.Second
				if stale < time.Second || stale > max(time.Second, min(left, 10*time.Second)) {
					t.Fatalf("life %s, left %s: the stale token's TTL is %s", life, left, stale)
				}
			}
		}
	}
}

// TestAHundredThousandNames runs ten minutes of readers of 100,000 names: each name mints when its token nears its
// end, and no oftener.
func TestAHundredThousandNames(t *testing.T) {
	const names, step, duration = 100_000, 25 * time.Second, 10 * time.Minute
	f := newFixture(t)
	name := make([]string, names)
	for i := range name {
		name[i] = fmt.Sprint("role-", i)
	}
	for range duration / step {
		for _, n := range name {
			f.get(n)
		}
		f.Wait()
		f.advance(step)
	}
	f.wantMints(names * 3) // at 0, and with the first read after L - 2m: at 250 s and 500 s
	if f.Len() != names {
		t.Fatalf("%d entries", f.Len())
	}
}
