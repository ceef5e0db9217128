// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package tokencache

import "time"

// staleTTL is the most a reader is told to keep a token that is served under its margin because minting failed:
// soon enough to get the new one, late enough not to add to the trouble.
const staleTTL = 10 * time.Second

// Minted is what a mint gives.
type Minted[T any] struct {
	Value T
	// RequestedAt is the moment before the request was sent: the earliest at which the server can have started
	// the token's life.
	RequestedAt Instant
	// Lifetime is the token's whole life (expires_in, RFC 6749 section 5.1).
	Lifetime time.Duration
	// MinTTL is the least life a reader should be served with; a quarter of Lifetime caps it.
	MinTTL time.Duration
	// Confirmed is set when this is the token that the Demand held, and is still right.
	Confirmed bool

	share float64 // random, fixed for the token
	crowd bool    // it was minted together with many others
}

// spread fixes the token's random share, so that tokens that were minted together are not renewed together. Those of a crowd
// are renewed at any moment of their life, once; after that they are apart, and stay so.
func (m *Minted[T]) spread(share float64, crowd bool) { m.share, m.crowd = share, crowd }

// between returns the life left at a share of the way from least to the whole life, for a token of a crowd.
func (m *Minted[T]) between(least time.Duration) time.Duration {
	return least + time.Duration(m.share*float64(m.Lifetime-least))
}

// margin is the remaining life under which readers wait for a new token.
func (m *Minted[T]) margin() time.Duration { return min(m.MinTTL, m.Lifetime/4) }

// ahead is the remaining life from which on a read starts a mint in the background: two margins.
func (m *Minted[T]) ahead() time.Duration {
	if m.crowd {
		return m.between(2 * m.margin())
	}
	return 2 * m.margin()
}

// due is the remaining life at which readers are told to come back: one margin, or up to half as much again.
func (m *Minted[T]) due() time.Duration {
	if m.crowd {
		return m.between(m.margin() * 5 / 4)
	}
	return m.margin() + time.Duration(m.share*float64(m.margin())/2)
}

func (m *Minted[T]) remaining(now Instant) time.Duration { return m.Lifetime - m.RequestedAt.Age(now) }

// Served is a token as one reader gets it.
type Served[T any] struct {
	Minted[T]
	// Remaining is the life left at the moment of serving, always positive.
	Remaining time.Duration
	// Waited says that the reader waited for a mint.
	Waited bool
	// Stale, when not nil, is the mint failure because of which a token under its margin was served.
	Stale error
}

// TTL is how long the reader may keep the token before it comes back, in whole seconds: who comes back a second
// later gets a newer one, or at the latest with the time after. It is never less than 1, at which consul-template would poll
// without a pause.
func (s *Served[T]) TTL() int64 {
	keep := s.Remaining - s.due()
	switch {
	case s.Stale != nil:
		return max(1, int64(min(staleTTL, s.Remaining)/time.Second))
	case keep <= 0: // the next one is being minted
		keep = min(staleTTL, s.Remaining-s.margin())
	}
	return max(1, int64((keep+time.Second-1)/time.Second))
}

// RotationPeriod is the time from one token to the next, in whole seconds, at least 1. It is the same for all
// readers of one token.
func (s *Served[T]) RotationPeriod() int64 {
	return max(1, int64((s.Lifetime-s.due())/time.Second))
}
