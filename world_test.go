// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/compressutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/redox"
	"vault-plugin-secrets-redox/internal/rotation"
	"vault-plugin-secrets-redox/internal/testkeys"
	"vault-plugin-secrets-redox/internal/tokencache"
	"vault-plugin-secrets-redox/internal/world"
)

// The engine as internal/world explores it: nodes over one storage, that are made anew for each step and driven by requests.

// worldMemory is what a node has heard since it started.
type worldMemory map[string]*observed

// remember returns a copy of a node's memory.
func remember(b *backend) worldMemory {
	b.keys.observed.mu.Lock()
	defer b.keys.observed.mu.Unlock()
	return copyMemory(b.keys.observed.byKey)
}

// remind gives a node that was made anew a memory.
func remind(b *backend, m worldMemory) { b.keys.observed.byKey = copyMemory(m) }

func copyMemory(m worldMemory) worldMemory {
	copied := worldMemory{}
	for key, of := range m {
		clients := map[rotation.Client]heardOf{}
		for client, known := range of.clients {
			clients[client] = maps.Clone(known)
		}
		copied[key] = &observed{of.created, of.begun, clients}
	}
	return copied
}

// readable returns a memory as its fingerprint is taken from it.
func (m worldMemory) readable(now tokencache.Instant) any {
	all := map[string]any{}
	for key, of := range m {
		for client, known := range of.clients {
			for version, h := range known {
				all[fmt.Sprint(key, client, version)] = map[string]any{"taken": h.taken, "doubted": h.doubted, "time": formatTime(now.Wall.Add(-h.at.Age(now)))}
			}
		}
	}
	return all
}

// remake makes a node anew from what is stored, and all that it remembers is lost. Only its paths stay, which are costly.
func (e *worldEngine) remake(n int) {
	b := e.nodes[n]
	b.store = newStore(&worldView{e.storage, e, n})
	b.keys = newKeyring(b.store, &node{e.systems[n]}, b.now, b.telemetry.logger, b.keyChanged)
	b.minter = newMinter(b.store, b.keys, &node{e.systems[n]}, newTestSigner(), b.telemetry, b.now)
	b.minter.requestToken = func(_ context.Context, _ *roleConfig, r redox.TokenRequest) (*redox.Token, error) {
		return e.send(n, r)
	}
	b.maintainer = newMaintainer(b.store, b.keys, b.minter, &node{e.systems[n]}, b.telemetry, b.now)
	b.maintainer.concurrent = 1 // or the order of requests would not be the same each time
}

// underLock reports whether a node is writing, so that others wait for it.
func (e *worldEngine) underLock(n int) bool { return len(e.nodes[n].store.writes) > 0 }

const worldKey = "main"

type worldEngine struct {
	scenario *world.Scenario
	nodes    []*backend
	systems  []*logical.StaticSystemView
	storage  *worldStorage
	clock    *testClock
	hooks    world.Hooks
}

// worldView is the storage as a node has it. The others are told of its writes, as Vault does.
type worldView struct {
	*worldStorage
	engine *worldEngine
	node   int
}

func (v *worldView) Put(ctx context.Context, entry *logical.StorageEntry) error {
	defer v.tell(entry.Key)
	return v.worldStorage.Put(ctx, entry)
}

func (v *worldView) Delete(ctx context.Context, key string) error {
	defer v.tell(key)
	return v.worldStorage.Delete(ctx, key)
}

func (v *worldView) tell(key string) {
	for n, b := range v.engine.nodes {
		if n != v.node {
			b.invalidate(context.Background(), key)
		}
	}
}

// worldStorage can crash between two writes, and be interrupted before a read.
type worldStorage struct {
	entries map[string]string

	writesLeft int // until a crash; negative: none
	crashed    bool
	onRead     func()
}

var errCrashed = errors.New("the node has crashed")

func (s *worldStorage) read() error {
	if s.onRead != nil {
		s.onRead()
	}
	if s.crashed {
		return errCrashed
	}
	return nil
}

