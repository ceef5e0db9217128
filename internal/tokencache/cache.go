// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package tokencache decides who mints a token and when: readers of one name share a token, one of them (or a
// refresh ahead of time) mints the next, and failures are remembered so that a broken name can't hammer the
// server. It knows neither Vault nor Redox; its clock can be replaced.
package tokencache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// freshFor is how long after its mint a token counts as fresh for those who ask for a new one: a crowd
	// whose token was rejected makes one new token, not one each.
	freshFor = 2 * time.Second

	// briefly is how long a reader waits for the next token while the one there is has life enough.
	briefly = 2 * time.Second

	minPause = time.Second
	maxPause = 30 * time.Second

	// placeKept is how long it is remembered since when a name without a token is wanted, after the last that asked for it.
	placeKept = 5 * time.Minute

	// crowd is how many names that had no token may mint one within a minute, before their tokens' times are spread wide: as
	// many more are a herd that would renew together.
	crowd       = 20
	crowdWithin = time.Minute

	// evictionsPerMint is how many entries each mint looks at to evict the dead ones. More than one, so that
	// the dead stay a small part of all; few, so that no reader waits for it.
	evictionsPerMint = 8
)

var (
	// ErrClosed is returned to those who ask for a token after Close.
	ErrClosed = errors.New("the token cache is closed, as when the plugin is reloaded; try again")
	// ErrExpired is a mint whose token had no life left when it arrived.
	ErrExpired = errors.New("the token had expired by the time it arrived")

	// errSlow is why a token under its margin is served while its mint goes on: a server that hangs must not use up
	// the life that is left.
	errSlow = fmt.Errorf("the server takes long, and is still waited for: %w", context.DeadlineExceeded)
)

// Options of a Cache. Mint is required.
type Options[T any] struct {
	// Mint makes the token of a name, or confirms the one that the Demand holds. Its context ends a little before MaxWait is
	// over, so that those who wait get to know its error, which says more than that the time is over; and when the name is
	// dropped or doubted, or the cache is closed. It does not end when a reader gives up.
	Mint func(ctx context.Context, name string, d Demand[T]) (Minted[T], error)
	// Pauses says whether a Mint error makes the cache pause before it tries again, and how long at least (what
	// the server asked for; the cache caps it). Errors that cost the server nothing need no pause. Nil pauses
	// after every error.
	Pauses func(error) (pause bool, least time.Duration)
	// Ended, unless nil, is told how each mint ended that no change has superseded, after its readers were served.
	Ended func(name string, took time.Duration, err error)
	// MaxWait bounds the wait of a reader, and so a mint. Default 20 s.
	MaxWait time.Duration
	// Now is the clock. Default Now.
	Now func() Instant
	// Share gives each token its random share, from 0 to less than 1, by which its times are spread. Default rand.Float64.
	Share func() float64
}

// Demand is what a mint is for.
type Demand[T any] struct {
	// Since is when the token was first wanted. A name without a token keeps it from one failed mint to the next.
	Since Instant
	// Awaited is closed once a reader waits for the mint. Until then it is ahead of time.
	Awaited <-chan struct{}
	// Held, unless nil, is a token that may be wrong, since what it was made from may have changed. If it is still right,
	// Mint returns it with Confirmed set, and asks nobody.
	Held *Minted[T]
}

// Cache holds at most one token per name. All methods may be called at the same time.
type Cache[T any] struct {
	options Options[T]
	ctx     context.Context
	cancel  context.CancelFunc
	mints   sync.WaitGroup

	mu         sync.RWMutex // never held across a mint
	entries    map[string]*entry[T]
	firsts     int // names without a token that have minted one since firstsFrom
	firstsFrom Instant
}

// entry is what is known of one name. An entry that was dropped is never used again: its successor in the map is
// another one, which is how a mint that began before a change is kept from publishing after it.
type entry[T any] struct {
	held     *Minted[T] // never changed once published
	heldFrom Instant    // when it was published
	doubted  bool       // held is served only after a mint has confirmed it
	wanted   *Instant   // since when there is none though somebody wants it
	flight   *flight[T]
	failure  *failure
}

// flight is a mint under way. Its fields are written under the cache's lock before done is closed.
type flight[T any] struct {
	done       chan struct{}
	cancel     context.CancelFunc
	superseded bool // what it minted from has changed: waiters start again
	confirmed  bool // the token is still right: waiters look again
	minted     *Minted[T]
	err        error

	demand    Demand[T]
	awaited   chan struct{} // the demand's
	isAwaited bool
}

type failure struct {
	err   error
	at    Instant
	pause time.Duration // doubles from one failure to the next
	rest  time.Duration // until the next mint: the pause, or less
}

