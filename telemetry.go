// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/rotation"
)

// telemetry is how the engine tells what it does: the log, metrics and events of one mount. Nobody waits for it.
type telemetry struct {
	logger  hclog.Logger
	metrics *metrics
	bus     logical.EventSender

	events  eventQueue
	sender  *worker // sends events
	trouble mintTrouble
}

func newTelemetry(logger hclog.Logger, bus logical.EventSender) *telemetry {
	return &telemetry{logger: logger, metrics: newMetrics(), bus: bus, sender: newWorker()}
}

// transitions tells of versions of a key that have changed their state.
func (t *telemetry) transitions(key string, transitions []rotation.Transition) {
	for _, x := range transitions {
		t.logger.Info("a version of a signing key has changed its state", "key", key, "version", x.Version,
			"kid", x.KID, "from", string(x.From), "to", string(x.To), "cause", x.Cause)
		t.metrics.transition(x)
		t.changed(eventKeyVersion+string(x.To), keysStoragePrefix+key, logical.UpdateOperation,
			"key", key, "version", strconv.Itoa(x.Version), "kid", x.KID, "from", string(x.From), "cause", x.Cause)
	}
}

// mintEnded counts how a mint ended, and announces when a role begins to fail at the server, and when that is over.
func (t *telemetry) mintEnded(roleName string, took time.Duration, err error) {
	t.metrics.mint(took, err)
	if errors.Is(err, logical.ErrReadOnly) {
		return // another node mints
	}
	fails, _ := mintPauses(err)
	if err != nil && !fails || !t.trouble.change(roleName, fails) {
		return
	}
	path := strings.TrimSuffix("token/"+roleName, "/")
	if fails {
		t.announce(eventMintFail, path, "role", roleName, "cause", failureCause(err))
	} else {
		t.announce(eventMintRecover, path, "role", roleName)
	}
}

// backgroundFailed tells that background work on a key failed; it is retried on the next pass.
func (t *telemetry) backgroundFailed(what, key string, err error) {
	t.metrics.backgroundFails.Inc()
	t.logger.Error(what, "key", key, "error", err)
}
