// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package gate lets work through a few at a time and at a bounded rate, in the order of who wants it most. It knows
// neither Vault nor Redox, and asks nobody.
//
// The rate is golang.org/x/time/rate's. The waiting is not: its Wait serves whoever comes, in the order of their coming,
// and has no way to be closed. A circuit breaker (sony/gobreaker) refuses who comes while it is open, which is half of
// what is wanted here; the other half, that they wait in order as long as they can, it has not.
package gate

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// window is what a server counts requests over.
	window = 5 * time.Minute
	// burstShare is the part of a window's requests that may be made at once.
	burstShare = 4

	firstPause = 2 * time.Second
	// maxPause bounds how long a server is let alone after it has limited requests, whatever it asks for.
	maxPause = 5 * time.Minute
)

// Limits is what a gate lets through. Zero values let through any number.
type Limits struct {
	AtOnce    int // at one moment
	PerWindow int // in any five minutes
}

// Refusal is why somebody was not let through: the time they had would not have done.
type Refusal struct {
	// Closed is set when the server has asked for a pause.
	Closed bool
	// Wait is how long it would have taken at least; 0 when that can't be known.
	Wait time.Duration
	// Ahead is how many would have gone through before.
	Ahead int
}

func (r *Refusal) Error() string { return "the time to wait at the gate would not have done" }

// Unwrap returns context.DeadlineExceeded.
func (r *Refusal) Unwrap() error { return context.DeadlineExceeded }

// Gate is one gate. All methods may be called at the same time. A nil Gate lets everybody through.
type Gate struct {
	now func() time.Time

	mu     sync.Mutex // never held across work
	limits Limits
	bucket *rate.Limiter // nil: any rate
	inside int
	line   line
	came   uint64 // how many have come

	closedUntil time.Time     // zero while open
	pause       time.Duration // the last one; 0 once the server has answered otherwise
	timer       *time.Timer   // looks at the line when the next may go through
}

// New makes a gate. now is the clock that rate and pauses go by, time.Now if it is nil; who waits at the gate is let in by the
// machine's.
func New(l Limits, now func() time.Time) *Gate {
	if now == nil {
		now = time.Now
	}
	g := &Gate{now: now}
	g.set(l, now())
	return g
}

// SetLimits replaces the limits, for those who wait, too.
func (g *Gate) SetLimits(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits != l {
		now := g.now()
		g.set(l, now)
		g.admit(now)
	}
}

// set is SetLimits under the lock. What has gone through already counts under the new limits, too.
func (g *Gate) set(l Limits, now time.Time) {
	g.limits = l
	if l.PerWindow <= 0 {
		g.bucket = nil
		return
	}
	burst := max(1, l.PerWindow/burstShare)
	refill := rate.Limit(float64(max(1, l.PerWindow-burst)) / window.Seconds())
	if g.bucket == nil {
		g.bucket = rate.NewLimiter(refill, burst)
		return
	}
	g.bucket.SetLimitAt(now, refill)
	g.bucket.SetBurstAt(now, burst)
}

// Pass is the right to be inside.
type Pass struct{ gate *Gate }

// Enter waits until there is room, as long as ctx allows, and returns a pass, which has to be left. The context's place
// (see With) decides who goes first. It does not wait when that would be in vain. Its error is a *Refusal or wraps context.Canceled.
func (g *Gate) Enter(ctx context.Context) (*Pass, error) {
	if g == nil {
		return nil, nil
	}
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return nil, err
	}
	now := g.now()
	deadline, bounded := ctx.Deadline()
	w := &waiter{place: placeOf(ctx), admitted: make(chan struct{}), refused: make(chan *Refusal, 1)}
	if bounded {
		w.deadline = deadline
	}
	g.mu.Lock()
	g.came++
	w.number = g.came
	if refusal := g.inVain(w, now); refusal != nil {
		g.mu.Unlock()
		return nil, refusal
	}
	heap.Push(&g.line, w)
	g.admit(now)
	g.mu.Unlock()

	raised := w.place.Raised
	for {
		select {
		case <-w.admitted:
			return &Pass{g}, nil
		case refusal := <-w.refused:
			return nil, refusal
		case <-raised:
			raised = nil
			g.raise(w)
		case <-ctx.Done():
			return nil, g.giveUp(ctx, w)
		}
	}
}

// raise lets a waiter go before those for whom nobody waits.
func (g *Gate) raise(w *waiter) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.place.Class = Awaited
	if w.index >= 0 {
		heap.Fix(&g.line, w.index)
		g.admit(g.now())
	}
}

// giveUp takes a waiter out of the line whose time is over.
func (g *Gate) giveUp(ctx context.Context, w *waiter) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if w.index < 0 { // it was let in or refused at the same moment
		select {
		case <-w.admitted:
			g.inside--
			g.admit(now)
		default:
		}
	} else {
		heap.Remove(&g.line, w.index)
		g.admit(now)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	wait, ahead := g.wait(w, now)
	return &Refusal{Closed: !g.closedUntil.IsZero(), Wait: wait, Ahead: ahead}
}