func (f *failure) holds(now Instant) bool { return f != nil && f.at.Age(now) < f.rest }

// forgotten says that the next failure starts with the shortest pause again.
func (f *failure) forgotten(now Instant) bool { return f == nil || f.at.Age(now) >= 2*maxPause }

// New makes a cache. It starts no goroutine of its own; Close ends the mints it will have started.
func New[T any](o Options[T]) *Cache[T] {
	if o.Pauses == nil {
		o.Pauses = func(error) (bool, time.Duration) { return true, 0 }
	}
	if o.MaxWait == 0 {
		o.MaxWait = 20 * time.Second
	}
	if o.Now == nil {
		o.Now = Now
	}
	if o.Share == nil {
		o.Share = rand.Float64
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache[T]{options: o, ctx: ctx, cancel: cancel, entries: map[string]*entry[T]{}}
}

// Close cancels the mints under way and refuses new ones. It does not wait for them: Wait does.
func (c *Cache[T]) Close() {
	c.cancel()
	c.DropAll()
}

// Wait returns when no mint is under way.
func (c *Cache[T]) Wait() { c.mints.Wait() }

// Get serves the name's token: from memory while it has life enough, else from a mint that all readers share. When
// the mint fails while the old token still lives, that one is served with the failure in Stale.
func (c *Cache[T]) Get(ctx context.Context, name string) (Served[T], error) {
	now := c.options.Now()
	c.mu.RLock()
	var held *Minted[T]
	if e := c.entries[name]; e != nil && !e.doubted {
		held = e.held
	}
	c.mu.RUnlock()
	if held != nil {
		if left := held.remaining(now); left > held.ahead() {
			return Served[T]{Minted: *held, Remaining: left}, nil
		}
	}
	return c.await(ctx, name, c.getOrMint)
}

// Fresh serves a token that was minted just now: by a mint already under way, by a new one, or up to two seconds
// ago. It is for a reader whose token was rejected, so it never serves an older one.
func (c *Cache[T]) Fresh(ctx context.Context, name string) (Served[T], error) {
	return c.await(ctx, name, c.freshOrMint)
}

// decision is what a reader does next: wait for a flight, or end with served or err.
type decision[T any] struct {
	wait   *flight[T]
	served Served[T]
	err    error
	// impatient, when not nil, ends the wait before the flight does.
	impatient <-chan time.Time
	// fallback serves what there is when the wait ends in vain.
	fallback func(cause error) (Served[T], error)
}

// await repeats decide until it ends or the flight it waits for does: a flight that a change has superseded sends
// its waiters back to decide, with what is configured now.
func (c *Cache[T]) await(ctx context.Context, name string, decide func(string) decision[T]) (Served[T], error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.MaxWait)
	defer cancel()
	for {
		d := decide(name)
		if d.wait == nil {
			return d.served, d.err
		}
		select {
		case <-d.wait.done:
		case <-d.impatient:
			return d.fallback(errSlow)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return d.fallback(ctx.Err())
			}
			return Served[T]{}, ctx.Err()
		}
		switch {
		case d.wait.superseded, d.wait.confirmed:
			continue
		case d.wait.err != nil:
			return d.fallback(d.wait.err)
		}
		// Waiting for the processor costs life too, hence the second look.
		served, err := serve(d.wait.minted, c.options.Now(), nil, ErrExpired)
		served.Waited = true
		return served, err
	}
}

// serve gives held with its remaining life, or otherwise when it has none.
func serve[T any](held *Minted[T], now Instant, stale, otherwise error) (Served[T], error) {
	if held != nil {
		if left := held.remaining(now); left > 0 {
			return Served[T]{Minted: *held, Remaining: left, Stale: stale}, nil
		}
	}
	return Served[T]{}, otherwise
}

func (c *Cache[T]) getOrMint(name string) decision[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.options.Now()
	e := c.entry(name)
	held := e.held
	if e.doubted {
		held = nil
	}
	var impatient <-chan time.Time
	if held != nil {
		left := held.remaining(now)
		asHeld := decision[T]{served: Served[T]{Minted: *held, Remaining: left}}
		switch fails := e.failure.holds(now); {
		case left > held.due():
			if left <= held.ahead() && !fails {
				c.launch(name, e, now, false)
			}
			return asHeld
		case left > held.margin():
			// Readers were told to come back now for the next one: some consumers wait for their whole ttl once more when they
			// get the same token again. So they wait for it, but not for long, and without a word when it does not come.
			if e.flight == nil && fails {
				return asHeld
			}
			return decision[T]{wait: c.launch(name, e, now, true), impatient: time.After(briefly),
				fallback: func(cause error) (Served[T], error) { return serve(held, c.options.Now(), nil, cause) }}
		case left > 0:
			impatient = time.After(left / 2)
		}
	}
	fallback := func(cause error) (Served[T], error) { return serve(held, c.options.Now(), cause, cause) }
	if e.flight == nil && e.failure.holds(now) {
		served, err := fallback(e.failure.err)
		return decision[T]{served: served, err: err}
	}
	return decision[T]{wait: c.launch(name, e, now, true), impatient: impatient, fallback: fallback}
}

