// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// What is counted. No label has a value that somebody chooses, such as the name of a role or a key: so the number of
// time series is bounded, and who may read metrics learns no names.

// How a read of a token ended.
const (
	readFromMemory = "memory"  // at once, from a token with life enough
	readMinted     = "minted"  // after it waited for a mint
	readStale      = "stale"   // a token that ends soon, since none could be minted
	readRefused    = "refused" // by configuration: no such role, a disabled one, no client ID or key
	readFailed     = "failed"
)

// How a rotation went on.
const (
	rotationStarted   = "started"   // there is a pending version
	rotationCompleted = "completed" // it has become active
	rotationAbandoned = "abandoned" // it was dropped before
	rotationSkipped   = "skipped"   // one was due, with the version before still pending
	rotationMissed    = "missed"    // one was due, and its window is over
)

const (
	causeNone              = "none"
	causePublicKeyNotFound = "public_key_not_found"
	causeLimited           = "limited" // the server limits requests, or this one was not sent so that it need not
	causeExpired           = "expired"
	causeConfiguration     = "configuration"
	causeInternal          = "internal"

	errorCodeOther = "other"
)

// The values that labels have, so that each series is there from the beginning: a rate has no gap before the first.
var (
	readOutcomes     = []string{readFromMemory, readMinted, readStale, readRefused, readFailed}
	rotationOutcomes = []string{rotationStarted, rotationCompleted, rotationAbandoned, rotationSkipped, rotationMissed}
	failureCauses    = []string{
		redox.Rejected.String(), redox.Unavailable.String(), redox.Timeout.String(), redox.InvalidResponse.String(),
		causePublicKeyNotFound, causeLimited, causeExpired, causeConfiguration, causeInternal,
	}
	// The codes of RFC 6749 section 5.2, and the one of section 4.1.2.1 that some servers answer here, too.
	rejectionCodes = []string{
		causePublicKeyNotFound, "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client",
		"unsupported_grant_type", "invalid_scope", "access_denied", errorCodeOther,
	}
	versionStates = []string{
		string(rotation.Pending), string(rotation.Active), string(rotation.Retired), string(rotation.Destroyed),
	}
)

// metrics are the counters of one mount on this node, since the plugin was started. What is but read off, such as the
// ages of keys, is made when somebody asks (see path_metrics.go).
type metrics struct {
	registry *prometheus.Registry

	reads           map[string]prometheus.Counter // by outcome: a read must not look for its counter
	mints           *prometheus.CounterVec
	mintSeconds     prometheus.Histogram
	rejections      *prometheus.CounterVec
	limited         prometheus.Counter
	notSent         prometheus.Counter
	clockOffset     prometheus.Gauge
	rotations       *prometheus.CounterVec
	transitions     *prometheus.CounterVec
	backgroundFails prometheus.Counter
}