func (s *worldStorage) write() error {
	if s.writesLeft == 0 {
		s.crashed = true
	}
	s.writesLeft--
	if s.crashed {
		return errCrashed
	}
	return nil
}

func (s *worldStorage) Get(_ context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	value, found := s.entries[key]
	if !found {
		return nil, nil
	}
	return &logical.StorageEntry{Key: key, Value: []byte(value)}, nil
}

func (s *worldStorage) List(_ context.Context, prefix string) ([]string, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	var names []string
	for key := range s.entries {
		if name, below := strings.CutPrefix(key, prefix); below {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s *worldStorage) Put(_ context.Context, entry *logical.StorageEntry) error {
	if err := s.write(); err != nil {
		return err
	}
	s.entries[entry.Key] = string(entry.Value)
	return nil
}

func (s *worldStorage) Delete(_ context.Context, key string) error {
	if err := s.write(); err != nil {
		return err
	}
	delete(s.entries, key)
	return nil
}

// worldSnapshot is the state of an engine at rest.
type worldSnapshot struct {
	entries map[string]string
	memory  []worldMemory
	now     tokencache.Instant
}

func (s *worldSnapshot) Fingerprint() string {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		fmt.Fprintln(h, key, canonicalText(s.entries[key], s.now.Wall))
	}
	for _, m := range s.memory {
		fmt.Fprintln(h, canonical(m.readable(s.now), s.now.Wall))
	}
	return string(h.Sum(nil))
}

// canonicalText returns an entry without what says nothing of how the engine goes on: key pairs, and the moment.
func canonicalText(entry string, now time.Time) string {
	if plain, wasPlain, err := compressutil.Decompress([]byte(entry)); err == nil && !wasPlain {
		entry = string(plain)
	}
	var decoded any
	if json.Unmarshal([]byte(entry), &decoded) != nil {
		return entry
	}
	return canonical(decoded, now)
}

// worldCounters are counters in storage, and up to where a higher number makes a difference.
var worldCounters = map[string]float64{"count": 11}

func canonical(value any, now time.Time) string {
	switch value := value.(type) {
	case map[string]any:
		var b strings.Builder
		var times []time.Time
		names := slices.Sorted(maps.Keys(value))
		for _, name := range names {
			if t, isTime := parseWorldTime(value[name]); isTime {
				times = append(times, t)
			}
		}
		slices.SortFunc(times, time.Time.Compare)
		times = slices.CompactFunc(times, time.Time.Equal)
		for _, name := range names {
			if count, isCount := value[name].(float64); isCount && worldCounters[name] > 0 {
				value[name] = min(count, worldCounters[name])
			}
			fmt.Fprintf(&b, "%s:%s", name, canonical(value[name], now))
			if t, isTime := parseWorldTime(value[name]); isTime {
				fmt.Fprintf(&b, "#%d", slices.IndexFunc(times, t.Equal)) // which of them came first counts, too
			}
			b.WriteByte(' ')
		}
		return "{" + b.String() + "}"
	case []any:
		var parts []string
		for _, one := range value {
			parts = append(parts, canonical(one, now))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case string:
		if t, isTime := parseWorldTime(value); isTime {
			return age(now.Sub(t))
		}
		if len(value) > 90 {
			if _, err := base64.StdEncoding.DecodeString(value); err == nil {
				return "bytes"
			}
		}
		return value
	}
	return fmt.Sprint(value)
}

func parseWorldTime(value any) (time.Time, bool) {
	text, _ := value.(string)
	if len(text) < len("2006-01-02T15:04:05Z") || text[4] != '-' {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	return t, err == nil
}

// age tells apart what the engine may tell apart.
func age(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	for _, step := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 24 * time.Hour} {
		if d < step {
			return sign + "<" + step.String()
		}
	}
	return sign + "old"
}

func (e *worldEngine) New(s *world.Scenario) error {
	*e = worldEngine{scenario: s, storage: &worldStorage{entries: map[string]string{}, writesLeft: -1}, clock: newTestClock()}
	for n := range max(s.Nodes, 1) {
		system := logical.TestSystemView()
		if n > 0 {
			system.ReplicationStateVal = consts.ReplicationPerformanceStandby
		}
		b, err := newBackend(context.Background(), &logical.BackendConfig{System: system, StorageView: e.storage}, newTestSigner(), e.clock.now)
		if err != nil {
			return err
		}
		e.nodes, e.systems = append(e.nodes, b), append(e.systems, system)
		e.remake(n)
	}
	if _, err := e.importKey(1); err != nil {
		return err
	}
	if _, err := e.request(0, logical.UpdateOperation, "config", map[string]any{"key": worldKey, "base_url": "https://redox.example"}); err != nil {
		return err
	}
	for n, role := range s.Roles {
		if !role.Later {
			if _, err := e.writeRole(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// worldKeys are the key pairs that are imported, since making them takes time.
var worldKeys = once(func() ([]string, error) {
	var keys []string
	for range world.MaxVersions {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return nil, err
		}
		keys = append(keys, testkeys.PKCS8(key))
	}
	return keys, nil
})

func (e *worldEngine) importKey(version int) (*logical.Response, error) {
	return e.request(0, logical.UpdateOperation, "keys/"+worldKey+"/import",
		map[string]any{"private_key": worldKeys()[version-1], "kid": world.KIDName(version)})
}

func (e *worldEngine) writeRole(role int) (*logical.Response, error) {
	setup := e.scenario.Roles[role]
	data := map[string]any{"client_id": world.ClientName(setup.Client)}
	if setup.Mistyped {
		data["scope"] = world.MistypedScope
	}
	return e.request(0, logical.UpdateOperation, e.rolePath("roles", role), data)
}

// rolePath returns the path of a role's settings, of its tokens or of its assertions.
func (e *worldEngine) rolePath(below string, role int) string {
	switch config := e.scenario.Roles[role].Config; {
	case config && below == "roles":
		return "config"
	case config:
		return below
	default:
		return below + "/" + world.RoleName(role)
	}
}

// request does one request. What is refused is an error. What a node may not do it leaves to the one that may, as Vault does.
func (e *worldEngine) request(n int, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	response, err := e.requestOn(n, operation, path, data)
	if n > 0 && errors.Is(err, logical.ErrReadOnly) {
		return e.requestOn(0, operation, path, data)
	}
	return response, err
}

func (e *worldEngine) requestOn(n int, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	response, err := e.nodes[n].HandleRequest(context.Background(), &logical.Request{
		Operation: operation, Path: path, Data: data, Storage: e.storage, MountPoint: "redox/",
	})
	if err == nil && response.IsError() {
		err = response.Error()
	}
	return response, err
}

func (e *worldEngine) Load(s world.Snapshot) {
	snapshot, _ := s.(*worldSnapshot)
	*e.storage = worldStorage{entries: maps.Clone(snapshot.entries), writesLeft: -1}
	e.clock.instant = snapshot.now
	for n, b := range e.nodes {
		e.remake(n)
		remind(b, snapshot.memory[n])
	}
}

func (e *worldEngine) Save() world.Snapshot {
	s := &worldSnapshot{entries: maps.Clone(e.storage.entries), now: e.clock.now()}
	for _, b := range e.nodes {
		s.memory = append(s.memory, remember(b))
	}
	return s
}

// send is the way to the world's server.
func (e *worldEngine) send(n int, r redox.TokenRequest) (*redox.Token, error) {
	e.clock.advance(time.Second)
	if e.storage.crashed {
		return nil, context.Canceled
	}
	assertion, err := r.Assertion()
	if err != nil {
		return nil, err
	}
	e.clock.advance(time.Second)
	var header struct{ Kid string }
	var claims struct{ Iss string }
	for i, into := range []any{&header, &claims} {
		decoded, err := base64.RawURLEncoding.DecodeString(strings.Split(assertion, ".")[i])
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(decoded, into); err != nil {
			return nil, err
		}
	}
	answer := e.hooks.Ask(n, claims.Iss, header.Kid, r.Scope)
	if answer == world.UnknownKey && e.scenario.OtherWords {
		answer = world.Refused
	}
	switch answer {
	case world.Taken:
		return &redox.Token{AccessToken: "a token", TokenType: "Bearer", Scope: r.Scope, Lifetime: 5 * time.Minute}, nil
	case world.UnknownKey:
		return nil, &redox.Error{Kind: redox.Rejected, StatusCode: http.StatusBadRequest, Code: "invalid_request",
			Description: fmt.Sprintf("Public key not found for kid %s.", header.Kid), Cause: "Redox has no such public key"}
	case world.Refused:
		return nil, &redox.Error{Kind: redox.Rejected, StatusCode: http.StatusUnauthorized, Code: "invalid_client", Cause: "Redox does not accept this"}
	default:
		return nil, &redox.Error{Kind: redox.Unavailable, StatusCode: http.StatusServiceUnavailable, Cause: "Redox is down"}
	}
}

func (e *worldEngine) Do(op world.Op, hooks world.Hooks) (world.Report, error) {
	outer := e.hooks
	e.hooks = hooks
	defer func() { e.hooks = outer }()
	report := world.Report{}
	if hooks.CrashAfter >= 0 {
		e.storage.writesLeft = hooks.CrashAfter
	}
	if hooks.Interrupt != nil {
		read := 0
		e.storage.onRead = func() {
			if e.underLock(0) {
				return
			}
			if read++; read == hooks.InterruptAt+1 {
				e.storage.onRead = nil
				report.Reached = true
				hooks.Interrupt()
			}
		}
		defer func() { e.storage.onRead = nil }()
	}
	response, err := e.act(op)
	switch {
	case err != nil:
		report.Answer = err.Error()
	case response != nil && len(response.Warnings) > 0:
		report.Answer = response.Warnings[0]
	}
	if kid, ok := responseKID(response); ok && op.Kind == world.Token {
		report.Answer = kid
	}
	if e.storage.crashed {
		report = world.Report{Reached: true}
		e.storage.crashed, e.storage.writesLeft = false, -1
		e.remake(0)
	}
	e.storage.writesLeft = -1
	return report, nil
}

func responseKID(response *logical.Response) (string, bool) {
	if response == nil {
		return "", false
	}
	kid, ok := response.Data["kid"].(string)
	return kid, ok
}

func (e *worldEngine) act(op world.Op) (*logical.Response, error) {
	update := func(path string, data map[string]any) (*logical.Response, error) {
		return e.request(op.Node, logical.UpdateOperation, path, data)
	}
	key := "keys/" + worldKey + "/"
	switch op.Kind {
	case world.WriteRole:
		return e.writeRole(op.Role)
	case world.DeleteRole:
		if e.scenario.Roles[op.Role].Config {
			return update("config", map[string]any{"client_id": ""})
		}
		return e.request(0, logical.DeleteOperation, e.rolePath("roles", op.Role), nil)
	case world.Disable, world.Enable:
		return update(e.rolePath("roles", op.Role), map[string]any{"disabled": op.Kind == world.Disable})
	case world.Spoil:
		e.storage.entries[rolesStoragePrefix+world.RoleName(op.Role)] = "spoiled"
		return nil, nil
	case world.Repoint:
		view, err := e.Look(0)
		if err != nil {
			return nil, err
		}
		other := "https://other.example/token"
		if view.TokenURL == other {
			other = ""
		}
		return update("config", map[string]any{"token_url": other})
	case world.Hour:
		e.clock.advance(61 * time.Minute)
	case world.Day:
		e.clock.advance(25 * time.Hour)
	case world.SetBack:
		e.clock.instant.Wall = e.clock.instant.Wall.Add(-365 * 24 * time.Hour)
	case world.Restart:
		e.remake(op.Node)
	case world.Token:
		response, err := update(e.rolePath("token", op.Role), nil)
		for _, b := range e.nodes {
			b.minter.tokens.Wait()
		}
		return response, err
	case world.Assertion:
		return update(e.rolePath("assertion", op.Role), nil)
	case world.Import:
		return e.importKey(op.Version)
	case world.Pass:
		e.nodes[0].maintainer.pass(context.Background())
	case world.Rotate:
		return update(key+"rotate", map[string]any{"kid": world.KIDName(op.Version)})
	case world.Activate:
		return update(key+"activate", nil)
	case world.Force:
		return update(key+"activate", map[string]any{"force": true})
	case world.Abandon:
		return update(key+"abandon", nil)
	case world.RetireAll:
		return update(key+"retire", nil)
	case world.RetireHard:
		return update(key+"retire", map[string]any{"version": op.Version, "force": true})
	case world.DestroyNow:
		return update(key+"retire", map[string]any{"version": op.Version, "destroy_now": true})
	default:
		return nil, fmt.Errorf("nobody knows how to do %q", op.Kind)
	}
	return nil, nil
}

func (e *worldEngine) Look(n int) (*world.View, error) {
	read := func(operation logical.Operation, path string) (map[string]any, error) {
		response, err := e.request(n, operation, path, nil)
		if err != nil || response == nil {
			return nil, err
		}
		return response.Data, nil
	}
	view := &world.View{Roles: map[int]world.Role{}}
	config, err := read(logical.ReadOperation, "config")
	if err != nil {
		return nil, err
	}
	view.TokenURL, _ = config["token_url"].(string)
	list, err := read(logical.ListOperation, "roles/")
	if err != nil {
		return nil, err
	}
	names, _ := list["keys"].([]string)
	unreadable := false
	for i, setup := range e.scenario.Roles {
		if setup.Config && config["client_id"] == world.ClientName(setup.Client) {
			view.Roles[i] = world.Role{Client: setup.Client}
		}
		if setup.Config || !slices.Contains(names, world.RoleName(i)) {
			continue
		}
		role := world.Role{Client: setup.Client, Mistyped: setup.Mistyped}
		shown, err := read(logical.ReadOperation, "roles/"+world.RoleName(i))
		if err != nil {
			role.Unreadable, unreadable = true, true
		}
		role.Disabled, _ = shown["disabled"].(bool)
		view.Roles[i] = role
	}
	shown, err := read(logical.ReadOperation, "keys/"+worldKey+"/versions")
	if err != nil {
		return nil, err
	}
	versions, _ := shown["versions"].(map[string]any)
	for _, v := range versions {
		version, _ := v.(map[string]any)
		name, _ := version["kid"].(string)
		kid := world.KID(name)
		view.Known |= kid
		if version["compromised"] == true {
			view.Compromised |= kid
		}
		switch version["state"] {
		case "pending":
			view.Pending |= kid
		case "active":
			view.Active |= kid
		case "retired":
			view.Retired |= kid
		}
	}
	view.Held = view.Pending | view.Active | view.Retired
	known, err := read(logical.ReadOperation, "keys/"+worldKey+"/clients")
	if err != nil {
		if unreadable { // then nobody can be shown
			return view, nil
		}
		return nil, err
	}
	entries, _ := known["clients"].([]any)
	for _, entry := range entries {
		client, _ := entry.(map[string]any)
		for _, role := range view.Roles {
			if client["client_id"] == world.ClientName(role.Client) && client["token_url"] == view.TokenURL {
				kid, _ := client["kid"].(string)
				view.Signs[role.Client] = world.KID(kid)
			}
		}
	}
	return view, nil
}

// TestWorld explores what may happen around the engine, breadth first, and holds the engine to its promise. WORLD_TIME is for
// how long in each of the scenarios, and WORLD_DEPTH to which depth, instead of a small fixed one.
func TestWorld(t *testing.T) {
	for _, s := range world.Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			limit, err := world.LimitFrom(os.Getenv("WORLD_TIME"), os.Getenv("WORLD_DEPTH"), 4)
			if err != nil {
				t.Fatal(err)
			}
			result, err := world.Explore(s, []world.Engine{&worldEngine{}, &worldEngine{}}, limit)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result)
			for _, c := range result.Counterexamples {
				t.Error(c.Text)
			}
		})
	}
}
