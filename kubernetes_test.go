// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// What examples/kubernetes asks for: the role's min_ttl, and a kubelet with syncFrequency 30s, which looks at a pod again
// after that and up to half as much (pkg/kubelet/pod_workers.go of Kubernetes, workerResyncIntervalJitterFactor).
const (
	kubernetesMinTTL = 75 * time.Second
	kubeletSync      = 45 * time.Second
)

// kubernetesReader is a program that keeps a copy of the token for others, and decides when to read again.
type kubernetesReader interface {
	// read takes an answer and gives the time until the next read.
	read(answer map[string]any) time.Duration
	copy() string
}

// pollingReader reads in intervals of its own: the External Secrets Operator with refreshInterval, the Vault Secrets
// Operator with refreshAfter, and the CSI driver.
type pollingReader struct {
	interval time.Duration
	token    string
}

func polling(interval time.Duration) func() kubernetesReader {
	return func() kubernetesReader { return &pollingReader{interval: interval} }
}

func (r *pollingReader) copy() string { return r.token }

func (r *pollingReader) read(answer map[string]any) time.Duration {
	r.token, _ = answer["access_token"].(string)
	return r.interval
}

// secretsOperator is the Vault Secrets Operator with allowStaticCreds: hashicorp/vault-secrets-operator,
// controllers/vaultdynamicsecret_controller.go, syncSecret and computePostSyncHorizon. It goes by the ttl of the answer
// that it stored last, and stores one only when the Kubernetes Secret changes by it.
type secretsOperator struct {
	ttlInSecret bool // by the manifest's template
	token       string
	ttl         int64
}

func (r *secretsOperator) copy() string { return r.token }

func (r *secretsOperator) read(answer map[string]any) time.Duration {
	token, _ := answer["access_token"].(string)
	ttl, _ := answer["ttl"].(int64)
	if token != r.token || r.ttlInSecret {
		r.token, r.ttl = token, ttl
	}
	const wait, mostJitter = 500 * time.Millisecond, 150 * time.Millisecond
	return time.Duration(r.ttl)*time.Second + wait + mostJitter
}

// shortestLife lets a program work for some hours, and gives the life that was left, at the worst, of a token when the
// next one took its place. It is negative when the copy had ended before. With disturbance, others read the role's token,
// too, so that it is renewed at any moment, and the program reads at odd moments, as it does when its Vault token is
// replaced.
func shortestLife(t *testing.T, reader kubernetesReader, disturbance bool) time.Duration {
	t.Helper()
	m := newReadyMount(t)
	m.redox.SetFaults(sandbox.Faults{TokenLifetime: sandbox.Duration(300 * time.Second)})
	m.write("roles/team-a", map[string]any{"min_ttl": int(kubernetesMinTTL.Seconds())})

	const shift = 2 * time.Hour
	random := rand.New(rand.NewPCG(1, 2))
	within := func(most time.Duration) time.Duration { return time.Duration(random.Int64N(int64(most))) }
	shortest := time.Hour
	start := m.clock.wall()
	var expiry time.Time
	next, nextOther, nextOdd := start, start, start
	if !disturbance {
		nextOther, nextOdd = start.Add(shift), start.Add(shift)
	}
	for now := start; now.Sub(start) < shift; now = m.clock.wall() {
		if !now.Before(nextOther) {
			nextOther = now.Add(within(3 * time.Minute))
			m.read("token/team-a")
			m.minter.tokens.Wait() // a refresh in the background
		}
		if !now.Before(nextOdd) {
			next, nextOdd = now, now.Add(within(20*time.Minute))
		}
		if now.Before(next) {
			m.clock.advance(slices.MinFunc([]time.Time{next, nextOther, nextOdd}, time.Time.Compare).Sub(now))
			continue
		}
		answer := m.read("token/team-a")
		m.minter.tokens.Wait()
		old := reader.copy()
		next = now.Add(reader.read(answer))
		if old != "" && reader.copy() != old {
			shortest = min(shortest, expiry.Sub(now))
		}
		expiry = mustParseTime(t, answer["expire_time"])
		if !m.redox.IsLive(reader.copy()) {
			t.Fatalf("at %s the program got a token that has ended", now.Sub(start))
		}
	}
	return shortest
}

// TestKubernetesFreshness compares the numbers in examples/kubernetes/README.md with what comes of the rules by which the
// programs read, with tokens that live 300 seconds.
func TestKubernetesFreshness(t *testing.T) {
	static := func() kubernetesReader { return &secretsOperator{ttlInSecret: true} }
	// The longest time between two reads, with the usual renewalPercent of 67: controllers/common.go of the Vault Secrets
	// Operator, computeDynamicHorizonWithJitter.
	refreshAfter := exampleDuration(t, "vault-secrets-operator-polling.yaml", "refreshAfter") * (67 + 10) / 100
	refreshInterval := exampleDuration(t, "external-secrets.yaml", "refreshInterval")
	for name, test := range map[string]struct {
		newReader func() kubernetesReader
		atLeast   time.Duration
	}{
		"Vault Secrets Operator, allowStaticCreds": {static, 72 * time.Second},
		"Vault Secrets Operator, refreshAfter":     {polling(refreshAfter), 118 * time.Second},
		"External Secrets Operator":                {polling(refreshInterval), 118 * time.Second},
		"CSI driver":                               {polling(kubeletSync), 59 * time.Second},
	} {
		for _, disturbance := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, disturbance %v", name, disturbance), func(t *testing.T) {
				if left := shortestLife(t, test.newReader(), disturbance); left < test.atLeast {
					t.Errorf("a token had %s left when the next one took its place; it is to have %s", left, test.atLeast)
				}
			})
		}
	}
}

// TestKubernetesWarnings shows that what the README warns of happens: tokens end before the next one takes their place.
func TestKubernetesWarnings(t *testing.T) {
	for name, reader := range map[string]kubernetesReader{
		"no ttl in the template of the Vault Secrets Operator": &secretsOperator{},
		"the CSI driver reads every 2 minutes":                 &pollingReader{interval: 2 * time.Minute},
		"the kubelet's usual syncFrequency of 1m":              &pollingReader{interval: 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if left := shortestLife(t, reader, true); left >= 0 {
				t.Errorf("a token never had less than %s left: the warning is wrong", left)
			}
		})
	}
}

// exampleDuration gives a duration that a manifest has in its spec.
func exampleDuration(t *testing.T, file, field string) time.Duration {
	t.Helper()
	text, err := os.ReadFile("examples/kubernetes/" + file)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^  ` + field + `: (\S+)$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s has no %s", file, field)
	}
	duration, err := time.ParseDuration(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return duration
}
