//go:build rules

// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each rule of a rotation is there because without it something is taken from somebody. This takes one rule after the other
// out of the code, and looks whether internal/world finds what. scripts/world runs it.

const (
	theRules  = "internal/rotation/rotation.go"
	theEvents = "internal/rotation/events.go"
)

// without is a rule, and how it is taken out.
type without struct{ rule, file, code, instead string }

var rules = []without{
	{"the newest version that is proven or recorded signs", theRules, "if chosen := k.chosen(r, without); chosen != 0 {", "if chosen := k.chosen(r, without); chosen < 0 {"},
	{"what is recorded signs", theRules, " || r.Recorded == v.Number", ""},
	{"else the active one signs, not the newest", theRules, "if active := k.find(Active); active != nil && active.Number != without {", "if active := k.wanted(); active != nil && active.Number != without {"},
	{"a promotion records what signs for those that nothing is known for", theEvents, "\t\td.record(c)\n", ""},
	{"a version is active at once only where none is held", theEvents, "if d.heldCount() == 0 {", "if true {"},
	{"a promotion needs a proof", theEvents, "proven && len(blockers) == 0 {", "(proven || d.find(Pending) != nil) && len(blockers) == 0 {"},
	{"a rejection keeps a version from being promoted", theRules, "case b.Reason == IsBroken && fresh(b.Probe.LastTime, now):", "case b.Reason != GaveNoAnswer:"},
	{"a proof for a promotion is fresh", theRules, "return proven && fresh(at, now)", "return proven && !at.IsZero()"},
	{"a rejection ends a proof", theEvents, "\t\tr = r.with(v)\n", "\t\tif v.Taken {\n\t\t\tr = r.with(v)\n\t\t}\n"},
	{"rejections count together with a proof or not at all", theEvents, "\tif !proves {\n\t\treturn nil\n\t}\n", "\tif !proves {\n\t\te.Verdicts = nil\n\t\tfor _, n := range e.Doubted {\n\t\t\te.Verdicts = append(e.Verdicts, Verdict{Version: n})\n\t\t}\n\t}\n"},
	{"what was rejected together with all others is asked again", theEvents, "if r := d.Of(e.Client); len(e.Doubted) > 0 {", "if r := d.Of(e.Client); len(e.Doubted) < 0 {"},
	{"before a destruction everybody is asked", theEvents, "if len(d.DestructionBlockers(number, c, now)) == 0 {", "if number > 0 {"},
	{"also those that are disabled", theRules, "\t\tif !k.safeWithout(client.Client, version, now) {", "\t\tif client.Enabled && !k.safeWithout(client.Client, version, now) {"},
	{"what they will sign with afterwards", theRules, "afterwards := k.signing(k.Of(client), version)", "afterwards := k.signing(k.Of(client), 0)"},
	{"an unreadable entry keeps everything", theRules, "case c.Incomplete:", "case c.Incomplete && now.IsZero():"},
	{"a client that left keeps everything for a day", theRules, "case !c.LeftTime.IsZero() && !elapsed(c.LeftTime, now, day):", "case !c.LeftTime.IsZero() && now.IsZero():"},
	{"abandon destroys nothing by itself", theEvents, "\tif e.Force {\n\t\td.step(pending", "\tif true {\n\t\td.step(pending"},
	{"retire destroys nothing by itself", theEvents, "\t\tif e.Force {\n\t\t\td.step(v", "\t\tif true {\n\t\t\td.step(v"},
	{"an active version has a successor when it is compromised", theEvents, "\t\tnext = d.find(Retired)\n", "\t\tnext = nil\n"},
	{"a time in the future counts as long ago", theRules, "return passed >= wait || passed <= -wait", "return passed >= wait"},
	{"clients are stored before the key", "keyring.go", "\t\tstored, err := r.putClients(ctx, w, name, before.stored, &storedClients{Clients: next.Clients, Registrations: before.stored.Registrations})\n\t\tif err != nil {\n\t\t\treturn err\n\t\t}\n", "\t\tstored := before.stored\n\t\tdefer func() {\n\t\t\t_, _ = r.putClients(ctx, w, name, before.stored, &storedClients{Clients: next.Clients, Registrations: before.stored.Registrations})\n\t\t}()\n"},
	{"the configuration of the moment counts", "directory.go", "if last != nil && current {", "if last != nil && (current || len(last.byKey) > 0) {"},
	{"of several roles any that proves it proves it", "probes.go", "with := c.roles[i]", "with := c.roles[len(c.roles)-1]"},
	{"a mint tries the other versions, whatever the words are", "mint.go", "remote.Kind == redox.Rejected && remote.StatusCode != 0", "remote.PublicKeyNotFound()"},
}

// firstFound is the first counterexample in what a test says.
var firstFound = regexp.MustCompile(`: -- (.*)`)

func TestEachRuleIsNeeded(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule.rule, func(t *testing.T) {
			code, err := os.ReadFile(rule.file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(code), rule.code) != 1 {
				t.Fatalf("%s has %d times %q", rule.file, strings.Count(string(code), rule.code), rule.code)
			}
			changed := strings.Replace(string(code), rule.code, rule.instead, 1)
			overlay := filepath.Join(t.TempDir(), "overlay.json")
			replacement := filepath.Join(t.TempDir(), "changed.go")
			whole, err := filepath.Abs(rule.file)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(map[string]map[string]string{"Replace": {whole: replacement}})
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string]string{overlay: string(text), replacement: changed} {
				if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			packagePath := "./" + filepath.Dir(rule.file)
			command := exec.Command("go", "test", "-overlay", overlay, "-run", "^TestWorld$", "-count=1", packagePath)
			command.Env = append(os.Environ(), "WORLD_TIME=", "WORLD_DEPTH="+map[bool]string{true: "8", false: "5"}[packagePath != "./."])
			said, err := command.CombinedOutput()
			switch {
			case err == nil:
				t.Error("without it nothing is found")
			case !strings.Contains(string(said), "   <=="):
				t.Errorf("it can't be taken out: %s", said)
			default:
				t.Log(firstFound.FindStringSubmatch(string(said))[1])
			}
		})
	}
}
