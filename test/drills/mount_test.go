// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"vault-plugin-secrets-redox/internal/sandbox"
)

// mount is the engine at a path of its own, with a local Redox of its own that knows its key.
type mount struct {
	vault *server
	path  string
	redox *localRedox
	jwk   string // of the key's first version
}

// mountOptions say how a mount differs from the usual.
type mountOptions struct {
	lifetime time.Duration // of tokens
	tls      bool
	roles    int // each has the client ID that role gives; one at least
	config   map[string]any
	path     string // the drill's name when empty
}

// role is the name of a role, and of its client ID.
func role(number int) string { return fmt.Sprintf("role-%03d", number) }

// newMount mounts the engine, makes an ES384 key, and makes Redox know it at the API key of each role.
func newMount(d *report, vault *server, o mountOptions) *mount {
	redox, err := newLocalRedox(o.lifetime, o.tls)
	d.must(err)
	d.later(redox.down)
	m := &mount{vault: vault, path: cmp.Or(o.path, d.drill.name), redox: redox}
	d.must(vault.Mount(context.Background(), m.path, pluginName, pluginVersion))
	d.later(func() { _, _ = vault.must("DELETE", "sys/mounts/"+m.path, nil) })
	key := d.must2(vault.must("POST", m.path+"/keys/main", map[string]any{"algorithm": "ES384"}))
	m.jwk = fmt.Sprint(key.Data["public_jwk"])
	config := map[string]any{"client_id": role(0), "key": "main", "base_url": redox.BaseURL}
	if redox.authority != nil {
		config["ca_pem"] = redox.authority.pem
	}
	maps.Copy(config, o.config)
	d.must2(vault.must("POST", m.path+"/config", config))
	for number := range max(1, o.roles) {
		_, err := redox.CreateAPIKeyChecked(sandbox.APIKeyRequest{ID: role(number), Name: role(number), JWK: json.RawMessage(m.jwk)})
		d.must(err)
		d.must2(vault.must("POST", m.path+"/roles/"+role(number), map[string]any{"client_id": role(number)}))
	}
	return m
}

// token is the path at which a role's token is read.
func (m *mount) token(number int) string { return m.path + "/token/" + role(number) }

// mintNow makes a fresh token, so that a drill knows since when it lives.
func (m *mount) mintNow(d *report) time.Time {
	d.must2(m.vault.must("POST", m.token(0), nil))
	arrivals := m.redox.since(time.Time{})
	return arrivals[len(arrivals)-1].at
}

// failedMints gives how many mints have failed since the plugin's process was started, by the engine's own metrics.
func (m *mount) failedMints(d *report) int {
	text := string(d.must2(m.vault.must("GET", m.path+"/metrics", nil)).Body)
	all := 0
	for line := range strings.Lines(text) {
		name, count, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(name, "redox_mints_total{") || !strings.Contains(name, `result="failure"`) {
			continue
		}
		number, err := strconv.Atoi(count)
		d.must(err)
		all += number
	}
	return all
}

// check asks the engine what it sees at Redox.
func (m *mount) check(d *report) map[string]any {
	return d.must2(m.vault.must("POST", m.path+"/check/"+role(0), nil)).Data
}

// showChanged makes Redox show a certificate that is not as it should be.
func (m *mount) showChanged(change func(*x509.Certificate)) error {
	certificate, err := m.redox.authority.issue(change)
	if err != nil {
		return err
	}
	return m.redox.show(certificate)
}

// showForeign makes Redox show a certificate of another authority.
func (m *mount) showForeign() error {
	other, err := newAuthority()
	if err != nil {
		return err
	}
	certificate, err := other.issue(good)
	if err != nil {
		return err
	}
	return m.redox.show(certificate)
}
