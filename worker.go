// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"sync"
)

// worker is a goroutine of a mount that works when it is woken up. A mount has two: one maintains the keys, one sends events.
type worker struct {
	wake   chan struct{} // holds one call to wake
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func newWorker() *worker { return &worker{wake: make(chan struct{}, 1)} }

// start begins the work; its end is stop.
func (w *worker) start(work func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.ended.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
				work(ctx)
			}
		}
	})
}

// wakeUp makes the worker look for work. It never waits.
func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it is called already
	}
}

// stop tells the worker to end, and does not wait for it.
func (w *worker) stop() {
	if w.cancel != nil {
		w.cancel()
	}
}
