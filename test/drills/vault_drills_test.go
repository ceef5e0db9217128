// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"net/http"
	"syscall"
	"time"
)

// sealed is Vault being sealed and unsealed while tokens are read.
func sealed(d *report) {
	const length = 5 * time.Second
	m := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second})
	r := read(d, m)
	began := time.Now()
	d.must2(m.vault.must("PUT", "sys/seal", nil))
	time.Sleep(length)
	// Requests that come while Vault is still starting the plugin belong to the time before.
	unsealing := time.Now()
	d.must(m.vault.unseal())
	took, err := r.awaitToken(unsealing)
	d.must(err)
	time.Sleep(time.Second)
	d.do("Vault is sealed for %s and unsealed", length)
	all := r.sinceStart()
	d.saw("%s", all)
	requests := len(m.redox.since(began))
	d.atRedox("%d token requests", requests)
	d.check(took <= 2*slack, "tokens came again %s after the unsealing began", short(took))
	d.check(requests == 1, "%d token requests: tokens are kept in memory only", requests)
	d.check(all.without == 0, "an application that keeps its token was without a valid one for %s", short(all.without))
	d.check(all.refused == 0, "%d tokens were handed out that Redox did not take", all.refused)
}

// killed is the plugin's process being killed while tokens are read.
func killed(d *report) {
	const times = 5
	m := newMount(d, d.servers[0], mountOptions{lifetime: 300 * time.Second})
	r := read(d, m)
	began := time.Now()
	slowest := time.Duration(0)
	for range times {
		ids, err := m.vault.pluginProcesses()
		d.must(err)
		moment := time.Now()
		for _, id := range ids {
			d.must(syscall.Kill(id, syscall.SIGKILL))
		}
		took, err := r.awaitToken(moment)
		d.must(err)
		slowest = max(slowest, took)
		time.Sleep(2 * time.Second)
	}
	all := r.sinceStart()
	d.do("kill -9 of the plugin's process, %d times, while %d readers read", times, readerCount)
	d.saw("%s", all)
	requests := len(m.redox.since(began))
	d.atRedox("%d token requests", requests)
	d.check(slowest <= 2*slack, "tokens came again at the latest %s after a kill", short(slowest))
	d.check(requests == times, "%d token requests for %d new processes", requests, times)
	d.check(all.without == 0, "an application that keeps its token was without a valid one for %s", short(all.without))
	d.check(all.refused == 0, "%d tokens were handed out that Redox did not take", all.refused)
	d.check(all.failed() == all.errors[0]+all.errors[http.StatusInternalServerError]+all.errors[http.StatusBadGateway],
		"no error had another status than 500 or 502")
}
