// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"vault-plugin-secrets-redox/internal/testvault"
)

const (
	redoxPlugin   = "vault-plugin-secrets-redox"
	redoxVersion  = "v0.0.0-dev" // as scripts/bench builds it
	nothingPlugin = "nothing"
)

// subject is one kind of request that is measured.
type subject struct {
	name, method, path string
}

var subjects = []subject{
	{"kv v1, built in", http.MethodGet, "kv/secret"},
	{"a plugin that does nothing", http.MethodGet, "nothing/token"},
	{"the same, and keeps the replication state", http.MethodGet, "nothing-kept/token"},
	{"token, from memory", http.MethodGet, "redox/token"},
	{"token of a leased role", http.MethodGet, "redox/token/leased"},
	{"assertion, ES384", http.MethodPut, "redox/assertion/es384"},
	{"assertion, RS384", http.MethodPut, "redox/assertion/rs384"},
}

// setUp mounts the engines, and fills them with values of one size.
func setUp(v *vault, redox *localRedox) error {
	if err := v.mount(redoxPlugin, redoxVersion, "redox"); err != nil {
		return err
	}
	if err := configure(v, redox, "redox"); err != nil {
		return err
	}
	for role, settings := range map[string]map[string]any{
		"leased": {"leased": true}, "es384": {"key": "es384"}, "rs384": {"key": "rs384"},
	} {
		if _, err := v.do(http.MethodPost, "redox/roles/"+role, settings); err != nil {
			return err
		}
	}
	data, err := v.do(http.MethodGet, "redox/token", nil)
	if err != nil {
		return err
	}
	accessToken, ok := data["access_token"].(string)
	if !ok {
		return errors.New("the answer has no token")
	}
	length := fmt.Sprintf("-token-length=%d", len(accessToken))
	if err := v.mount(nothingPlugin, "v0.0.0", "nothing", length); err != nil {
		return err
	}
	if err := v.mount(nothingPlugin, "v0.0.0", "nothing-kept", length, "-keep-state"); err != nil {
		return err
	}
	if _, err := v.do(http.MethodPost, "sys/mounts/kv", map[string]any{"type": "kv"}); err != nil {
		return err
	}
	_, err = v.do(http.MethodPost, "kv/secret", data)
	return err
}

// configure makes a mount of the engine ready: two keys, of which one is the default.
func configure(v *vault, redox *localRedox, mount string) error {
	for key, algorithm := range map[string]string{"es384": "ES384", "rs384": "RS384"} {
		data, err := v.do(http.MethodPost, mount+"/keys/"+key, map[string]any{"algorithm": algorithm})
		if err != nil {
			return err
		}
		jwk, _ := data["public_jwk"].(string)
		if err := redox.register("client-"+key, json.RawMessage(jwk)); err != nil {
			return err
		}
	}
	_, err := v.do(http.MethodPost, mount+"/config", map[string]any{
		"client_id": "client-es384", "key": "es384", "base_url": redox.url, "min_ttl": "1s",
	})
	return err
}

// load makes as many requests as come through in a time.
func load(v *vault, s settings, what subject, duration time.Duration) (*vegeta.Metrics, error) {
	targeter := vegeta.NewStaticTargeter(vegeta.Target{
		Method: what.method, URL: v.Address + "/v1/" + what.path, Header: http.Header{"X-Vault-Token": {v.Token}},
	})
	attacker := vegeta.NewAttacker(vegeta.Workers(uint64(s.clients)), vegeta.MaxWorkers(uint64(s.clients)),
		vegeta.Connections(s.clients), vegeta.KeepAlive(true))
	defer attacker.Stop()
	metrics := &vegeta.Metrics{}
	for result := range attacker.Attack(targeter, vegeta.Rate{}, duration, what.name) {
		metrics.Add(result)
	}
	metrics.Close()
	if metrics.Success < 1 {
		return nil, fmt.Errorf("%s: only %.4f of the requests succeeded: %v", what.name, metrics.Success, metrics.Errors)
	}
	return metrics, nil
}

