// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"maps"
	"slices"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

const (
	// settledRest is how long an OAuth API key that is as it should be is not looked at: somebody may change it there.
	settledRest = 15 * time.Minute
	// firstProblemRest is how long one is not looked at where something is wrong; it doubles with each look, up to settledRest.
	firstProblemRest = time.Minute
)

// hasLeft is what is wanted of the API key of a client that is configured no more.
const hasLeft = "nothing"

// rests remembers which OAuth API keys need not be looked at for a while. Memory only: after a start all are looked at.
type rests struct {
	mu   sync.Mutex
	byAt map[restAt]rest
}

// restAt is an OAuth API key that a signing key is registered at.
type restAt struct {
	key string
	rotation.Client
}

type rest struct {
	wanted  string // what was wanted there then: with anything else it does not rest
	from    tokencache.Instant
	lasts   time.Duration
	settled bool
}

// rest reports whether an API key rests: only one that is settled does if not also those are meant where something is wrong.
func (r *rests) rest(key string, client rotation.Client, wanted string, alsoProblems bool, now tokencache.Instant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, found := r.byAt[restAt{key, client}]
	return found && last.wanted == wanted && (last.settled || alsoProblems) && last.from.Age(now) < last.lasts
}

// looked notes what a look at an API key has found, the index-th of so many. Those that are settled at first are spread over
// the time of a rest, and stay apart after that.
func (r *rests) looked(key string, client rotation.Client, wanted string, found []registered, index, of int, now tokencache.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byAt == nil {
		r.byAt = map[restAt]rest{}
	}
	at := restAt{key, client}
	before := r.byAt[at]
	next := rest{wanted: wanted, from: now}
	switch {
	case slices.ContainsFunc(found, func(one registered) bool { return one.Problem != "" }):
		next.lasts = firstProblemRest
		if before.wanted == wanted && !before.settled {
			next.lasts = min(max(2*before.lasts, firstProblemRest), settledRest)
		}
	case slices.ContainsFunc(found, func(one registered) bool { return !one.Confirmed }): // seen there with the next look
	case before.wanted == wanted && before.settled:
		next.lasts, next.settled = settledRest, true
	default:
		next.lasts, next.settled = settledRest*time.Duration(index+1)/time.Duration(of), true
	}
	r.byAt[at] = next
}

// keep forgets the API keys of a key's other clients than these and of those that have left.
func (r *rests) keep(key string, clients map[rotation.Client]*roleConfig) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.byAt, func(at restAt, last rest) bool {
		return at.key == key && clients[at.Client] == nil && (clients == nil || last.wanted != hasLeft)
	})
}
