// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// leases counts the leases of a path.
func (e *engine) leases(path string) int {
	e.t.Helper()
	var ids []string
	if e.vault.json(&ids, "list", "-format=json", "sys/leases/lookup/"+e.at(path)) != nil {
		return 0 // Vault answers that there is nothing at this path
	}
	return len(ids)
}

// hasLease says whether Vault knows a lease.
func (e *engine) hasLease(id string) bool {
	e.t.Helper()
	r := e.try("lease", "lookup", id)
	if r.code != 0 && !strings.Contains(r.stderr, "invalid lease") {
		e.t.Fatal(r.stderr)
	}
	return r.code == 0
}

// unharmed checks that a token is still the one that readers get, and that Redox was not asked for anything else.
func (e *engine) unharmed(role, token string, before sandbox.Counters) {
	e.t.Helper()
	if !e.redox.IsLive(token) || e.accessToken("token/"+role) != token {
		e.t.Errorf("%s: the shared token is gone", role)
	}
	if after := e.redox.Counters(); fmt.Sprint(after) != fmt.Sprint(before) {
		e.t.Errorf("%s: Redox was asked: %+v, before that %+v", role, after, before)
	}
}

// TestLeaseKeepsToTheMount shows what the mount's settings do to a lease: the default TTL nothing, as the engine says how
// long it is; the greatest one cuts it short, and says so. The token is neither shorter nor gone for that.
func TestLeaseKeepsToTheMount(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("roles/counted"), "leased=true")
	e.must("write", e.at("roles/plain"), "leased=false")
	token := e.accessToken("token/counted")
	e.accessToken("token/plain")
	before := e.redox.Counters()
	for _, c := range []struct {
		tune  []string
		lease float64 // seconds; 0: ttl
	}{
		{tune: []string{"-default-lease-ttl=30s"}},
		{tune: []string{"-default-lease-ttl=1h", "-max-lease-ttl=2h"}},
		{tune: []string{"-default-lease-ttl=40s", "-max-lease-ttl=40s"}, lease: 40},
		{tune: []string{"-default-lease-ttl=1s", "-max-lease-ttl=1s"}, lease: 1},
	} {
		e.must(append(append([]string{"secrets", "tune"}, c.tune...), e.path)...)
		counted, plain := e.secret("read", e.at("token/counted")), e.secret("read", e.at("token/plain"))
		ttl, _ := counted.Data["ttl"].(float64)
		want, warnings := c.lease, 1
		if want == 0 {
			want, warnings = ttl, 0
		}
		if float64(counted.LeaseDuration) != want || ttl < 200 {
			t.Errorf("%v: the lease is of %d s, ttl %v", c.tune, counted.LeaseDuration, ttl)
		}
		if len(counted.Warnings) != warnings || warnings > 0 && !strings.Contains(counted.Warnings[0], "effective max_ttl") {
			t.Errorf("%v: the warnings are %q", c.tune, counted.Warnings)
		}
		if plainTTL, _ := plain.Data["ttl"].(float64); plain.LeaseID != "" || plainTTL < 200 || len(plain.Warnings) > 0 {
			t.Errorf("%v: without a lease, the answer has lease %q, ttl %v and warnings %q", c.tune, plain.LeaseID,
				plain.Data["ttl"], plain.Warnings)
		}
		e.unharmed("counted", token, before)
		if c.lease == 1 {
			await(t, "the lease to end", func() bool { return !e.hasLease(counted.LeaseID) })
			e.unharmed("counted", token, before)
		}
	}
}

// TestLeaseCanNotBeRenewed looks at a lease. Its end can't be moved, as the token's can't.
func TestLeaseCanNotBeRenewed(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("roles/counted"), "leased=true")
	s := e.secret("read", e.at("token/counted"))
	for _, arguments := range [][]string{{s.LeaseID}, {"-increment=1h", s.LeaseID}} {
		text := e.refused(http.StatusBadRequest, append([]string{"lease", "renew"}, arguments...)...)
		if !strings.Contains(text, "not renewable") {
			t.Error(text)
		}
	}
	lease := e.data("write", "sys/leases/lookup", "lease_id="+s.LeaseID)
	ttl, _ := lease["ttl"].(float64)
	if lease["renewable"] != false || ttl <= 0 || ttl > float64(s.LeaseDuration) || lease["last_renewal"] != nil {
		t.Errorf("the lease of %d s is looked up as %v", s.LeaseDuration, lease)
	}
}