// Leave ends the work that the pass was for.
func (p *Pass) Leave() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.gate.inside--
	p.gate.admit(p.gate.now())
}

// Limited closes the gate since the server limits requests: for as long as it asks, at most five minutes, or, where it
// does not say, for a pause that grows from one time to the next. Then one goes through, and the others wait for what the server says.
func (g *Gate) Limited(retryAfter time.Duration) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if now.Before(g.closedUntil) { // this one was under way when the first was told
		if retryAfter <= 0 {
			return
		}
	} else {
		g.pause = min(max(firstPause, 2*g.pause), maxPause)
	}
	pause := min(retryAfter, maxPause)
	if retryAfter <= 0 {
		pause = g.pause/2 + rand.N(g.pause/2) // with jitter, since others may share the address that the server counts
	}
	if until := now.Add(pause); until.After(g.closedUntil) {
		g.closedUntil = until
	}
	g.drain(now)
	g.line.refuse(func(w *waiter) *Refusal { return g.inVain(w, now) })
	g.admit(now)
}

// Answered opens the gate: the server has answered, and does not limit requests.
func (g *Gate) Answered() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if now.Before(g.closedUntil) { // this one was under way when another was told to wait
		return
	}
	if !g.closedUntil.IsZero() {
		g.closedUntil, g.pause = time.Time{}, 0
		g.drain(now)
	}
	g.admit(now)
}

// drain leaves nothing that may go through at once: the server's count is not what it was thought to be. The caller holds
// the lock.
func (g *Gate) drain(now time.Time) {
	if g.bucket != nil {
		g.bucket.ReserveN(now, max(0, int(g.bucket.TokensAt(now))))
	}
}

// admit lets in whoever may go now, and sees to it that it is called when the next may. The caller holds the lock.
func (g *Gate) admit(now time.Time) {
	for len(g.line) > 0 {
		if wait := g.closedUntil.Sub(now); wait > 0 {
			g.lookAgain(wait)
			return
		}
		if g.limits.AtOnce > 0 && g.inside >= g.limits.AtOnce || !g.closedUntil.IsZero() && g.inside > 0 {
			return // who leaves calls this; after a pause the first one shows whether it is over
		}
		if g.bucket != nil {
			reservation := g.bucket.ReserveN(now, 1)
			if wait := reservation.DelayFrom(now); wait > 0 {
				reservation.CancelAt(now)
				g.lookAgain(wait)
				return
			}
		}
		w := heap.Pop(&g.line).(*waiter)
		g.inside++
		close(w.admitted)
	}
}

// lookAgain calls admit after a while. The caller holds the lock.
func (g *Gate) lookAgain(after time.Duration) {
	if g.timer != nil {
		g.timer.Stop()
	}
	g.timer = time.AfterFunc(after, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.admit(g.now())
	})
}

// inVain returns why a waiter would wait in vain, nil when it may be worth it. The caller holds the lock.
func (g *Gate) inVain(w *waiter, now time.Time) *Refusal {
	if w.deadline.IsZero() {
		return nil
	}
	wait, ahead := g.wait(w, now)
	if wait <= 0 || wait < time.Until(w.deadline) {
		return nil
	}
	return &Refusal{Closed: now.Before(g.closedUntil), Wait: wait, Ahead: ahead}
}

// wait returns the least time until a waiter can be let in, and who goes before. How long those inside will stay is not known.
// The caller holds the lock.
func (g *Gate) wait(w *waiter, now time.Time) (wait time.Duration, ahead int) {
	wait = max(0, g.closedUntil.Sub(now))
	if g.bucket == nil || wait == 0 && int(g.bucket.TokensAt(now)) > len(g.line) {
		return wait, 0
	}
	for _, other := range g.line {
		if other != w && other.before(w) {
			ahead++
		}
	}
	missing := float64(ahead+1) - g.bucket.TokensAt(now)
	if wait > 0 {
		missing = float64(ahead) // the first one goes when the gate opens, and shows whether it stays open
	}
	return wait + max(0, time.Duration(missing/float64(g.bucket.Limit())*float64(time.Second))), ahead
}

// State is what a gate is doing.
type State struct {
	Limits
	Inside, Waiting int
	// Left is how many may go through at once now, as far as the rate goes; -1 when that has no bound.
	Left int
	// ClosedFor is how long the server is let alone, since it has limited requests; 0 while the gate is open.
	ClosedFor time.Duration
}

// State returns what the gate is doing.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	s := State{Limits: g.limits, Inside: g.inside, Waiting: len(g.line), Left: -1,
		ClosedFor: max(0, g.closedUntil.Sub(now))}
	if g.bucket != nil {
		s.Left = max(0, int(g.bucket.TokensAt(now)))
	}
	return s
}

// Idle reports whether nobody is inside or waits, and nothing is remembered that matters.
func (g *Gate) Idle() bool {
	s := g.State()
	return s.Inside == 0 && s.Waiting == 0 && s.ClosedFor == 0 && (s.Left < 0 || s.Left >= s.PerWindow/burstShare)
}
