// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"sync"
)

// arrivedMax is how many requests can arrive at the gate without anyone looking; further ones are held, too, but
// not told.
const arrivedMax = 1 << 20

// gate holds requests at the token endpoint, so that tests can stage races without sleeping.
type gate struct {
	mu     sync.Mutex
	closed *hold // nil: open
}

// hold is one time that the gate is closed.
type hold struct {
	arrived  chan struct{}
	released chan struct{}
}

// HoldTokenRequests holds every request that comes to the token endpoint from now on, unanswered, until release is
// called. Each one's arrival is told on arrived. Calling release more than once does no harm; a second hold takes
// over from the first, whose requests still wait for the first's release.
func (s *Sandbox) HoldTokenRequests() (arrived <-chan struct{}, release func()) {
	h := &hold{arrived: make(chan struct{}, arrivedMax), released: make(chan struct{})}
	s.gate.mu.Lock()
	s.gate.closed = h
	s.gate.mu.Unlock()
	var once sync.Once
	return h.arrived, func() {
		once.Do(func() {
			s.gate.mu.Lock()
			if s.gate.closed == h {
				s.gate.closed = nil
			}
			s.gate.mu.Unlock()
			close(h.released)
		})
	}
}

// wait holds a token request as long as the gate is closed, and says whether it is still wanted then.
func (g *gate) wait(ctx context.Context, where area) bool {
	g.mu.Lock()
	h := g.closed
	g.mu.Unlock()
	if h == nil || where != areaToken {
		return true
	}
	select {
	case h.arrived <- struct{}{}:
	default:
	}
	select {
	case <-h.released:
		return true
	case <-ctx.Done():
		return false
	}
}
