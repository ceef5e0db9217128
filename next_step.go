// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/rotation"
)

// What a rotation waits for, and what somebody has to do so that it goes on: every stop has a way out.

// waiting is a key with all that says what its rotation waits for.
type waiting struct {
	k       *keySnapshot
	key     rotation.Key
	clients *keyClients
	vain    map[rotation.Client]string // clients whose mints found no version that Redox takes, with the answer
	// unserved is why the JWKS URL does not serve the pending version, as far as was looked.
	unserved string
	now      time.Time
}

// mostBlockers is how many client IDs are named in a key's answer.
const mostBlockers = 20

// blockedBy returns the client IDs that a rotation waits for, each with the reason in a few words, sorted.
func (w *waiting) blockedBy() []string {
	blocked := []string{}
	for _, b := range w.blockers() {
		blocked = append(blocked, b.ClientID+": "+w.reason(b))
	}
	for _, r := range w.k.registrations() {
		if r.Problem != "" {
			blocked = append(blocked, r.ClientID+": "+inShort(r.Problem))
		}
	}
	slices.Sort(blocked)
	blocked = slices.Compact(blocked)
	if more := len(blocked) - mostBlockers; more > 0 {
		blocked = append(blocked[:mostBlockers], fmt.Sprintf("and %d more: read keys/%s/clients", more, w.k.name))
	}
	return blocked
}

// blockers returns the clients that keep the pending version, or one that is to be destroyed; and of a key that waits for
// nothing those whose server rejects the active version.
func (w *waiting) blockers() []rotation.Blocker {
	blockers, _ := w.key.PromotionBlockers(w.clients.Configuration, w.now)
	if w.clients.Stop(w.now) == rotation.Go {
		for _, v := range w.doomed() {
			blockers = append(blockers, w.key.DestructionBlockers(v.Number, w.clients.Configuration, w.now)...)
		}
	}
	if active, found := w.key.Find(rotation.Active); found && len(blockers) == 0 {
		for _, client := range w.clients.Clients {
			if record := w.key.Of(client.Client); record.Rejects(active.Number) {
				blockers = append(blockers, rotation.Blocker{Client: client.Client, Reason: rotation.IsRejected, Probe: record.Probe})
			}
		}
	}
	return blockers
}

// doomed returns the retired versions whose grace is over, oldest first.
func (w *waiting) doomed() []rotation.Version {
	var doomed []rotation.Version
	for _, v := range w.key.Versions {
		if w.key.GraceOver(v, w.now) {
			doomed = append(doomed, v)
		}
	}
	return doomed
}

// reason says in a few words why a client stands in the way.
func (w *waiting) reason(b rotation.Blocker) string {
	if b.Reason == rotation.NotAsked {
		return "not asked yet"
	}
	if b.Probe.Answer == "" { // a mint has heard it
		return "Redox rejects the version"
	}
	return inShort(b.Probe.Answer)
}

// inShort returns what an error says is wrong, without details and without what to do.
func inShort(text string) string {
	text, _, _ = strings.Cut(text, "; ")
	text, _, _ = strings.Cut(text, " (")
	if short, _, found := strings.Cut(text, ": "); found && strings.Contains(short, " ") { // else it is a field's name
		text = short
	}
	return text
}

// nextStep returns what somebody has to do so that a rotation goes on, empty when nothing.
func (w *waiting) nextStep() string {
	registrations := slices.Clone(w.k.registrations())
	slices.SortStableFunc(registrations, func(a, b registered) int { return boolOrder(b.Unwanted) - boolOrder(a.Unwanted) }) // the worst first
	for _, r := range registrations {
		if r.Problem != "" {
			return "Client ID " + r.ClientID + ": " + r.Problem + "."
		}
	}
	switch {
	case w.k.in(rotation.Active) == nil:
		return "The key has no version to sign with: write to keys/" + w.k.name + "/rotate."
	case w.k.in(rotation.Pending) != nil:
		return w.untilPromoted()
	}
	if doomed := w.doomed(); len(doomed) > 0 {
		return w.untilDestroyed(doomed[0])
	}
	return w.ofActive()
}

