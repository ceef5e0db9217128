// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import "testing"

// lacking lists what hosts can't do: the test that looks at it, which hosts, and what is the matter. Any other test has to
// pass on all.
var lacking = map[string]struct {
	here   func() bool
	reason string
}{
	"TestProxyLogsInAgain": {
		func() bool { return host.OpenBao },
		"OpenBao's Proxy keeps a token that was revoked until it would be renewed",
	},
}

// skipWhereLacking skips a test that is on the list for the host that tests run on.
func skipWhereLacking(t *testing.T) {
	t.Helper()
	if row := lacking[t.Name()]; row.here() {
		t.Skipf("not on %s: %s", host, row.reason)
	}
}
