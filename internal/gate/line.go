// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"container/heap"
	"context"
	"time"
)

// Class is for whom work is done.
type Class int

const (
	// Awaited is work that a caller waits for.
	Awaited Class = iota
	// Ahead is work for callers that will come.
	Ahead
	// Upkeep is work that can wait.
	Upkeep
)

// Place is somebody's place in a line.
type Place struct {
	Class Class
	// Waited is for how long the work has been wanted already: of one class, who has wanted it longest goes first.
	Waited time.Duration
	// Raised, unless nil, makes the class Awaited when it is closed: a caller waits now.
	Raised <-chan struct{}
}

type placeKey struct{}

// placed is a place since a moment.
type placed struct {
	Place
	since time.Time
}

// With gives what is done in a context a place at the gates that it comes to.
func With(ctx context.Context, p Place) context.Context {
	return context.WithValue(ctx, placeKey{}, placed{p, time.Now().Add(-p.Waited)})
}

// placeOf returns the context's place: without one it is the last of those that are waited for.
func placeOf(ctx context.Context) placed {
	if p, ok := ctx.Value(placeKey{}).(placed); ok {
		select {
		case <-p.Raised:
			p.Class, p.Raised = Awaited, nil
		default:
		}
		return p
	}
	return placed{since: time.Now()}
}

// waiter is one who waits.
type waiter struct {
	place    placed
	number   uint64    // in the order of their coming
	deadline time.Time // on the machine's clock; zero: none
	index    int       // in the line, -1 when it is not there any more
	admitted chan struct{}
	refused  chan *Refusal // holds one
}

// before reports whether a waiter goes before another.
func (w *waiter) before(other *waiter) bool {
	switch {
	case w.place.Class != other.place.Class:
		return w.place.Class < other.place.Class
	case !w.place.since.Equal(other.place.since):
		return w.place.since.Before(other.place.since)
	}
	return w.number < other.number
}

// line is those who wait, as a heap.
type line []*waiter

func (l line) Len() int           { return len(l) }
func (l line) Less(i, j int) bool { return l[i].before(l[j]) }
func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push is for container/heap.
func (l *line) Push(w any) {
	added := w.(*waiter)
	added.index = len(*l)
	*l = append(*l, added)
}

// Pop is for container/heap.
func (l *line) Pop() any {
	last := len(*l) - 1
	w := (*l)[last]
	(*l)[last], *l = nil, (*l)[:last]
	w.index = -1
	return w
}

// refuse takes those out who wait in vain.
func (l *line) refuse(inVain func(*waiter) *Refusal) {
	stay := (*l)[:0:0]
	for _, w := range *l {
		if refusal := inVain(w); refusal != nil {
			w.index = -1
			w.refused <- refusal
			continue
		}
		w.index = len(stay)
		stay = append(stay, w)
	}
	*l = stay
	heap.Init(l)
}
