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
}

// margin is the remaining life under which readers wait for a new token. At twice the margin the cache starts to
// look for one in the background.
func (m *Minted[T]) margin() time.Duration { return min(m.MinTTL, m.Lifetime/4) }

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
// later finds the margin begun and gets a newer one. It is never less than 1, at which consul-template would poll
// without a pause.
func (s *Served[T]) TTL() int64 {
	if s.Stale != nil {
		return max(1, int64(min(staleTTL, s.Remaining)/time.Second))
	}
	return max(1, int64((s.Remaining-s.margin()+time.Second-1)/time.Second))
}

// RotationPeriod is the time from one token to the next, in whole seconds, at least 1. It is the same for all
// readers of one token.
func (s *Served[T]) RotationPeriod() int64 {
	return max(1, int64((s.Lifetime-s.margin())/time.Second))
}
