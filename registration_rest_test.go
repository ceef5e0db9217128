// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// manyRegistered is a mount whose key "main" is registered at so many API keys, each with a role.
func manyRegistered(t *testing.T, clients int) *platformMount {
	t.Helper()
	m := newPlatformMount(t)
	m.maintainer.concurrent = maintained
	jwk, _ := m.read("keys/main")["public_jwk"].(string)
	for n := 2; n <= clients; n++ {
		id := fmt.Sprintf("client-%d", n)
		m.redox.CreateAPIKey(sandbox.APIKey{ID: id, JWKSet: json.RawMessage(`{"keys":[` + jwk + `]}`)})
		m.plant(fmt.Sprintf("%srole-%d", rolesStoragePrefix, n), fmt.Sprintf(`{"schema_version":1,"client_id":%q}`, id))
	}
	m.minter.gates.byHost = nil
	return m
}

// manyClients is a thousand, or fewer where all tests are to end soon.
func manyClients() int {
	if !allSimulations() {
		return 150
	}
	return 1000
}

// minutes lets time go by, with one of Vault's calls in each minute, and returns how many requests the Platform API got in each.
func (m *platformMount) minutes(n int) []int {
	m.t.Helper()
	requests := make([]int, n)
	for i := range requests {
		m.clock.advance(time.Minute)
		m.proxy.sent()
		m.maintainer.pass(m.t.Context())
		requests[i] = len(m.proxy.sent())
	}
	return requests
}

// TestRegistrationRests: while nothing happens, a thousand API keys cost at most a hundred requests a minute, and each is
// looked at each quarter of an hour.
func TestRegistrationRests(t *testing.T) {
	clients := manyClients()
	m := manyRegistered(t, clients)
	m.maintainer.pass(t.Context()) // after a start all are looked at
	requests := m.minutes(120)
	for minute, n := range requests {
		if n*10 > clients {
			t.Errorf("in minute %d there were %d requests", minute+1, n)
		}
	}
	for quarter := 15; quarter+15 <= len(requests); quarter += 15 {
		looks := 0
		for _, n := range requests[quarter : quarter+15] {
			looks += n
		}
		if looks != clients {
			t.Errorf("in the quarter of an hour from minute %d on there were %d looks", quarter, looks)
		}
	}
	m.setJWKs("client-7", foreignJWK)
	m.minutes(15)
	if log := m.log.String(); strings.Count(log, "is not registered at Redox") != 1 || !strings.Contains(log, "client_id=client-7") {
		t.Error("what was taken away at client-7 is not told of")
	}
}

// TestRegistrationIsWoken: a change here has those API keys looked at in the next pass that it matters to.
func TestRegistrationIsWoken(t *testing.T) {
	m := manyRegistered(t, 3)
	m.minutes(3)
	for _, c := range []struct {
		name   string
		change func()
		looks  int // at least; others rest
	}{
		{"nothing", func() {}, 0},
		{"another key", func() { m.write("keys/other", fields{"algorithm": algorithmES384}) }, 0},
		{"another role", func() { m.write("roles/other", fields{"key": "other", "client_id": "client-other"}) }, 0},
		{"a rotation", func() { m.write("keys/main/rotate", nil) }, 3},
		{"a compromise", func() { m.write("keys/main/retire", fields{"version": 1, "destroy_now": true}) }, 3},
		{"a new client", func() {
			m.redox.CreateAPIKey(sandbox.APIKey{ID: "client-new"})
			m.write("roles/new", fields{"client_id": "client-new"})
		}, 1},
		{"config", func() { m.write("config", fields{"request_timeout": 7}) }, 4},
		{"the platform role", func() { m.write("roles/manager", fields{"min_ttl": 20}) }, 4},
		{"the key's platform role", func() {
			m.write("roles/manager-2", fields{"client_id": "manager", "key": "management"})
			m.write("keys/main", fields{"platform_role": "manager-2"})
		}, 4},
	} {
		m.minutes(2) // what was put there is seen there
		m.clock.advance(10 * time.Second)
		m.proxy.sent()
		c.change()
		m.maintainer.pass(t.Context())
		looked := map[string]bool{}
		for _, request := range m.proxy.sent() {
			_, client, _ := strings.Cut(request, " ")
			looked[client] = true
		}
		if len(looked) != c.looks {
			t.Errorf("after a change of %s these were looked at: %v", c.name, looked)
		}
	}
	m.proxy.sent()
	m.write("keys/main/register", nil)
	if n := len(m.proxy.sent()); n < 4 {
		t.Errorf("who asks for it has %d API keys looked at", n)
	}
}

