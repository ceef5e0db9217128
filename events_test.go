// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// wantAnnounced checks the events since the last time, each on a line, in which KID stands for any kid.
func (m *mount) wantAnnounced(after string, want ...string) {
	m.t.Helper()
	var got []string
	for line := range strings.Lines(m.announced()) {
		var words []string
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "kid=") && len(word) == len("kid=")+43 {
				word = "kid=KID"
			}
			words = append(words, word)
		}
		got = append(got, strings.Join(words, " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		m.t.Errorf("after %s these events came:\n%s\nnot these:\n%s", after, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestEventsOfChanges(t *testing.T) {
	m := newReadyMount(t)
	m.wantAnnounced("the setup",
		"redox/key-version-active keys/main cause=created by an operator data_path=keys/main from= key=main kid=KID "+
			"modified=true operation=update version=1",
		"redox/key-create keys/main data_path=keys/main key=main modified=true operation=create",
		"redox/config-write config data_path=config modified=true operation=create")
	m.write("config", map[string]any{"scope": "a"})
	m.wantAnnounced("an update of config", "redox/config-write config data_path=config modified=true operation=update")
	m.write("roles/team", nil)
	m.write("roles/team", map[string]any{"scope": "b"})
	m.wantAnnounced("two writes of a role",
		"redox/role-write roles/team data_path=roles/team modified=true operation=create role=team",
		"redox/role-write roles/team data_path=roles/team modified=true operation=update role=team")
	m.write("keys/main", map[string]any{"deletion_allowed": true})
	m.wantAnnounced("an update of a key", "redox/key-update keys/main data_path=keys/main key=main modified=true operation=update")
	m.remove("roles/team")
	m.remove("config")
	m.remove("keys/main")
	m.wantAnnounced("deletions",
		"redox/role-delete roles/team data_path=roles/team modified=true operation=delete role=team",
		"redox/config-delete config data_path=config modified=true operation=delete",
		"redox/key-delete keys/main data_path=keys/main key=main modified=true operation=delete")
	for _, path := range []string{"roles/team", "config", "keys/main"} {
		m.remove(path)
	}
	m.refused(logical.UpdateOperation, "config", map[string]any{"scope": "a\nb"})
	m.wantAnnounced("what changed nothing")
}

func TestEventsOfARotation(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.write("keys/main", map[string]any{"rotation_period": "720h"})
	m.announced()
	step := func(version, from, to, cause string) string {
		return "redox/key-version-" + to + " keys/main cause=" + cause + " data_path=keys/main from=" + from +
			" key=main kid=KID modified=true operation=update version=" + version
	}
	m.write("keys/main/rotate", nil)
	m.wantAnnounced("rotate", step("2", "", "pending", "rotated by an operator"))
	m.clock.advance(800 * time.Hour)
	m.passNow()
	m.wantAnnounced("a rotation that is due while one is pending", "redox/rotation-skip keys/main cause=skipped key=main")
	m.setJWKs("client-1", m.read("keys/main")["public_jwk"], m.read("keys/main")["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.wantAnnounced("activate",
		step("1", "active", "retired", "succeeded by another version"),
		step("2", "pending", "active", "accepted by the server"))
	m.write("keys/main/rotate", nil)
	m.write("keys/main/abandon", nil)
	m.write("keys/main/retire", nil)
	m.wantAnnounced("abandon and retire",
		step("3", "", "pending", "rotated by an operator"),
		step("3", "pending", "retired", "abandoned by an operator"),
		step("3", "retired", "destroyed", "the grace period is over, and no client needs it"),
		step("1", "retired", "destroyed", "the grace period is over, and no client needs it"))
}

// Only changes are told, not each failure: readers of a broken role can be many.
func TestEventsOfMints(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	m.announced()
	m.read("token/team")
	m.wantAnnounced("a mint")
	m.redox.SetFaults(sandbox.Faults{Status: 503})
	for range 3 {
		m.clock.advance(time.Hour)
		m.failed(logical.ReadOperation, "token/team", nil)
	}
	m.minter.tokens.Wait()
	m.wantAnnounced("three failures", "redox/mint-fail token/team cause=unavailable role=team")
	m.redox.SetFaults(sandbox.Faults{})
	m.write("roles/team", map[string]any{"scope": "other"}) // which also makes the cache forget the failure
	m.announced()
	m.read("token/team")
	m.minter.tokens.Wait()
	m.wantAnnounced("the next mint", "redox/mint-recover token/team role=team")

	m.setJWKs("client-1")
	m.clock.advance(time.Hour)
	m.refused(logical.ReadOperation, "token/team", nil)
	m.minter.tokens.Wait()
	m.wantAnnounced("a refusal", "redox/mint-fail token/team cause=public_key_not_found role=team")
	m.remove("roles/team")
	m.announced()
	m.refused(logical.ReadOperation, "token/team", nil)
	m.minter.tokens.Wait()
	m.wantAnnounced("a read of a role that is gone")
	m.telemetry.trouble.mu.Lock()
	defer m.telemetry.trouble.mu.Unlock()
	if len(m.telemetry.trouble.roles) != 0 {
		t.Errorf("roles that are gone are kept: %v", m.telemetry.trouble.roles)
	}
}

func TestEventsOfRegistrations(t *testing.T) {
	m := newPlatformMount(t)
	m.passNow()
	m.announced()
	m.setJWKs("client-1")
	m.passNow()
	m.clock.advance(time.Minute)
	m.passNow()
	m.wantAnnounced("a key was taken away", "redox/registration-fail keys/main client_id=client-1 key=main kid=KID")
}

// refusingBus refuses events, as servers without them do.
type refusingBus struct{ err error }

func (b refusingBus) SendEvent(context.Context, logical.EventType, *logical.EventData) error {
	return b.err
}

func TestEventsThatVaultDoesNotTake(t *testing.T) {
	for name, test := range map[string]struct {
		bus    logical.EventSender
		logged bool
	}{
		"no events":     {nil, false},
		"none any more": {refusingBus{framework.ErrNoEvents}, false},
		"unimplemented": {refusingBus{status.Error(codes.Unimplemented, "unknown service pb.Events")}, false},
		"broken":        {refusingBus{errors.New("out of order")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.bus = test.bus
			m.restart()
			m.write("keys/main", map[string]any{"algorithm": algorithmES384})
			m.telemetry.sendEvents(t.Context())
			if logged := strings.Contains(m.log.String(), "did not take an event"); logged != test.logged {
				t.Errorf("the log tells of it: %v, and should: %v", logged, test.logged)
			}
		})
	}
}

// A Vault that takes no events must cost no memory without end, nor make anybody wait.
func TestEventsAreBounded(t *testing.T) {
	m := newMount(t)
	for range maxEventsWaiting + 7 {
		m.write("config", nil)
	}
	if got := strings.Count(m.announced(), "\n"); got != maxEventsWaiting {
		t.Errorf("%d events were kept", got)
	}
	if !strings.Contains(m.log.String(), "events were dropped: Vault took none for a while: count=7") {
		t.Error("the log does not tell that events were dropped")
	}
}

// In a mount that serves, events are sent by themselves, until it ends.
func TestEventsAreSent(t *testing.T) {
	m := newMount(t)
	sent := make(chan logical.EventType)
	m.bus = busFunc(func(kind logical.EventType) { sent <- kind })
	m.restart()
	m.telemetry.sender.start(m.telemetry.sendEvents)
	m.write("config", nil)
	if got := <-sent; got != eventConfigWrite {
		t.Errorf("%s was sent", got)
	}
	m.Cleanup(t.Context())
	m.telemetry.sender.ended.Wait()
}

type busFunc func(logical.EventType)

func (f busFunc) SendEvent(_ context.Context, kind logical.EventType, _ *logical.EventData) error {
	f(kind)
	return nil
}
