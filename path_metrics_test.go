// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// scrape reads the metrics as Prometheus does.
func (m *mount) scrape() map[string]*dto.MetricFamily {
	m.t.Helper()
	text, _ := m.read("metrics")[logical.HTTPRawBody].([]byte)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		m.t.Fatal(err)
	}
	return families
}

// series gives the engine's own series with their values, those of 0 left out unless they are gauges.
func (m *mount) series() map[string]float64 {
	m.t.Helper()
	series := map[string]float64{}
	for name, family := range m.scrape() {
		if !strings.HasPrefix(name, "redox_") || name == "redox_build_info" {
			continue
		}
		for _, metric := range family.Metric {
			var labels []string
			for _, label := range metric.Label {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			key := strings.TrimPrefix(strings.Join(append([]string{name}, labels...), " "), "redox_")
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				if value := metric.Counter.GetValue(); value != 0 {
					series[key] = value
				}
			case dto.MetricType_GAUGE:
				series[key] = metric.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				if count := metric.Histogram.GetSampleCount(); count != 0 {
					series[key] = float64(count)
				}
			}
		}
	}
	return series
}

// wantSeries checks values of series; all others may be anything.
func (m *mount) wantSeries(after string, want map[string]float64) {
	m.t.Helper()
	got := m.series()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if value, there := got[key]; value != want[key] || !there && want[key] != 0 {
			m.t.Errorf("after %s, %q is %v, not %v", after, key, value, want[key])
		}
	}
}

func TestMetricsOfTokens(t *testing.T) {
	m := newReadyMount(t)
	m.wantSeries("the setup", map[string]float64{"tokens": 0, "token_reads_total result=memory": 0})
	if _, there := m.series()["token_expiry_seconds_min"]; there {
		t.Error("without a token there is a least expiry")
	}
	for range 3 {
		m.read("token")
	}
	m.minter.tokens.Wait()
	m.wantSeries("three reads", map[string]float64{
		"token_reads_total result=minted": 1, "token_reads_total result=memory": 2, "mints_total cause=none result=success": 1,
		"mint_duration_seconds": 1, "tokens": 1, "token_expiry_seconds_min": 300,
	})
	m.clock.advance(100 * time.Second)
	m.write("roles/team", nil)
	m.read("token/team")
	m.minter.tokens.Wait()
	m.wantSeries("another role's read", map[string]float64{"tokens": 2, "token_expiry_seconds_min": 200})

	m.redox.SetFaults(sandbox.Faults{Status: 503})
	m.write("config", map[string]any{"max_retries": 0})
	m.clock.advance(time.Hour)
	m.failed(logical.ReadOperation, "token", nil)
	m.minter.tokens.Wait()
	m.wantSeries("an outage", map[string]float64{
		"token_reads_total result=failed": 1, "mints_total cause=unavailable result=failure": 1, "tokens": 0,
		"mints_total cause=none result=success": 2, "mint_duration_seconds": 3,
	})
	m.redox.SetFaults(sandbox.Faults{})
	m.clock.advance(time.Hour)
	m.read("token")
	m.redox.SetFaults(sandbox.Faults{Status: 503})
	m.clock.advance(290 * time.Second)
	m.read("token")
	m.wantSeries("a read in an outage", map[string]float64{"token_reads_total result=stale": 1})

	m.write("roles/team", map[string]any{"disabled": true})
	m.refused(logical.ReadOperation, "token/team", nil)
	m.refused(logical.ReadOperation, "token/mistyped", nil)
	m.wantSeries("what is not to be served", map[string]float64{"token_reads_total result=refused": 2, "token_reads_total result=failed": 1})
}

// A read that another node is to serve has not failed here, nor has it been served here.
func TestMetricsOfForwardedReads(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", map[string]any{"leased": true})
	m.system.ReplicationStateVal = consts.ReplicationPerformanceStandby
	for _, operation := range []logical.Operation{logical.ReadOperation, logical.UpdateOperation} {
		if _, err := m.failed(operation, "token/team", nil); err != logical.ErrReadOnly {
			t.Errorf("%s of a leased token on a standby gives %v", operation, err)
		}
	}
	for key, value := range m.series() {
		if strings.HasPrefix(key, "token_reads_total") && value != 0 {
			t.Errorf("%s is %v", key, value)
		}
	}
}

