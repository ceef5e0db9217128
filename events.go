// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What happens to keys, roles and configuration, and whether tokens can be minted, as Vault events. docs/events.md
// tells what each means. They only inform: to know for sure, read the key or the role.

const (
	eventConfigWrite  = "redox/config-write"
	eventConfigDelete = "redox/config-delete"
	eventRoleWrite    = "redox/role-write"
	eventRoleDelete   = "redox/role-delete"
	eventKeyCreate    = "redox/key-create"
	eventKeyUpdate    = "redox/key-update"
	eventKeyDelete    = "redox/key-delete"
	// eventKeyVersion is completed by the state that a version has come into.
	eventKeyVersion       = "redox/key-version-"
	eventRotationSkip     = "redox/rotation-skip"
	eventRegistrationFail = "redox/registration-fail"
	eventMintFail         = "redox/mint-fail"
	eventMintRecover      = "redox/mint-recover"
)

// maxEventsWaiting bounds what is kept for a Vault that takes no events.
const maxEventsWaiting = 1000

type event struct {
	kind     string
	metadata []string // names and values in turn
}

// eventQueue holds events until they are sent, so that nobody waits for that.
type eventQueue struct {
	mu      sync.Mutex
	waiting []event
	lost    int // since they were taken last
}

func (q *eventQueue) add(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == maxEventsWaiting {
		q.lost++
		return
	}
	q.waiting = append(q.waiting, e)
}

func (q *eventQueue) take() (waiting []event, lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, lost = q.waiting, q.lost
	q.waiting, q.lost = nil, 0
	return waiting, lost
}

// changed announces that what can be read at a path has changed. The pairs are further names and values.
func (t *telemetry) changed(kind, path string, operation logical.Operation, pairs ...string) {
	t.announce(kind, path, append([]string{
		logical.EventMetadataOperation, string(operation),
		logical.EventMetadataDataPath, path,
		logical.EventMetadataModified, "true",
	}, pairs...)...)
}

// announce queues an event about a path of the mount. It never waits.
func (t *telemetry) announce(kind, path string, pairs ...string) {
	t.events.add(event{kind: kind, metadata: append([]string{logical.EventMetadataPath, path}, pairs...)})
	t.sender.wakeUp()
}

// sendEvents sends what is queued. A server without events refuses them, and that is fine.
func (t *telemetry) sendEvents(ctx context.Context) {
	waiting, lost := t.events.take()
	if lost > 0 {
		t.logger.Warn("events were dropped: Vault took none for a while", "count", lost)
	}
	for _, e := range waiting {
		err := logical.SendEvent(ctx, t.bus, e.kind, e.metadata...)
		if err != nil && ctx.Err() == nil && !errors.Is(err, framework.ErrNoEvents) && status.Code(err) != codes.Unimplemented {
			t.logger.Warn("Vault did not take an event", "event", e.kind, "error", err)
		}
	}
}

// mintTrouble knows which roles can't get a token, so that only changes are announced.
type mintTrouble struct {
	mu    sync.Mutex
	roles map[string]bool
}

// change notes how the last mint of a role ended, and reports whether that is news.
func (m *mintTrouble) change(role string, fails bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.roles[role] == fails {
		return false
	}
	if !fails {
		delete(m.roles, role)
		return true
	}
	if m.roles == nil {
		m.roles = map[string]bool{}
	}
	m.roles[role] = true
	return true
}