func (c *Cache[T]) freshOrMint(name string) decision[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.options.Now()
	e := c.entry(name)
	if e.flight == nil {
		if e.held != nil && !e.doubted && e.heldFrom.Age(now) < freshFor {
			if served, err := serve(e.held, now, nil, ErrExpired); err == nil {
				return decision[T]{served: served}
			}
		}
		if e.failure.holds(now) {
			return decision[T]{err: e.failure.err}
		}
	}
	noOlder := func(cause error) (Served[T], error) { return Served[T]{}, cause }
	return decision[T]{wait: c.launch(name, e, now, true), fallback: noOlder}
}

// entry finds or makes the name's entry. The caller holds the lock. An entry made for a name that turns out to have
// no token goes away with its flight.
func (c *Cache[T]) entry(name string) *entry[T] {
	e := c.entries[name]
	if e == nil {
		e = &entry[T]{}
		c.entries[name] = e
	}
	return e
}

// launch gives the entry's flight, started now if there is none. The caller holds the lock.
func (c *Cache[T]) launch(name string, e *entry[T], now Instant, awaited bool) *flight[T] {
	if e.flight != nil {
		e.flight.await(awaited)
		return e.flight
	}
	// The flight is registered before the mint reads anything: a change that comes after its read finds and
	// supersedes it.
	ctx, cancel := context.WithTimeout(c.ctx, c.options.MaxWait*19/20)
	f := &flight[T]{done: make(chan struct{}), cancel: cancel, awaited: make(chan struct{})}
	f.demand = Demand[T]{Since: now, Awaited: f.awaited}
	f.await(awaited)
	if e.doubted {
		f.demand.Held = e.held
	}
	if !e.living(now) {
		f.demand.Held, e.doubted = nil, false
		if e.wanted == nil {
			e.wanted = &now
		}
		f.demand.Since = *e.wanted
	}
	e.flight = f
	c.evict()
	c.mints.Add(1)
	go func() {
		defer c.mints.Done()
		defer cancel()
		c.fly(ctx, name, e, f)
	}()
	return f
}

// await notes whether a reader waits. The caller holds the lock.
func (f *flight[T]) await(awaited bool) {
	if awaited && !f.isAwaited {
		f.isAwaited = true
		close(f.awaited)
	}
}

// living reports whether there is a token with life left, right or not.
func (e *entry[T]) living(now Instant) bool { return e.held != nil && e.held.remaining(now) > 0 }

// fly mints, publishes the outcome if the flight still counts, and tells how it ended.
func (c *Cache[T]) fly(ctx context.Context, name string, e *entry[T], f *flight[T]) {
	began := c.options.Now()
	var minted Minted[T]
	err := ErrClosed
	if c.ctx.Err() == nil {
		minted, err = c.options.Mint(ctx, name, f.demand)
	}
	if err != nil && c.ctx.Err() != nil {
		err = ErrClosed // which is why, whatever the mint says
	}
	now := c.options.Now()
	if err == nil && minted.remaining(now) <= 0 && !minted.Confirmed { // else another is minted
		err = ErrExpired
	}
	if c.publish(name, e, f, &minted, err, now) && err != ErrClosed && !f.confirmed && c.options.Ended != nil {
		c.options.Ended(name, began.Age(now), err)
	}
}

// publish makes the outcome of a flight known, and says whether it still counts.
func (c *Cache[T]) publish(name string, e *entry[T], f *flight[T], minted *Minted[T], err error, now Instant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.superseded {
		return false
	}
	e.flight, f.minted, f.err = nil, minted, err
	switch {
	case err == nil && minted.Confirmed:
		f.confirmed, e.doubted = true, false
		minted.spread(e.held.share, e.held.crowd)
		e.held = minted
	case err == nil:
		minted.spread(c.options.Share(), !e.living(now) && c.isCrowd(now))
		e.held, e.heldFrom, e.doubted, e.wanted, e.failure = minted, now, false, nil, nil
	default:
		if e.doubted && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			e.held, e.doubted = nil, false // it is not what is configured now
		}
		c.fail(e, err, now)
	}
	if e.dead(now) {
		delete(c.entries, name)
	}
	close(f.done)
	return true
}

