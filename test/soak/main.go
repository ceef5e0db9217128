// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

// Command soak lets readers, faults and rotations loose on the plugin in a real Vault, for as long as it is told, and
// judges at the end whether it held. scripts/soak builds what it needs and calls it. It talks to loopback only, and reads
// the sizes of processes from /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// shortest is how long a run takes at least: in less, nothing can be said about growth.
const shortest = time.Minute

type settings struct {
	vault, plugin string // binaries
	directory     string // where a new one is made for this run
	duration      time.Duration
	rate          int
	seed          uint64
}

func main() {
	s := settings{duration: 10 * time.Minute, seed: rand.Uint64N(1_000_000)}
	flag.StringVar(&s.vault, "vault", "", "the vault `binary`")
	flag.StringVar(&s.plugin, "plugin", "", "the plugin's `binary`, alone in its folder")
	flag.StringVar(&s.directory, "directory", os.TempDir(), "`folder` for this run's own folder, which stays only after a failure")
	flag.DurationVar(&s.duration, "duration", s.duration, "how long readers read, at least 1m")
	flag.IntVar(&s.rate, "rate", 50, "reads per second, at most")
	flag.Uint64Var(&s.seed, "seed", s.seed, "decides which faults and changes come, and how long they last; by default another one each time")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		usage(fmt.Sprintf("unexpected argument %q", flag.Arg(0)))
	case s.vault == "" || s.plugin == "":
		usage("-vault and -plugin are needed; scripts/soak gives them")
	case s.duration < shortest:
		usage("-duration must be at least 1m: in less, nothing can be said about growth")
	case s.rate < 1 || s.rate > 10_000:
		usage("-rate must be from 1 to 10000")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	passed, err := run(ctx, s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func usage(problem string) {
	fmt.Fprintln(os.Stderr, "soak:", problem)
	os.Exit(2)
}

// soak is one run.
type soak struct {
	settings
	vault   *vault
	redox   *endpoint
	record  *record
	windows *windows
	secrets *secrets
	began   time.Time
	// dashboard keeps a rotation and a fault that both change what Redox knows of a key from each other.
	dashboard map[string]*sync.Mutex
}

// random gives an actor's own source, so that what one of them does is decided by the seed alone.
func (s *soak) random(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(s.seed, actor)) }

func run(ctx context.Context, set settings) (passed bool, err error) {
	directory, err := os.MkdirTemp(set.directory, "soak-")
	if err != nil {
		return false, err
	}
	defer func() {
		if passed {
			err = errors.Join(err, os.RemoveAll(directory))
		} else {
			fmt.Printf("Vault's log is kept: %s\n", filepath.Join(directory, "vault.log"))
		}
	}()
	s := &soak{
		settings: set, record: newRecord(), windows: &windows{}, secrets: newSecrets(),
		dashboard: map[string]*sync.Mutex{},
	}
	if s.redox, err = startEndpoint(); err != nil {
		return false, err
	}
	defer s.redox.down()
	if s.vault, err = startVault(ctx, set, directory); err != nil {
		return false, err
	}
	defer s.vault.Stop()
	if err := s.setUp(ctx); err != nil {
		return false, fmt.Errorf("setting up: %w", err)
	}
	fmt.Printf("soak for %s, at most %d reads/s, seed %d\n", set.duration, set.rate, set.seed)
	samples := s.soak(ctx)
	interrupted := ctx.Err() != nil

	// The end is the same after Ctrl-C, and bounded.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
	defer cancel()
	leftLeases := s.drainLeases(closing)
	leaks, searched, err := s.searchSecrets(closing)
	if err != nil {
		return false, fmt.Errorf("searching for secrets: %w", err)
	}
	v := judge(evidence{
		reads: s.record.finish(), windows: s.windows.all(), samples: samples, rate: s.rate, leftLeases: leftLeases,
		leaks: leaks, searched: searched,
	})
	v.print(os.Stdout, summary{settings: set, lasted: time.Since(s.began), interrupted: interrupted})
	return v.passed(), nil
}

// soak runs all actors until the time is over, and gives what was sampled.
func (s *soak) soak(ctx context.Context) []sample {
	s.began = time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	var actors sync.WaitGroup
	actors.Go(func() { s.read(ctx) })
	actors.Go(func() { s.breakThings(ctx) })
	actors.Go(func() { s.rotate(ctx) })
	actors.Go(func() { s.change(ctx) })
	samples := s.watch(ctx)
	actors.Wait()
	return samples
}

// pause waits, and says whether the run still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// between gives a random duration.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)+1))
}