// TestRegistrationProblemsRest: where something is wrong, it is looked at after pauses that grow.
func TestRegistrationProblemsRest(t *testing.T) {
	m := manyRegistered(t, 1)
	m.minutes(20)
	m.setJWKs("client-1", foreignJWK)
	m.minutes(15) // seen by now
	m.write("config", fields{"request_timeout": 7})
	var looks []int
	for minute, n := range m.minutes(60) {
		if n > 0 {
			looks = append(looks, minute)
		}
	}
	if got, want := fmt.Sprint(looks), "[0 1 3 7 15 30 45]"; got != want {
		t.Errorf("looked at in minutes %s, want %s", got, want)
	}
}

// TestRotationOfManyRegistered: a rotation of a thousand client IDs takes fewer than ten minutes of passes, within the
// request limit.
func TestRotationOfManyRegistered(t *testing.T) {
	clients := manyClients()
	m := manyRegistered(t, clients)
	m.maintainer.pass(t.Context())
	m.minutes(15)
	m.write("keys/main/rotate", nil)
	m.write("config", fields{"request_limit": 1_000_000}) // the gate's time is real, this test's is not
	before := m.redox.Counters()
	minutes := 0
	for ; m.states("main") != "retired active"; minutes++ {
		if minutes == 10 {
			t.Fatalf("after %d minutes the states are %s", minutes, m.states("main"))
		}
		m.minutes(1)
	}
	after := m.redox.Counters()
	requests := after.Token.Requests - before.Token.Requests + after.Platform.Requests - before.Platform.Requests
	limit := defaultConfig().RequestLimit
	t.Logf("%d minutes, %d requests", minutes, requests)
	if allowed := limit/4 + 10*(limit-limit/4)/5; requests > allowed {
		t.Errorf("%d requests, but the limit allows %d in ten minutes", requests, allowed)
	}
}

// TestRegistrationTakesTurns: two that change JWK sets at once would lose each other's changes, so one waits; not for longer than
// its request may take.
func TestRegistrationTakesTurns(t *testing.T) {
	m := manyRegistered(t, 1)
	m.maintainer.registering <- struct{}{}                       // as a pass that takes long
	ctx, cancel := context.WithDeadline(t.Context(), time.Now()) // whose time is over when it has waited
	defer cancel()
	_, err := m.maintainer.takeTurn(ctx, "main")
	coded, ok := err.(logical.HTTPCodedError)
	if !ok || coded.Code() != http.StatusGatewayTimeout || !strings.Contains(err.Error(), "public keys are being registered at Redox") {
		t.Errorf("who can't wait gets %v", err)
	}
	<-m.maintainer.registering
	m.write("keys/main/register", nil)
}

// TestRegistrationAfterAWait: who has waited for another one does not undo what that one has noted.
func TestRegistrationAfterAWait(t *testing.T) {
	m := manyRegistered(t, 3)
	m.minutes(2)
	m.write("keys/main/rotate", nil)
	before, err := m.keys.existing(t.Context(), "name", "main")
	if err != nil {
		t.Fatal(err)
	}
	clients := must(m.maintainer.directory.of(t.Context(), "main"))
	m.minutes(2)
	noted := must(m.keys.existing(t.Context(), "name", "main")).stored.Registrations
	if err := m.maintainer.register(t.Context(), before, clients.roleConfigs(), onAsked); err != nil {
		t.Fatal(err)
	}
	if after := must(m.keys.existing(t.Context(), "name", "main")).stored.Registrations; !slices.Equal(after, noted) {
		t.Errorf("noted was %v, and then %v", noted, after)
	}
}
