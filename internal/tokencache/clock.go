// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package tokencache

import "time"

// Instant is one moment read from both clocks. The wall clock goes on while a virtual machine is suspended but
// can be set back; the monotonic clock can't be set back but may stand still meanwhile. Age trusts neither alone.
type Instant struct {
	Wall      time.Time
	Monotonic time.Duration // since an arbitrary start, the same for all instants that are compared
}

// monotonicStart is the zero of every Instant that Now gives.
var monotonicStart = time.Now()

// Now is the present moment on the machine's clocks.
func Now() Instant {
	now := time.Now()
	return Instant{Wall: now.Round(0), Monotonic: now.Sub(monotonicStart)}
}

// Age is how long before now the instant was: by the clock that says longer, so that what must not be used for
// too long never is.
func (i Instant) Age(now Instant) time.Duration {
	return max(now.Wall.Sub(i.Wall), now.Monotonic-i.Monotonic)
}

// Add is the instant d later on both clocks.
func (i Instant) Add(d time.Duration) Instant {
	return Instant{Wall: i.Wall.Add(d), Monotonic: i.Monotonic + d}
}
