// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// sample is what was measured at one moment.
type sample struct {
	at         time.Time
	fault      bool    // a fault lasted
	life       float64 // when the plugin's process began
	goroutines float64
	files      float64 // open file descriptors
	resident   float64 // bytes
	vault      float64 // resident bytes of the server
	leases     float64
}

// watch samples and shows how it goes, until the context ends.
func (s *soak) watch(ctx context.Context) []sample {
	var samples []sample
	interval := min(max(s.duration/120, time.Second), 5*time.Second)
	before := tally{}
	lastAt := time.Now()
	for pause(ctx, interval) {
		now, err := s.sample(ctx)
		if err == nil {
			samples = append(samples, *now)
		}
		t := s.record.finish()
		rate := float64(t.requests()-before.requests()) / time.Since(lastAt).Seconds()
		before, lastAt = t, time.Now()
		fmt.Println(s.line(t, rate, now))
	}
	return samples
}

// sample asks the engine for its metrics. It fails while the plugin is started anew.
func (s *soak) sample(ctx context.Context) (*sample, error) {
	a, err := s.vault.Do(ctx, http.MethodGet, mount+"metrics", nil)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK {
		return nil, fmt.Errorf("the metrics can't be read: HTTP %d", a.Status)
	}
	leases, err := s.vault.leases(ctx)
	if err != nil {
		return nil, err
	}
	now := &sample{at: time.Now(), fault: s.windows.current() != "", leases: float64(leases)}
	resident, err := testvault.Memory(s.vault.PID(), "VmRSS")
	if err != nil {
		return nil, err
	}
	now.vault = float64(resident)
	text := string(a.Body)
	for name, value := range map[string]*float64{
		"process_start_time_seconds": &now.life, "go_goroutines": &now.goroutines,
		"process_open_fds": &now.files, "process_resident_memory_bytes": &now.resident,
	} {
		if *value, err = metric(text, name); err != nil {
			return nil, err
		}
	}
	return now, nil
}

// metric gives the value of a metric without labels.
func metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the metrics have no %s", name)
}

// line is one line of the readout.
func (s *soak) line(t tally, rate float64, now *sample) string {
	measured := "plugin not there"
	if now != nil {
		measured = fmt.Sprintf("plugin %s %.0f goroutines %.0f fds  leases %.0f  vault %s",
			mebibytes(now.resident), now.goroutines, now.files, now.leases, mebibytes(now.vault))
	}
	line := fmt.Sprintf("%s  %5.1f reads/s  ok %d  failed %s  mints %d  rotations %d  faults %d  %s",
		time.Since(s.began).Round(time.Second), rate, t.ok, byStatus(t.statuses), s.redox.Counters().Token.Issued, t.rotated,
		len(s.windows.all()), measured)
	if fault := s.windows.current(); fault != "" {
		line += "  now: " + fault
	}
	return line
}

// requests counts all that were answered, in whatever way.
func (t *tally) requests() int {
	n := t.ok + t.tokens[dead]
	for _, count := range t.statuses {
		n += count
	}
	return n
}

// byStatus shows how many requests failed, and with what.
func byStatus(statuses map[int]int) string {
	total := 0
	var words []string
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		total += statuses[status]
		name := strconv.Itoa(status)
		if status == 0 {
			name = "none"
		}
		words = append(words, fmt.Sprintf("%s: %d", name, statuses[status]))
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(words, ", "))
}

func mebibytes(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }

// drainLeases waits for the leases to end by themselves, and gives how many do not.
func (s *soak) drainLeases(ctx context.Context) int {
	fmt.Println("the readers are done; their leases have to end by themselves")
	left := -1
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); {
		if count, err := s.vault.leases(ctx); err == nil {
			if left = count; left == 0 {
				return 0
			}
		}
		if !pause(ctx, time.Second) {
			break
		}
	}
	return left
}