// fail remembers why a mint failed. The caller holds the lock.
func (c *Cache[T]) fail(e *entry[T], err error, now Instant) {
	pauses, least := c.options.Pauses(err)
	if !pauses {
		return
	}
	e.failure = nextFailure(e.failure, err, least, now)
	if e.living(now) {
		// Not past the token's end: an outage that is over before then is to go unnoticed.
		e.failure.rest = min(e.failure.pause, max(least, minPause, e.held.remaining(now)))
	}
}

// isCrowd counts a name that had no token, and reports whether many have had none lately. The caller holds the lock.
func (c *Cache[T]) isCrowd(now Instant) bool {
	if c.firstsFrom.Age(now) >= crowdWithin {
		c.firsts, c.firstsFrom = 0, now
	}
	c.firsts++
	return c.firsts > crowd
}

// nextFailure doubles the pause of the failure before, if there was one lately.
func nextFailure(before *failure, err error, least time.Duration, now Instant) *failure {
	pause := minPause
	if !before.forgotten(now) {
		pause = 2 * before.pause
	}
	pause = min(max(pause, least), maxPause)
	return &failure{err: err, at: now, pause: pause, rest: pause}
}

// dead says that nothing would change if the entry were not there.
func (e *entry[T]) dead(now Instant) bool {
	return e.flight == nil && !e.living(now) && (e.failure == nil || e.failure.at.Age(now) >= placeKept)
}

// evict looks at a few entries, which the map's iteration picks at random, and deletes the dead ones. The caller
// holds the lock.
func (c *Cache[T]) evict() {
	now := c.options.Now()
	looked := 0
	for name, e := range c.entries {
		if e.dead(now) {
			delete(c.entries, name)
		}
		if looked++; looked == evictionsPerMint {
			return
		}
	}
}

// Drop forgets all that is known of the name, a mint in flight included. Call it after what the token derives from
// has been changed in storage.
func (c *Cache[T]) Drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil {
		c.drop(name, e)
	}
}

// DropAll is Drop for every name.
func (c *Cache[T]) DropAll() {
	c.DropFunc(func(T) bool { return true })
}

// DropFunc is Drop for every name whose token matches, and for those that have none yet: what a first mint in flight
// derives from is not known.
func (c *Cache[T]) DropFunc(matches func(T) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, e := range c.entries {
		if e.held == nil || matches(e.held.Value) {
			c.drop(name, e)
		}
	}
}

// drop takes the entry away and sends the waiters of its flight back to start again. The caller holds the lock.
func (c *Cache[T]) drop(name string, e *entry[T]) {
	delete(c.entries, name)
	e.supersede()
}

// supersede sends the waiters of the entry's flight back to start again. The caller holds the lock.
func (e *entry[T]) supersede() {
	if f := e.flight; f != nil {
		f.superseded = true
		f.cancel()
		close(f.done)
		e.flight = nil
	}
}

// Doubt is for when what the name's token was made from may have changed in storage: the token is served again only after
// a mint has confirmed it. What else is known of the name is forgotten, a mint in flight included.
func (c *Cache[T]) Doubt(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil {
		c.doubt(name, e)
	}
}

// DoubtAll is Doubt for every name.
func (c *Cache[T]) DoubtAll() {
	c.DoubtFunc(func(T) bool { return true })
}

// DoubtFunc is Doubt for every name whose token matches, and for those that have none yet, as DropFunc.
func (c *Cache[T]) DoubtFunc(matches func(T) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, e := range c.entries {
		if e.held == nil || matches(e.held.Value) {
			c.doubt(name, e)
		}
	}
}

// doubt is Doubt for an entry. The caller holds the lock.
func (c *Cache[T]) doubt(name string, e *entry[T]) {
	if !e.living(c.options.Now()) {
		c.drop(name, e)
		return
	}
	e.doubted, e.failure = true, nil
	e.supersede()
}

// ForgetFailure lets the next reader of the name mint at once.
func (c *Cache[T]) ForgetFailure(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil {
		e.failure = nil
	}
}

// ForgetFailures is ForgetFailure for every name.
func (c *Cache[T]) ForgetFailures() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.failure = nil
	}
}

// Living counts the tokens that have not expired, and gives the least life that one of them has left.
func (c *Cache[T]) Living() (count int, least time.Duration) {
	now := c.options.Now()
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, e := range c.entries {
		if e.held == nil {
			continue
		}
		if left := e.held.remaining(now); left > 0 {
			if count == 0 || left < least {
				least = left
			}
			count++
		}
	}
	return count, least
}

// Len is how many names the cache knows something of.
func (c *Cache[T]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}
