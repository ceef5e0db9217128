// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"vault-plugin-secrets-redox/internal/rotation"
)

// metricsFormat is the Prometheus text format, which every scraper reads.
var metricsFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

func (b *backend) pathMetrics() *framework.Path {
	text := raw("Metrics in the Prometheus text format.", string(metricsFormat), nil)
	return &framework.Path{
		Pattern:      "metrics",
		DisplayAttrs: display("metrics"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(b.metricsRead, "Read the metrics of this mount on this node.", text),
		},
		HelpSynopsis: "Metrics for Prometheus.",
		HelpDescription: `
Gives the metrics of this mount in the Prometheus text format: mints and their
failures, how reads were served, the ages and states of signing keys. They tell
no name of a role or a key.

    vault read -format=raw redox/metrics

Prometheus scrapes it at /v1/redox/metrics with a Vault token whose policy has
"read" on this path. Counters are of the node that is asked, since the plugin
was started there; a standby that can't answer itself asks the active node.
`,
	}
}

func (b *backend) metricsRead(ctx context.Context, _ *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	state, err := b.stateMetrics(ctx)
	if err != nil {
		return nil, err
	}
	families, err := prometheus.Gatherers{b.telemetry.metrics.registry, state}.Gather()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, metricsFormat)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, err
		}
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPContentType: string(metricsFormat),
		logical.HTTPRawBody:     text.Bytes(),
		logical.HTTPStatusCode:  http.StatusOK,
	}}, nil
}

// stateMetrics returns what is read off at this moment: of the tokens in memory, and of the keys as the JWKS has them, so
// that a scrape reads storage only after a key has changed.
func (b *backend) stateMetrics(ctx context.Context) (*prometheus.Registry, error) {
	keys, err := b.keys.jwkSets(ctx)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		vector := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		registry.MustRegister(vector)
		return vector
	}
	living, least := b.minter.tokens.Living()
	gauges("redox_tokens", "Tokens in memory that have not expired.").WithLabelValues().Set(float64(living))
	if living > 0 {
		gauges("redox_token_expiry_seconds_min", "Least seconds to expiry, of the tokens in memory that have not expired.").
			WithLabelValues().Set(least.Seconds())
	}
	requests := b.minter.gates.state()
	gauges("redox_requests_in_progress", "Requests that a server has not answered yet.").WithLabelValues().Set(float64(requests.Inside))
	gauges("redox_requests_waiting", "Requests that wait until they may be sent (request_limit, max_concurrent_requests, or a pause that a server asked for).").
		WithLabelValues().Set(float64(requests.Waiting))
	gauges("redox_requests_paused_seconds", "Seconds until a server that has limited requests is asked again; 0 when none has.").
		WithLabelValues().Set(requests.ClosedFor.Seconds())
	gauges("redox_signatures_waiting", "Signatures that wait for a processor, of all mounts of the plugin's process.").
		WithLabelValues().Set(float64(b.minter.signer.gate.State().Waiting))
	gauges("redox_keys", "Signing keys.").WithLabelValues().Set(float64(len(keys.byKey)))
	gauges("redox_keys_unusable", "Stored signing keys that can't be used.").WithLabelValues().Set(float64(len(keys.unusable)))

	counts := gauges("redox_key_versions", "Versions of signing keys, by state.", "state")
	ages := gauges("redox_key_version_age_seconds_max", "Seconds since the oldest version that is in a state was made.", "state")
	now := b.now().Wall
	oldest := map[string]time.Duration{}
	for _, state := range versionStates {
		counts.WithLabelValues(state)
	}
	for _, v := range keys.versions {
		state := string(v.State)
		counts.WithLabelValues(state).Inc()
		if v.State != rotation.Destroyed {
			oldest[state] = max(oldest[state], now.Sub(v.CreatedTime))
		}
	}
	for state, age := range oldest {
		ages.WithLabelValues(state).Set(age.Seconds())
	}
	return registry, nil
}