func newMetrics() *metrics {
	registry := prometheus.NewRegistry()
	counters := func(name, help, label string, values []string) *prometheus.CounterVec {
		vector := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			vector.WithLabelValues(value)
		}
		registry.MustRegister(vector)
		return vector
	}
	m := &metrics{
		registry: registry,
		reads:    map[string]prometheus.Counter{},
		mints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "redox_mints_total", Help: "Mints of tokens that ended, by result and, for failures, cause.",
		}, []string{"result", "cause"}),
		mintSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "redox_mint_duration_seconds", Help: "How long mints took, with all attempts, whatever their result.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20},
		}),
		rejections: counters("redox_assertions_rejected_total",
			"Assertions that the token endpoint rejected (also of checks and of probes of new key versions), by its error code.",
			"error", rejectionCodes),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "redox_rate_limited_total", Help: "Requests for a token that the token endpoint answered with 429, too many requests.",
		}),
		notSent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "redox_requests_not_sent_total", Help: "Requests for a token that were not sent, so as not to ask the token endpoint more often than it allows.",
		}),
		clockOffset: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "redox_clock_offset_seconds", Help: "The token endpoint's clock minus this node's, at the last answer that told the time.",
		}),
		rotations: counters("redox_rotations_total", "Rotations of signing keys that came this far.", "result", rotationOutcomes),
		transitions: counters("redox_key_version_transitions_total", "Versions of signing keys that came into a state.",
			"state", versionStates),
		backgroundFails: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "redox_background_failures_total", Help: "Failures of the background work on signing keys; the server's log has each.",
		}),
	}
	reads := counters("redox_token_reads_total", "Reads and writes of token/, by how they ended.", "result", readOutcomes)
	for _, outcome := range readOutcomes {
		m.reads[outcome] = reads.WithLabelValues(outcome)
	}
	m.mints.WithLabelValues("success", causeNone)
	for _, cause := range failureCauses {
		m.mints.WithLabelValues("failure", cause)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "redox_build_info", Help: "Always 1; the labels tell the plugin's version and commit.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit},
	})
	build.Set(1)
	registry.MustRegister(m.mints, m.mintSeconds, m.limited, m.notSent, m.clockOffset, m.backgroundFails, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// read counts how a read of a token ended.
func (m *metrics) read(served *tokencache.Served[*token], err error) {
	if errors.Is(err, logical.ErrReadOnly) {
		return // another node serves it, and counts it
	}
	outcome := readFromMemory
	switch {
	case err != nil && failureCause(err) == causeConfiguration:
		outcome = readRefused
	case err != nil:
		outcome = readFailed
	case served.Stale != nil:
		outcome = readStale
	case served.Waited:
		outcome = readMinted
	}
	m.reads[outcome].Inc()
}

// mint counts how a mint ended.
func (m *metrics) mint(took time.Duration, err error) {
	if err == logical.ErrReadOnly {
		return // it is made on another node
	}
	m.mintSeconds.Observe(took.Seconds())
	if err != nil {
		m.mints.WithLabelValues("failure", failureCause(err)).Inc()
		return
	}
	m.mints.WithLabelValues("success", causeNone).Inc()
}

// failureCause sorts the errors of mints into a few.
func failureCause(err error) string {
	var user *userError
	var remote *redox.Error
	switch {
	case errors.As(err, &remote) && remote.PublicKeyNotFound():
		return causePublicKeyNotFound
	case isOverload(err):
		return causeLimited
	case errors.As(err, &remote):
		return remote.Kind.String()
	case errors.As(err, &user):
		return causeConfiguration
	case errors.Is(err, tokencache.ErrExpired):
		return causeExpired
	}
	return causeInternal
}

// exchange counts what came of an assertion at the token endpoint.
func (m *metrics) exchange(answer *redox.Token, err error) {
	if answer != nil {
		m.offset(answer.ClockOffset, answer.ClockOffsetKnown)
	}
	var remote *redox.Error
	if !errors.As(err, &remote) {
		return
	}
	m.offset(remote.ClockOffset, remote.ClockOffsetKnown)
	switch {
	case remote.NotSent:
		m.notSent.Inc()
	case remote.StatusCode == http.StatusTooManyRequests:
		m.limited.Inc()
	}
	if remote.Kind == redox.Rejected {
		m.rejections.WithLabelValues(rejectionCode(remote)).Inc()
	}
}

func (m *metrics) offset(offset time.Duration, known bool) {
	if known {
		m.clockOffset.Set(offset.Seconds())
	}
}

// rejectionCode returns the error code if it is one that is expected: the server chooses it.
func rejectionCode(remote *redox.Error) string {
	if remote.PublicKeyNotFound() {
		return causePublicKeyNotFound
	}
	for _, code := range rejectionCodes {
		if remote.Code == code {
			return code
		}
	}
	return errorCodeOther
}

// transition counts what has become of a version, and of the rotation that it is part of. A key's first version is
// active at once, and part of none.
func (m *metrics) transition(t rotation.Transition) {
	m.transitions.WithLabelValues(string(t.To)).Inc()
	switch {
	case t.To == rotation.Pending:
		m.rotation(rotationStarted)
	case t.From == rotation.Pending && t.To == rotation.Active:
		m.rotation(rotationCompleted)
	case t.From == rotation.Pending:
		m.rotation(rotationAbandoned)
	}
}

func (m *metrics) rotation(outcome string) { m.rotations.WithLabelValues(outcome).Inc() }
