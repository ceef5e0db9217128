// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"net/http"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// stages are all drills, in the order in which they are done.
var stages = []*stage{
	// Vault gives its audit device 5 s to write, and answers 500 after that. With ten thousand requests at once a small
	// machine does not keep to that, which has nothing to do with the engine.
	{what: "stampedes", nodes: 1, audit: false, drills: []drill{
		{"first-readers", "10,000 readers ask for a token that nobody has", firstReaders},
		{"expiry", "10,000 readers of 200 roles at the end of their tokens", atExpiry},
		{"failing", "10,000 readers of 200 roles while Redox fails", failingEndpoint},
		{"limited", "Redox limits requests: one role is told, the others of its host wait, those of another host do not", limitedHost},
	}},
	{what: "Redox and the way to it", atOnce: true, nodes: 1, audit: true, drills: []drill{
		{"down-short", "Redox is gone, and back before the token ends", shortOutage},
		{"down-long", "Redox is gone until long after the token has ended", outage{
			what:   "nobody listens at Redox's address",
			begin:  func(_ *report, m *mount) { m.redox.down() },
			end:    func(d *report, m *mount) { d.must(m.redox.up()) },
			status: http.StatusBadGateway, says: "refused the connection", length: 24 * time.Second,
		}.pastExpiry},
		{"down-check", "Redox is gone; once it is back an operator asks for a check", checkedBack},
		{"429-seconds", "Redox asks to wait, in seconds", retryAfter(
			func(time.Time) string { return "4" }, 4*time.Second, "4")},
		{"429-date", "Redox asks to wait until a date", untilDate},
		{"5xx-bursts", "Redox fails twice in a row, again and again", bursts(
			sandbox.Faults{Status: 500}, sandbox.Faults{Status: 502}, sandbox.Faults{Status: 503}, sandbox.Faults{Status: 504})},
		{"5xx-long", "Redox fails until after the token has ended", faulty(
			"503 for every answer", sandbox.Faults{Status: 503}, http.StatusBadGateway, "HTTP 503").pastExpiry},
		{"reset-bursts", "connections break, again and again", bursts(
			sandbox.Faults{ResetMidBody: true}, sandbox.Faults{Reset: true})},
		{"reset-mid-body", "every answer breaks off in the middle", faulty(
			"half an answer, then the connection is closed", sandbox.Faults{ResetMidBody: true},
			http.StatusBadGateway, "closed the connection").pastExpiry},
		{"slow-body", "answers trickle", slowBody()},
		{"huge-body", "answers are huge", hugeBody},
		{"wrong-json", "answers are no JSON that was agreed on", faulty(
			"200 with half of a JSON object", sandbox.Faults{Status: 200, ContentType: "application/json", Body: `{"access_token":`},
			http.StatusBadGateway, "malformed or truncated JSON").pastExpiry},
		{"portal", "a web page answers instead of Redox", faulty(
			"200 with a web page", sandbox.Faults{Status: 200, Body: "<html>Please log in</html>"},
			http.StatusBadGateway, "an HTML page").pastExpiry},
		{"dns", "Redox's host name does not exist", noAddress},
		{"tls-expired", "Redox's certificate has expired", shows("a certificate that has expired",
			func(_ *report, m *mount) error { return m.showChanged(expired) }, http.StatusBadGateway, "has expired").pastExpiry},
		{"tls-host", "Redox's certificate is for another host", shows("a certificate for another host",
			func(_ *report, m *mount) error { return m.showChanged(otherHost) }, http.StatusBadRequest, "another host name").pastExpiry},
		{"tls-authority", "Redox's certificate is of an unknown authority", shows(
			"a certificate of an authority that is not in ca_pem",
			func(_ *report, m *mount) error { return m.showForeign() },
			http.StatusBadRequest, "not issued by an authority").pastExpiry},
		{"clock-plus-60s", "Redox's clock is a minute ahead of Vault's", clock(time.Minute, true)},
		{"clock-minus-30s", "Redox's clock is half a minute behind Vault's", clock(-30*time.Second, true)},
		{"clock-minus-60s", "Redox's clock is a minute behind Vault's", clock(-time.Minute, false)},
		{"clock-plus-10m", "Redox's clock is ten minutes ahead of Vault's", clock(10*time.Minute, false)},
		{"clock-minus-10m", "Redox's clock is ten minutes behind Vault's", clock(-10*time.Minute, false)},
	}},
	{what: "Vault and the plugin", nodes: 1, audit: true, drills: []drill{
		{"sealed", "Vault is sealed and unsealed", sealed},
		{"plugin-killed", "the plugin's process is killed", killed},
	}},
	{what: "cluster", nodes: 3, audit: true, drills: []drill{
		{"leader-killed", "the leader is killed during reads", leaderKilled.duringReads},
		{"leader-steps-down", "the leader steps down during reads", leaderStepsDown.duringReads},
		{"leader-paused", "the leader is paused during reads", leaderPaused.duringReads},
		{"rotation-killed", "the leader is killed during a rotation", leaderKilled.duringRotation},
		{"rotation-steps-down", "the leader steps down during a rotation", leaderStepsDown.duringRotation},
		{"rotation-paused", "the leader is paused during a rotation", leaderPaused.duringRotation},
		{"restored", "Vault is turned back to before a rotation", restored},
	}},
}

// slowBody lets the engine wait for each answer no longer than 2 s.
func slowBody() func(*report) {
	o := faulty("a second before each byte of an answer (request_timeout=2s)",
		sandbox.Faults{SlowBody: sandbox.Duration(time.Second)},
		http.StatusGatewayTimeout, "did not answer within request_timeout")
	o.config = map[string]any{"request_timeout": "2s"}
	o.length = 20 * time.Second
	return o.pastExpiry
}
