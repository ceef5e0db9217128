// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"fmt"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/testvault"
)

// report is what came of one drill: its row in the table of the docs, and claims that were true or not.
type report struct {
	t        *testing.T
	drill    drill
	servers  []*server
	did      []string
	readers  []string
	requests []string
	checks   int
}

// must ends the drill when something of its own fails.
func (d *report) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("the drill could not be done: %v", err)
	}
}

// must2 is must for requests to Vault.
func (d *report) must2(a testvault.Answer, err error) testvault.Answer {
	d.t.Helper()
	d.must(err)
	return a
}

// later is done when the drill is over, the last first.
func (d *report) later(do func()) { d.t.Cleanup(do) }

func (d *report) do(format string, arguments ...any) {
	d.did = append(d.did, fmt.Sprintf(format, arguments...))
}

func (d *report) saw(format string, arguments ...any) {
	d.readers = append(d.readers, fmt.Sprintf(format, arguments...))
}

func (d *report) atRedox(format string, arguments ...any) {
	d.requests = append(d.requests, fmt.Sprintf(format, arguments...))
}

// check judges a claim, which has the figures it was judged by.
func (d *report) check(ok bool, format string, arguments ...any) {
	d.t.Helper()
	d.checks++
	if ok {
		d.t.Logf("yes: "+format, arguments...)
	} else {
		d.t.Errorf("NO: "+format, arguments...)
	}
}

func (d *report) log() {
	d.t.Logf("%s\n  done: %s\n  readers saw: %s\n  at Redox: %s", d.drill.title, strings.Join(d.did, "; "),
		strings.Join(d.readers, "; "), strings.Join(d.requests, "; "))
}