// untilPromoted says what keeps the pending version from being promoted.
func (w *waiting) untilPromoted() string {
	path := "keys/" + w.k.name
	force := " Where Vault can't reach Redox and only hands out assertions, write " + path + "/activate force=true."
	enabled := slices.ContainsFunc(w.clients.Clients, func(c rotation.Configured) bool { return c.Enabled })
	blockers, proven := w.key.PromotionBlockers(w.clients.Configuration, w.now)
	by := func(reason rotation.Reason) []rotation.Blocker {
		return slices.DeleteFunc(slices.Clone(blockers), func(b rotation.Blocker) bool { return b.Reason != reason })
	}
	switch {
	case !enabled:
		return "No client ID that is enabled uses the key, so there is nobody to ask Redox for: name the key in config or in a role, or enable one." + force
	case len(by(rotation.IsRejected)) == 0 && len(by(rotation.GaveNoAnswer)) > 0:
		return "Redox gives no answer" + named("about", by(rotation.GaveNoAnswer)) + ": see that Vault reaches it; it is asked again, and after a day it is not waited for."
	case len(blockers) == 0 && !proven:
		return "Redox takes no version" + named("from", w.broken()) + ": mend the client ID or its API key, or add or enable another one." + force
	}
	then := " It takes over by itself once Redox takes it, at most 15 minutes later; " + path + "/activate tries at once."
	switch w.k.Registration {
	case registrationJWKSURL:
		if w.unserved != "" {
			return "Redox can't know the new public key yet: " + w.unserved + "." + then
		}
		return "Redox has to read the new public key from the JWKS URL; there is nothing to do." + then
	case registrationPlatform:
		return "The engine registers the new public key through the Platform API; there is nothing to do." + then
	default:
		return "Add pending_public_jwk in the Redox dashboard, beside the JWK that is there, at the OAuth API key of each client ID." + then
	}
}

// broken returns the enabled clients that Redox takes no version from, or gives no answer about.
func (w *waiting) broken() []rotation.Blocker {
	var broken []rotation.Blocker
	for _, client := range w.clients.Clients {
		if probe := w.key.Of(client.Client).Probe; client.Enabled && probe.Answer != "" {
			broken = append(broken, rotation.Blocker{Client: client.Client, Probe: probe})
		}
	}
	return broken
}

// named names clients after a preposition, with the answer about the first of them.
func named(preposition string, blockers []rotation.Blocker) string {
	if len(blockers) == 0 {
		return ""
	}
	var clientIDs []string
	for _, b := range blockers {
		clientIDs = append(clientIDs, b.ClientID)
	}
	answer := blockers[0].Probe.Answer
	if answer != "" {
		answer = " (" + inShort(answer) + ")"
	}
	return " " + preposition + " client ID " + someOf(clientIDs) + answer
}

// untilDestroyed says what keeps a version whose grace is over.
func (w *waiting) untilDestroyed(v rotation.Version) string {
	kept := fmt.Sprintf("Version %d is kept, though its grace period is over: ", v.Number)
	force := fmt.Sprintf(" Where nobody needs the version: keys/%s/retire version=%d force=true.", w.k.name, v.Number)
	switch w.clients.Stop(w.now) {
	case rotation.Incomplete:
		entry := w.clients.unreadable[0]
		return kept + "the entry " + entry + " can't be read, and may stand for any client ID. Restore it from a snapshot of Vault, or delete it: vault delete redox/" +
			entry + " force=true." + force
	case rotation.NoClient:
		return kept + "no client ID uses the key, so there is nobody to ask Redox for. Name the key in config or a role." + force
	case rotation.LeftRecently:
		return kept + "a client ID has left the configuration at " + formatTime(w.clients.LeftTime) +
			", and may come back within a day; there is nothing to do." + force
	}
	blockers := w.key.DestructionBlockers(v.Number, w.clients.Configuration, w.now)
	asked := slices.DeleteFunc(slices.Clone(blockers), func(b rotation.Blocker) bool { return b.Reason == rotation.NotAsked })
	if len(asked) == 0 {
		return kept + fmt.Sprintf("%d client IDs are still to be asked about. It goes by itself, and keys/%s/retire asks at once.", len(blockers), w.k.name)
	}
	switch asked[0].Reason {
	case rotation.GaveNoAnswer:
		return kept + "Redox gives no answer" + named("about", asked) + ". See that Vault reaches it; it is asked again." + force
	case rotation.IsBroken:
		return kept + "Redox takes no version" + named("from", asked) + ". Mend the client ID or its API key, or delete the role; then keys/" +
			w.k.name + "/retire asks at once." + force
	}
	return kept + "Redox rejects its successor" + named("from", asked) + ". Register public_jwk at that OAuth API key; then keys/" + w.k.name + "/retire asks at once." + force
}

// ofActive says what is wrong with a key that waits for nothing.
func (w *waiting) ofActive() string {
	active, _ := w.key.Find(rotation.Active)
	for _, client := range w.clients.Clients {
		if w.key.Of(client.Client).Rejects(active.Number) {
			return fmt.Sprintf("Client ID %s: Redox rejects the active version, and takes version %d. Register public_jwk at that OAuth API key; "+
				"or, if this Vault was restored from an older state, write to keys/%s/rotate.", client.ClientID, w.key.Signing(client.Client), w.k.name)
		}
		answer, isVain := w.vain[client.Client]
		if _, proven := w.key.Of(client.Client).Proven(active.Number); isVain && proven && w.k.Registration != registrationPlatform {
			return fmt.Sprintf("Client ID %s: Redox takes no version any more, though it did (%s). The kid was taken away there, the API key was disabled, or "+
				"Redox can't read the JWKS URL: mend that; or this Vault was restored from an older state: write to keys/%s/rotate.",
				client.ClientID, inShort(answer), w.k.name)
		}
	}
	return ""
}
