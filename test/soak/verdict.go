// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// evidence is all that a run is judged by.
type evidence struct {
	reads      tally
	windows    []window
	samples    []sample
	rate       int // of reads
	leftLeases int // that did not end; -1: they could not be counted
	leaks      []string
	searched   int // bytes
}

// check is one thing that has to hold.
type check struct {
	claim   string
	holds   bool
	details []string
}

type verdict []check

func (v verdict) passed() bool {
	return !slices.ContainsFunc(v, func(c check) bool { return !c.holds })
}

func judge(e evidence) verdict {
	return verdict{
		judgeTokens(&e.reads),
		judgeFailures(&e.reads, e.windows),
		judgeRotations(&e.reads),
		judgeGrowth("the plugin's goroutines do not pile up", e.samples, tolerance{0.10, 5}, func(s *sample) float64 { return s.goroutines }, plain),
		judgeGrowth("the plugin's open file descriptors do not pile up", e.samples, tolerance{0.10, 3}, func(s *sample) float64 { return s.files }, plain),
		judgeGrowth("the plugin's resident memory does not grow", e.samples, tolerance{0.10, 3 << 20}, func(s *sample) float64 { return s.resident }, mebibytes),
		judgeLeases(e.samples, e.rate, e.leftLeases),
		judgeSecrets(e.leaks, e.searched),
	}
}

// judgeTokens lets pass that very few tokens ended on their way: a token that is read in its last moment may. Many are those
// that were handed out less than a second too late, which expire_time does not tell apart.
func judgeTokens(t *tally) check {
	c := check{
		claim: "every token was valid at Redox when it was handed out",
		holds: t.tokens[dead] == 0 && t.tokens[live] > 0 && t.tokens[endedOnItsWay] <= 2+t.tokens[live]/1000,
		details: []string{fmt.Sprintf("%d valid, %d ended on their way to the reader, %d were not valid",
			t.tokens[live], t.tokens[endedOnItsWay], t.tokens[dead])},
	}
	c.details = append(c.details, someOf(t.dead)...)
	return c
}

// judgeFailures looks for requests that failed though nothing was wrong. It also tells how long after a fault the last
// request failed: that is what readers see of a recovery.
func judgeFailures(t *tally, windows []window) check {
	var inexcusable []outcome
	excused := map[string]int{}
	var slowest time.Duration
	slowestKind := ""
	for _, o := range t.failures {
		i := slices.IndexFunc(windows, func(w window) bool { return w.excused(&o) })
		if i < 0 {
			inexcusable = append(inexcusable, o)
			continue
		}
		w := &windows[i]
		excused[w.kind]++
		if after := o.ended.Sub(w.end); !w.end.IsZero() && after > slowest {
			slowest, slowestKind = after, w.kind
		}
	}
	c := check{
		claim:   "no request failed outside of faults and the time to recover from them",
		holds:   len(inexcusable) == 0 && t.ok > 0 && len(t.failures) < keptMost,
		details: []string{fmt.Sprintf("%d succeeded; failed: %s, of which %d have no excuse", t.ok, byStatus(t.statuses), len(inexcusable))},
	}
	if len(t.failures) == keptMost {
		c.details = append(c.details, "more failed than is remembered: not all could be judged")
	}
	c.details = append(c.details, someOf(inexcusable)...)
	faults := map[string]int{}
	for _, w := range windows {
		faults[w.kind]++
	}
	for _, kind := range slices.Sorted(maps.Keys(faults)) {
		c.details = append(c.details, fmt.Sprintf("%3d x %-28s %6d failed", faults[kind], kind, excused[kind]))
	}
	if slowestKind != "" {
		c.details = append(c.details, fmt.Sprintf("the last failure after a fault: %.1f s (%s)", slowest.Seconds(), slowestKind))
	}
	return c
}

// someOf describes the first few.
func someOf(outcomes []outcome) []string {
	const most = 10
	var words []string
	for i, o := range outcomes {
		if i == most {
			return append(words, fmt.Sprintf("... and %d more", len(outcomes)-most))
		}
		words = append(words, fmt.Sprintf("%s %s: HTTP %d after %.1f s: %s", o.ended.UTC().Format(time.TimeOnly), o.path,
			o.status, o.ended.Sub(o.began).Seconds(), o.problem))
	}
	return words
}