// TestRevokingLeavesTheSharedTokenAlone revokes leases in each way there is, with Redox out of reach: each is gone, others
// stay, none becomes irrevocable, and Redox is not asked.
func TestRevokingLeavesTheSharedTokenAlone(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	tokens := map[string]string{}
	for _, role := range []string{"team-a", "team-b"} {
		e.must("write", e.at("roles/"+role), "leased=true")
		tokens[role] = e.accessToken("token/" + role)
	}
	before := e.redox.Counters()
	e.redox.SetFaults(sandbox.Faults{Reset: true})
	irrevocable := func() any { return e.data("read", "sys/leases/count", "type=irrevocable")["lease_count"] }
	failed := irrevocable()
	path := e.at("token/team-a")
	for _, c := range []struct {
		name   string
		revoke func(reader person, lease string)
	}{
		{"one lease", func(_ person, lease string) { e.must("lease", "revoke", "-sync", lease) }},
		{"queued", func(_ person, lease string) { e.must("lease", "revoke", lease) }},
		{"all of a path", func(person, string) { e.must("lease", "revoke", "-sync", "-prefix", path) }},
		{"all of a path, by force", func(person, string) { e.must("lease", "revoke", "-force", "-prefix", path) }},
		{"with its reader's Vault token", func(reader person, _ string) { reader.must("token", "revoke", "-self") }},
	} {
		reader := e.as("reader", map[string]string{"token/team-a": "read"})
		lease, other := reader.secret("read", path).LeaseID, e.secret("read", e.at("token/team-b")).LeaseID
		if !e.hasLease(lease) || !e.hasLease(other) {
			t.Fatalf("%s: a read has made no lease", c.name)
		}
		c.revoke(reader, lease)
		await(t, "the end of the lease: "+c.name, func() bool { return !e.hasLease(lease) })
		if !e.hasLease(other) {
			t.Errorf("%s: another role's lease is gone, too", c.name)
		}
		for role, token := range tokens {
			e.unharmed(role, token, before)
		}
	}
	if now := irrevocable(); now != failed {
		t.Errorf("%v leases can't be revoked, before that %v", now, failed)
	}
}

// TestQuotas limits how often a token is read, by role, with a lease and without: what is refused makes no lease and doesn't
// reach Redox. Limits on the number of leases are not for Vault's community edition.
func TestQuotas(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	text := e.refused(http.StatusNotFound, "write", "sys/quotas/lease-count/"+e.path, "path="+e.at(""), "max_leases=1")
	if !strings.Contains(text, "enterprise-only feature") && !strings.Contains(text, "unsupported path") {
		t.Errorf("this Vault may have quotas for leases: %s", text)
	}
	const rate = 2
	for role, leased := range map[string]bool{"plain": false, "counted": true} {
		e.must("write", e.at("roles/"+role), fmt.Sprintf("leased=%v", leased))
		e.must("write", e.at("roles/"+role+"-too"), fmt.Sprintf("leased=%v", leased))
		e.must("write", "sys/quotas/rate-limit/"+e.path+"-"+role, "path="+e.at("token/"+role), fmt.Sprint("rate=", rate), "interval=1h")
		minted := e.redox.Counters().Token.Requests
		for range rate {
			e.accessToken("token/" + role)
		}
		for _, arguments := range [][]string{{"read"}, {"write", "-f"}} { // a fresh one, too
			e.refused(http.StatusTooManyRequests, append(arguments, e.at("token/"+role))...)
		}
		if n := e.redox.Counters().Token.Requests - minted; n != 1 {
			t.Errorf("%s: Redox was asked %d times", role, n)
		}
		leases := 0
		if leased {
			leases = rate
		}
		if n := e.leases("token/" + role); n != leases {
			t.Errorf("%s: %d reads made %d leases", role, rate, n)
		}
		for range rate + 1 {
			e.accessToken("token/" + role + "-too") // has no limit
		}
	}
}

// TestReadingTokensDocumentation runs every block of commands of docs/reading-tokens.md.
func TestReadingTokensDocumentation(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("roles/team-a"), "leased=false")
	for _, block := range documentedCommands(t, "reading-tokens.md") {
		patient := "URL=" + e.redox.FHIRURL("redox-fhir-sandbox", sandbox.Development) + "/Patient/1\n"
		e.bash(t.TempDir(), patient+strings.ReplaceAll(block, "redox/", e.path+"/"))
	}
}