// measureRates measures all kinds of requests in turn, again and again, so that what else the machine does hits all.
func measureRates(v *vault, s settings, r *report) error {
	for _, what := range subjects { // warm up
		if _, err := load(v, s, what, time.Second); err != nil {
			return err
		}
	}
	r.rates = map[string][]float64{}
	for round := range s.rounds {
		log.Printf("rates: round %d of %d", round+1, s.rounds)
		for _, what := range subjects {
			metrics, err := load(v, s, what, s.duration)
			if err != nil {
				return err
			}
			r.rates[what.name] = append(r.rates[what.name], metrics.Throughput)
		}
	}
	return nil
}

// measureRefreshes compares the slowest reads while tokens are renewed all the time with those while none is.
func measureRefreshes(ctx context.Context, v *vault, s settings, r *report) error {
	redox, err := startSandbox(ctx, s.sandbox, 8*time.Second)
	if err != nil {
		return err
	}
	defer redox.Stop()
	if err := v.Mount(ctx, "refreshed", "redox", redoxVersion); err != nil {
		return err
	}
	if err := configure(v, redox, "refreshed"); err != nil {
		return err
	}
	for round := range s.rounds {
		log.Printf("refreshes: round %d of %d", round+1, s.rounds)
		for _, one := range []struct {
			path string
			p99  *[]float64
		}{{"redox/token", &r.quiet}, {"refreshed/token", &r.refreshed}} {
			metrics, err := load(v, s, subject{one.path, http.MethodGet, one.path}, 2*s.duration)
			if err != nil {
				return err
			}
			*one.p99 = append(*one.p99, metrics.Latencies.P99.Seconds()*1000)
		}
	}
	return nil
}

// measureMemory reads a lot, then makes many roles with live tokens, and leaves them alone.
func measureMemory(v *vault, s settings, r *report) error {
	ours, err := v.pluginProcess(redoxPlugin)
	if err != nil {
		return err
	}
	nothing, err := v.pluginProcess(nothingPlugin, "-keep-state")
	if err != nil {
		return err
	}
	for _, one := range []struct {
		what  subject
		pid   int
		bytes *int64
	}{{subjects[3], ours, &r.residentAfterReads}, {subjects[2], nothing, &r.nothingAfterReads}} {
		var done uint64
		for done < uint64(s.reads) {
			metrics, err := load(v, s, one.what, 10*time.Second)
			if err != nil {
				return err
			}
			done += metrics.Requests
			log.Printf("memory: %d of %d reads of %s", done, s.reads, one.what.name)
		}
		if *one.bytes, err = testvault.Memory(one.pid, "VmRSS"); err != nil {
			return err
		}
	}
	if err := readRoles(v, s); err != nil {
		return err
	}
	if r.residentWithRoles, err = testvault.Memory(ours, "VmRSS"); err != nil {
		return err
	}
	before, err := processorTime(ours)
	if err != nil {
		return err
	}
	log.Printf("memory: %d roles are left alone for 20 s", s.roles)
	time.Sleep(20 * time.Second)
	after, err := processorTime(ours)
	r.idle = (after - before).Seconds() / 20
	return err
}

// readRoles makes roles and reads a token of each.
func readRoles(v *vault, s settings) error {
	var next, failed atomic.Int64
	var first atomic.Value
	var workers sync.WaitGroup
	for range s.clients {
		workers.Go(func() {
			for n := next.Add(1); n <= int64(s.roles); n = next.Add(1) {
				if n%2000 == 0 {
					log.Printf("memory: %d of %d roles", n, s.roles)
				}
				role := fmt.Sprintf("role-%05d", n)
				_, err := v.do(http.MethodPost, "redox/roles/"+role, map[string]any{"key": "es384"})
				if err == nil {
					_, err = v.do(http.MethodGet, "redox/token/"+role, nil)
				}
				if err != nil && failed.Add(1) == 1 {
					first.Store(err)
				}
			}
		})
	}
	workers.Wait()
	if err, _ := first.Load().(error); err != nil {
		return fmt.Errorf("%d roles failed, the first with: %w", failed.Load(), err)
	}
	return nil
}

// measureSizes compares the binaries, which are built alike.
func measureSizes(s settings, r *report) error {
	for binary, size := range map[string]*int64{redoxPlugin: &r.size, nothingPlugin: &r.nothingSize} {
		info, err := os.Stat(filepath.Join(s.plugins, binary))
		if err != nil {
			return err
		}
		*size = info.Size()
	}
	if r.size == 0 || r.nothingSize == 0 {
		return errors.New("a plugin binary is empty")
	}
	return nil
}
