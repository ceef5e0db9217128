// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// drill is something that goes wrong, and what has to come of it.
type drill struct {
	name  string // also the path of its mount
	title string
	run   func(*report)
}

// report is what came of one drill.
type report struct {
	drill    drill
	in       *drills
	did      []string
	readers  []string
	requests []string
	checks   []check
	broken   error // the drill itself could not be done
	took     time.Duration
	cleanups []func()
}

// check is a claim, with the figures it was judged by.
type check struct {
	ok    bool
	claim string
}

// stopped is what ends a drill that can't go on.
type stopped struct{ err error }

// must ends the drill when something of its own fails.
func (d *report) must(err error) {
	if err != nil {
		panic(stopped{err})
	}
}

// must2 is must for requests to Vault.
func (d *report) must2(a testvault.Answer, err error) testvault.Answer {
	d.must(err)
	return a
}

// later is done when the drill is over, the last first.
func (d *report) later(do func()) { d.cleanups = append(d.cleanups, do) }

func (d *report) do(format string, arguments ...any) {
	d.did = append(d.did, fmt.Sprintf(format, arguments...))
}

func (d *report) saw(format string, arguments ...any) {
	d.readers = append(d.readers, fmt.Sprintf(format, arguments...))
}

func (d *report) atRedox(format string, arguments ...any) {
	d.requests = append(d.requests, fmt.Sprintf(format, arguments...))
}

func (d *report) check(ok bool, format string, arguments ...any) {
	d.checks = append(d.checks, check{ok, fmt.Sprintf(format, arguments...)})
}

func (d *report) passed() bool {
	failed := func(c check) bool { return !c.ok }
	return d.broken == nil && len(d.checks) > 0 && !slices.ContainsFunc(d.checks, failed)
}

func (d *report) verdict() string {
	if d.passed() {
		return "PASS"
	}
	return "FAIL"
}

// conduct runs a drill to its end, whatever comes.
func (in *drills) conduct(what drill) *report {
	d := &report{drill: what, in: in}
	began := time.Now()
	func() {
		defer func() {
			for _, do := range slices.Backward(d.cleanups) {
				do()
			}
		}()
		defer func() {
			if problem := recover(); problem != nil {
				s, ours := problem.(stopped)
				if !ours {
					panic(problem)
				}
				d.broken = s.err
			}
		}()
		what.run(d)
	}()
	d.took = time.Since(began)
	return d
}

// print writes the report for people.
func (d *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n=== %s: %s (%s)\n", d.drill.name, d.drill.title, short(d.took))
	for _, part := range []struct {
		name  string
		lines []string
	}{{"done", d.did}, {"readers saw", d.readers}, {"at Redox", d.requests}} {
		for _, line := range part.lines {
			fmt.Fprintf(w, "  %-12s %s\n", part.name, line)
			part.name = ""
		}
	}
	for _, c := range d.checks {
		mark := "yes"
		if !c.ok {
			mark = "NO"
		}
		fmt.Fprintf(w, "  %-12s %s\n", mark, c.claim)
	}
	if d.broken != nil {
		fmt.Fprintf(w, "  %-12s the drill could not be done: %v\n", "NO", d.broken)
	}
	fmt.Fprintf(w, "  %s\n", d.verdict())
}

// table is the reports of a stage in Markdown.
func table(machine string, reports []*report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "On: %s.\n\n| Drill | What is done | What readers saw | At Redox | |\n|---|---|---|---|---|\n", machine)
	for _, d := range reports {
		fmt.Fprintf(&b, "| `%s`: %s | %s | %s | %s | %s |\n", d.drill.name, d.drill.title, strings.Join(d.did, "; "),
			strings.Join(d.readers, "; "), strings.Join(d.requests, "; "), d.verdict())
	}
	return b.String()
}