// Each cause of a failure has its own series, and none beside those that are there from the beginning.
func TestMetricsOfFailures(t *testing.T) {
	for name, test := range map[string]struct {
		prepare   func(m *mount)
		cause     string
		rejection string
	}{
		"no connection": {func(m *mount) { m.redox.SetFaults(sandbox.Faults{Reset: true}) }, "unavailable", ""},
		"unknown key":   {func(m *mount) { m.setJWKs("client-1") }, "public_key_not_found", "public_key_not_found"},
		"known error": {func(m *mount) {
			m.redox.SetFaults(sandbox.Faults{Status: 400, Body: `{"error":"invalid_scope"}`})
		}, "rejected", "invalid_scope"},
		"error that the server invents": {func(m *mount) {
			m.redox.SetFaults(sandbox.Faults{Status: 400, Body: `{"error":"role_42_is_tired"}`})
		}, "rejected", "other"},
		"no JSON":            {func(m *mount) { m.redox.SetFaults(sandbox.Faults{Status: 200, Body: "hello"}) }, "invalid_response", ""},
		"nothing configured": {func(m *mount) { m.write("config", map[string]any{"client_id": ""}) }, "configuration", ""},
		"storage fails": {func(m *mount) {
			m.storage.onEach(func(string, string) error { return errors.New("storage is broken") })
		}, "internal", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newReadyMount(t)
			m.write("config", map[string]any{"max_retries": 0})
			m.read("jwks") // so that metrics need no storage
			names := slices.Sorted(maps.Keys(m.scrape()))
			before := m.scrape()["redox_mints_total"].Metric
			test.prepare(m)
			if response, err := m.request(logical.ReadOperation, "token", nil); err == nil && !response.IsError() {
				t.Fatal("there was a token")
			}
			m.minter.tokens.Wait()
			want := map[string]float64{"mints_total cause=" + test.cause + " result=failure": 1}
			if test.rejection != "" {
				want["assertions_rejected_total error="+test.rejection] = 1
			}
			m.wantSeries(name, want)
			if after := m.scrape()["redox_mints_total"].Metric; len(after) != len(before) {
				t.Errorf("there are %d series of mints, and were %d", len(after), len(before))
			}
			if after := slices.Sorted(maps.Keys(m.scrape())); !slices.Equal(names, after) {
				t.Errorf("the metrics have become %v", after)
			}
		})
	}
}

func TestMetricsOfKeys(t *testing.T) {
	m := newReadyMount(t)
	m.read("token")
	m.write("keys/other", map[string]any{"algorithm": algorithmES384})
	m.clock.advance(time.Hour)
	m.write("keys/main/rotate", nil)
	m.clock.advance(time.Minute)
	m.wantSeries("a rotation began", map[string]float64{
		"keys": 2, "keys_unusable": 0, "key_versions state=active": 2, "key_versions state=pending": 1,
		"key_versions state=retired": 0, "key_versions state=destroyed": 0,
		"key_version_age_seconds_max state=active": 3660, "key_version_age_seconds_max state=pending": 60,
		"rotations_total result=started": 1, "key_version_transitions_total state=active": 2,
	})
	m.setJWKs("client-1", m.read("keys/main")["public_jwk"], m.read("keys/main")["pending_public_jwk"])
	m.write("keys/main/activate", nil)
	m.write("keys/main/rotate", nil)
	m.write("keys/main/abandon", nil)
	m.wantSeries("a rotation ended", map[string]float64{
		"key_versions state=active": 2, "key_versions state=retired": 1, "key_versions state=destroyed": 1,
		"rotations_total result=started": 2, "rotations_total result=completed": 1, "rotations_total result=abandoned": 1,
	})
	m.write("keys/main", map[string]any{"rotation_schedule": "0 0 1 * *", "rotation_window": "1h"})
	m.clock.advance(40 * 24 * time.Hour)
	m.passNow()
	m.wantSeries("a window was missed", map[string]float64{"rotations_total result=missed": 1})
	m.plant("keys/broken", "{")
	m.passNow()
	m.wantSeries("an entry was broken", map[string]float64{"keys": 2, "keys_unusable": 1, "background_failures_total": 1})
}

// Scrapes come every few seconds: what they tell of keys is read from storage once after a change.
func TestMetricsReadStorageOnceAfterAChange(t *testing.T) {
	m := newReadyMount(t)
	m.read("metrics")
	reads := m.storage.readCount()
	m.read("metrics")
	m.read("jwks")
	if got := m.storage.readCount(); got != reads {
		t.Errorf("another scrape read storage %d times", got-reads)
	}
}

func TestMetricsOfClockOffset(t *testing.T) {
	m := newReadyMount(t)
	m.redox.SetFaults(sandbox.Faults{ClockOffset: sandbox.Duration(7 * time.Second)})
	told, _ := m.write("check", nil)["clock_offset"].(int64)
	if told < 7 {
		t.Fatalf("check tells a clock offset of %d s", told)
	}
	m.wantSeries("a check", map[string]float64{"clock_offset_seconds": float64(told)})
}

// A dashboard or an alert asks for these names: they stay. No name of a role, key or client is a label.
func TestMetricNames(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	m.read("token/team")
	m.write("keys/main/rotate", nil)
	m.write("keys/main/abandon", nil)
	var text strings.Builder
	families := m.scrape()
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, "redox_") {
			continue
		}
		family := families[name]
		fmt.Fprintf(&text, "%s %s: %s\n", name, strings.ToLower(family.GetType().String()), family.GetHelp())
		for _, metric := range family.Metric {
			var labels []string
			for _, label := range metric.Label {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			if len(labels) > 0 {
				fmt.Fprintf(&text, "  %s\n", strings.Join(labels, " "))
			}
		}
	}
	golden(t, "testdata/metrics.txt", text.String())
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}