func judgeRotations(t *tally) check {
	return check{
		claim:   "every rotation came to its end",
		holds:   len(t.broken) == 0,
		details: append([]string{fmt.Sprintf("%d rotations", t.rotated)}, t.broken...),
	}
}

// tolerance is how much more is still the same: a share of what there was, and a number.
type tolerance struct{ share, more float64 }

// fewest is how many samples of one process can be judged.
const fewest = 12

// judgeGrowth compares, for each process of the plugin that lived long enough, the second quarter of its life with the
// last: in the first it warms up. Samples of faults do not count, in which readers wait, each with a goroutine.
func judgeGrowth(claim string, samples []sample, t tolerance, value func(*sample) float64, show func(float64) string) check {
	c := check{claim: claim, holds: true}
	judged := 0
	for i, life := range lives(samples) {
		life = slices.DeleteFunc(life, func(s sample) bool { return s.fault })
		if len(life) < fewest {
			continue
		}
		judged++
		quarter := len(life) / 4
		second, last := median(life[quarter:2*quarter], value), median(life[len(life)-quarter:], value)
		words := fmt.Sprintf("process %d, which was seen for %s: second quarter %s, last quarter %s", i+1,
			life[len(life)-1].at.Sub(life[0].at).Round(time.Second), show(second), show(last))
		if last > second*(1+t.share)+t.more {
			c.holds = false
			words += ": more than the " + show(second*(1+t.share)+t.more) + " that are allowed"
		}
		c.details = append(c.details, words)
	}
	if judged == 0 {
		c.holds = false
		c.details = append(c.details, fmt.Sprintf("no process of the plugin was seen often enough (%d samples) to be judged", fewest))
	}
	return c
}

// lives parts the samples by process.
func lives(samples []sample) [][]sample {
	var parts [][]sample
	for i, s := range samples {
		if i == 0 || s.life != samples[i-1].life {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], s)
	}
	return parts
}

func median(samples []sample, value func(*sample) float64) float64 {
	values := make([]float64, len(samples))
	for i := range samples {
		values[i] = value(&samples[i])
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func plain(value float64) string { return fmt.Sprintf("%.0f", value) }

// judgeLeases wants no more leases than reads of one token's lifetime leave, and none when nobody reads any more.
func judgeLeases(samples []sample, rate, left int) check {
	c := check{claim: "leases end by themselves and do not pile up", holds: left == 0 && len(samples) >= fewest}
	if len(samples) >= fewest {
		quarter := len(samples) / 4
		leases := func(s *sample) float64 { return s.leases }
		second, last := median(samples[quarter:2*quarter], leases), median(samples[len(samples)-quarter:], leases)
		words := fmt.Sprintf("second quarter %.0f, last quarter %.0f", second, last)
		const slack = 10 // Vault ends them a little late
		if most := float64(rate*leasedShare)/100*tokenLifetime.Seconds() + slack; last > most {
			c.holds = false
			words += fmt.Sprintf(": more than the %.0f that reads of one token's lifetime leave", most)
		}
		c.details = append(c.details, words)
	}
	switch {
	case left < 0:
		c.details = append(c.details, "they could not be counted in the end")
	case left > 0:
		c.details = append(c.details, fmt.Sprintf("%d are left long after the last read", left))
	}
	return c
}

func judgeSecrets(leaks []string, searched int) check {
	return check{
		claim:   "no private key, token or assertion is in Vault's log or in an error",
		holds:   len(leaks) == 0,
		details: append([]string{"searched: " + mebibytes(float64(searched))}, leaks...),
	}
}

// summary is what the verdict is about.
type summary struct {
	settings
	lasted      time.Duration
	interrupted bool
}

func (v verdict) print(w io.Writer, s summary) {
	var reasons []string
	fmt.Fprintln(w)
	for _, c := range v {
		mark := "ok  "
		if !c.holds {
			mark = "FAIL"
			reasons = append(reasons, c.claim)
		}
		fmt.Fprintf(w, "%s  %s\n", mark, c.claim)
		for _, detail := range c.details {
			fmt.Fprintf(w, "        %s\n", detail)
		}
	}
	length := s.lasted.Round(time.Second).String()
	if s.interrupted {
		length += ", interrupted"
	}
	if len(reasons) == 0 {
		fmt.Fprintf(w, "SOAK PASSED: %s, seed %d\n", length, s.seed)
		return
	}
	fmt.Fprintf(w, "SOAK FAILED: %s, seed %d; this does not hold: %s\n", length, s.seed, strings.Join(reasons, "; "))
}
