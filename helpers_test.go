// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/compressutil"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/gate"
	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/privatekey"
	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/tokencache"
)

// mount is the engine as one test mounts it: with a local Redox, a clock and a storage of its own. When the test
// ends, everything that the engine said (answers, errors, logs) is searched for secrets.
type mount struct {
	*backend
	t       testing.TB
	redox   *sandbox.Server
	clock   *testClock
	storage *watchedStorage
	system  *logical.StaticSystemView
	log     *lockedBuffer
	scanner *leakcheck.Scanner
	output  *lockedBuffer // what was answered, but for the fields that carry a secret by design
	bus     logical.EventSender
}

// newMount mounts the engine with nothing configured.
func newMount(t testing.TB) *mount {
	t.Helper()
	m := &mount{
		t:       t,
		clock:   newTestClock(),
		storage: &watchedStorage{inner: &logical.InmemStorage{}},
		system:  logical.TestSystemView(),
		log:     &lockedBuffer{},
		scanner: leakcheck.New(),
		output:  &lockedBuffer{},
		bus:     logical.NewMockEventSender(),
	}
	redox, err := sandbox.Start(sandbox.Options{Now: m.clock.wall})
	if err != nil {
		t.Fatal(err)
	}
	m.redox = redox
	m.restart()
	t.Cleanup(func() {
		m.backend.Cleanup(context.Background())
		m.minter.tokens.Wait()
		if err := redox.Close(); err != nil {
			t.Error(err)
		}
		m.searchForSecrets()
	})
	return m
}

// restart replaces the backend by a new one on the same storage, as a restart of the plugin does.
func (m *mount) restart() {
	m.t.Helper()
	if m.backend != nil {
		m.backend.Cleanup(context.Background())
		m.minter.tokens.Wait()
	}
	b, err := newBackend(context.Background(), &logical.BackendConfig{
		Logger:       hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: m.log}),
		System:       m.system,
		StorageView:  m.storage,
		EventsSender: m.bus,
	}, newTestSigner(), m.clock.now)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := b.Initialize(context.Background(), &logical.InitializationRequest{Storage: m.storage}); err != nil {
		m.t.Fatal(err)
	}
	// Tests call tend themselves, so that they decide when the worker works.
	b.maintainer.worker.stop()
	b.maintainer.worker.ended.Wait()
	b.telemetry.sender.stop()
	b.telemetry.sender.ended.Wait()
	b.maintainer.concurrent = 1
	b.minter.share = func() float64 { return 0 }
	start := time.Now()
	b.minter.gates.now = func() tokencache.Instant { return m.clock.now().Add(time.Since(start)) } // who waits there really does
	m.backend = b
}

// newTestSigner makes a signer of its own: in a bubble of testing/synctest nobody outside may be waited for.
func newTestSigner() *signer {
	return &signer{gate: gate.New(gate.Limits{AtOnce: signaturesAtOnce()}, nil)}
}

// newReadyMount is newMount with an ES384 key "main" that the local Redox knows at the API key "client-1", and a
// configuration that names both.
func newReadyMount(t testing.TB) *mount {
	t.Helper()
	m := newMount(t)
	m.write("keys/main", map[string]any{"algorithm": algorithmES384})
	m.register("client-1", "main")
	m.write("config", map[string]any{"client_id": "client-1", "key": "main", "base_url": m.redox.URL})
	return m
}

// register makes the local Redox know a signing key at an API key.
func (m *mount) register(clientID, key string) {
	m.t.Helper()
	jwk, _ := m.read("keys/" + key)["public_jwk"].(string)
	m.redox.CreateAPIKey(sandbox.APIKey{ID: clientID, Name: clientID, JWKSet: json.RawMessage(`{"keys":[` + jwk + `]}`)})
}

// request does one request the way Vault does: with an existence check before a write where the path has one. The
// answer is checked against the path's response schema.
func (m *mount) request(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	return m.requestContext(context.Background(), operation, path, data)
}

func (m *mount) requestContext(ctx context.Context, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	req := &logical.Request{Operation: operation, Path: path, Data: maps.Clone(data), Storage: m.storage, MountPoint: "redox/"}
	if operation == logical.UpdateOperation {
		found, exists, err := m.HandleExistenceCheck(ctx, req)
		if err != nil {
			m.record(nil, err)
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	response, err := m.HandleRequest(ctx, req)
	m.record(response, err)
	if err == nil && !response.IsError() {
		m.checkSchema(req, response)
	}
	return response, err
}

// checkSchema fails the test when an answer is not as the path declares it, and does so strictly.
func (m *mount) checkSchema(req *logical.Request, response *logical.Response) {
	m.t.Helper()
	route := m.Route(req.Path)
	if route == nil {
		m.t.Fatalf("%s is answered, but by no path", req.Path)
	}
	operation := route.Operations[req.Operation]
	if operation == nil {
		m.t.Fatalf("%s %s is answered, but not declared", req.Operation, req.Path)
	}
	responses := operation.Properties().Responses
	switch {
	case response == nil && req.Operation == logical.ReadOperation: // a 404
	case response == nil || len(response.Data) == 0:
		if len(responses[http.StatusNoContent]) == 0 && req.Operation != logical.ListOperation {
			m.t.Errorf("%s %s answered with nothing, which is not declared", req.Operation, req.Path)
		}
	case response.Data[logical.HTTPRawBody] != nil:
		if responses[http.StatusOK][0].MediaType != response.Data[logical.HTTPContentType] {
			m.t.Errorf("%s %s: another media type is declared", req.Operation, req.Path)
		}
	default:
		if len(responses[http.StatusOK]) == 0 {
			m.t.Fatalf("%s %s answered with data, which is not declared", req.Operation, req.Path)
		}
		// The schema helper wants a *testing.T.
		if t, ok := m.t.(*testing.T); ok {
			schema.ValidateResponse(t, &responses[http.StatusOK][0], response, true)
		}
	}
}

// record keeps what was answered for the search for secrets.
func (m *mount) record(response *logical.Response, err error) {
	if err != nil {
		fmt.Fprintf(m.output, "error: %v\n", err)
	}
	if response == nil {
		return
	}
	shown := maps.Clone(response.Data)
	delete(shown, "access_token")
	delete(shown, "client_assertion")
	if body, ok := shown[logical.HTTPRawBody].([]byte); ok {
		shown[logical.HTTPRawBody] = string(body) // %v would show numbers
	}
	fmt.Fprintf(m.output, "%v %v\n", shown, response.Warnings)
	if response.Secret != nil {
		internal := maps.Clone(response.Secret.InternalData)
		fmt.Fprintf(m.output, "internal data: %v\n", internal)
	}
}

// storedPrivateKey reads a private key from the bytes that are stored, as crypto/rsa or crypto/ecdsa has it.
func storedPrivateKey(sealed privatekey.Sealed) (crypto.PrivateKey, error) {
	var der []byte
	if err := json.Unmarshal(must(json.Marshal(sealed)), &der); err != nil {
		return nil, err
	}
	return x509.ParsePKCS8PrivateKey(der)
}

// searchForSecrets looks for every stored private key, and for tokens and assertions, in all the output.
func (m *mount) searchForSecrets() {
	fmt.Fprintln(m.output, m.announced())
	for _, stored := range m.storage.written() {
		if strings.HasPrefix(stored.Key, keysStoragePrefix) {
			k := &signingKey{}
			if json.Unmarshal(stored.Value, k) != nil {
				continue // a test stored something broken on purpose
			}
			for _, v := range k.Versions {
				if key, err := storedPrivateKey(v.PrivateKey); err == nil {
					if err := m.scanner.AddKey(stored.Key, key); err != nil {
						m.t.Error(err)
					}
				}
			}
			continue
		}
		if found := m.scanner.Scan(stored.Value); len(found) > 0 {
			m.t.Errorf("the stored entry %s holds %v", stored.Key, found)
		}
	}
	for name, output := range map[string]*lockedBuffer{"answers": m.output, "log": m.log} {
		if found := m.scanner.Scan(output.bytes()); len(found) > 0 {
			m.t.Errorf("the %s hold %v", name, found)
		}
	}
}

// announced returns the events since it was called last, one a line: type, path, and the other metadata by name.
func (m *mount) announced() string {
	m.t.Helper()
	m.telemetry.sendEvents(context.Background())
	sent, ok := m.bus.(*logical.MockEventSender)
	if !ok {
		return ""
	}
	sent.Lock()
	defer sent.Unlock()
	var lines strings.Builder
	for _, e := range sent.Events {
		metadata := e.Event.Metadata.AsMap()
		fmt.Fprintf(&lines, "%s %s", e.Type, metadata[logical.EventMetadataPath])
		for _, name := range slices.Sorted(maps.Keys(metadata)) {
			if name != logical.EventMetadataPath {
				fmt.Fprintf(&lines, " %s=%v", name, metadata[name])
			}
		}
		lines.WriteByte('\n')
	}
	sent.Events = nil
	return lines.String()
}

// answered returns the data of a response that has to be a success.
func (m *mount) answered(operation logical.Operation, path string, data map[string]any) map[string]any {
	m.t.Helper()
	response, err := m.request(operation, path, data)
	if err != nil {
		m.t.Fatalf("%s %s: %v", operation, path, err)
	}
	if response.IsError() {
		m.t.Fatalf("%s %s: %v", operation, path, response.Error())
	}
	if response == nil {
		return nil
	}
	return response.Data
}

func (m *mount) read(path string) map[string]any {
	m.t.Helper()
	return m.answered(logical.ReadOperation, path, nil)
}

func (m *mount) write(path string, data map[string]any) map[string]any {
	m.t.Helper()
	return m.answered(logical.UpdateOperation, path, data)
}

func (m *mount) remove(path string) {
	m.t.Helper()
	m.answered(logical.DeleteOperation, path, nil)
}

// list returns the names below a path.
func (m *mount) list(path string) []string {
	m.t.Helper()
	names, _ := m.answered(logical.ListOperation, path, nil)["keys"].([]string)
	return names
}

// refused returns the text of a 400. Anything else fails the test, and so does a change of storage, but for what was
// learned about Redox: that may be stored at any time.
func (m *mount) refused(operation logical.Operation, path string, data map[string]any) string {
	m.t.Helper()
	withoutLearned := func() map[string]string {
		stored := m.storage.snapshot()
		maps.DeleteFunc(stored, func(key, _ string) bool { return strings.HasPrefix(key, clientsStoragePrefix) })
		return stored
	}
	before := withoutLearned()
	response, err := m.request(operation, path, data)
	if err != nil {
		m.t.Fatalf("%s %s was to be refused with a 400, but: %v", operation, path, err)
	}
	if !response.IsError() {
		m.t.Fatalf("%s %s was to be refused, but was done", operation, path)
	}
	if !maps.Equal(before, withoutLearned()) {
		m.t.Errorf("%s %s was refused, but storage has changed", operation, path)
	}
	return response.Error().Error()
}

// refusedWith checks that a request is refused with a text that has all the given parts.
func (m *mount) refusedWith(operation logical.Operation, path string, data map[string]any, parts ...string) {
	m.t.Helper()
	text := m.refused(operation, path, data)
	for _, part := range parts {
		if !strings.Contains(text, part) {
			m.t.Errorf("%s %s was refused with %q, which does not say %q", operation, path, text, part)
		}
	}
}

// failed returns the error of a request that has to fail with a Go error, and its HTTP status: 500 where it has none.
func (m *mount) failed(operation logical.Operation, path string, data map[string]any) (status int, err error) {
	m.t.Helper()
	response, err := m.request(operation, path, data)
	if err == nil {
		m.t.Fatalf("%s %s was to fail, but answered %v", operation, path, response)
	}
	if coded, ok := err.(logical.HTTPCodedError); ok { // unwrapped, as Vault looks at it
		return coded.Code(), err
	}
	return http.StatusInternalServerError, err
}

// testClock is a clock that stands still until it is told to move.
type testClock struct {
	mu      sync.Mutex
	instant tokencache.Instant
}

func newTestClock() *testClock {
	return &testClock{instant: tokencache.Instant{Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}
}

func (c *testClock) now() tokencache.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instant
}

func (c *testClock) wall() time.Time { return c.now().Wall }

// setWall sets what a node takes for the time, and leaves the time that has passed since it was started as it is.
func (c *testClock) setWall(wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instant.Wall = wall
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instant = c.instant.Add(d)
}

// lockedBuffer is a buffer for several writers.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buffer.Bytes())
}

func (b *lockedBuffer) String() string { return string(b.bytes()) }

// watchedStorage is storage in memory that counts what is done with it, keeps all that was ever written, and can fail
// or be watched.
type watchedStorage struct {
	inner *logical.InmemStorage

	mu      sync.Mutex
	reads   int // Get and List
	entries []logical.StorageEntry
	// before is asked before each operation ("get", "put", "delete", "list"); its error is the operation's.
	before func(operation, key string) error
	// onChange is told of the key of what was put or deleted; it is set before the storage is used.
	onChange func(key string)
	// carriedOut says that a Put which is to fail is carried out all the same.
	carriedOut bool
}

// carryOut is for a hook: the Put that it is about to fail is carried out, only its answer is lost.
func (s *watchedStorage) carryOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carriedOut = true
}

// onEach makes hook be asked before each operation; nil ends that.
func (s *watchedStorage) onEach(hook func(operation, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = hook
}

func (s *watchedStorage) begin(operation, key string) error {
	s.mu.Lock()
	hook := s.before
	if operation == "get" || operation == "list" {
		s.reads++
	}
	s.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(operation, key)
}

func (s *watchedStorage) readCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// written returns every entry that was ever put.
func (s *watchedStorage) written() []logical.StorageEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := slices.Clone(s.entries)
	for i := range entries {
		entries[i].Value = plain(entries[i].Value)
	}
	return entries
}

// plain returns an entry's value, decompressed if it is compressed.
func plain(value []byte) []byte {
	if text, notCompressed, err := compressutil.Decompress(value); err == nil && !notCompressed {
		return text
	}
	return value
}

// size returns how long an entry is as it is stored.
func (s *watchedStorage) size(key string) int {
	entry, err := s.inner.Get(context.Background(), key)
	if err != nil || entry == nil {
		return 0
	}
	return len(entry.Value)
}

// snapshot returns what is stored now, uncounted.
func (s *watchedStorage) snapshot() map[string]string {
	ctx := context.Background()
	stored := map[string]string{}
	keys, _ := logical.CollectKeys(ctx, s.inner)
	for _, key := range keys {
		if entry, _ := s.inner.Get(ctx, key); entry != nil {
			stored[key] = string(plain(entry.Value))
		}
	}
	return stored
}

// versions reads the versions of a key by their numbers.
func (m *mount) versions(key string) map[string]any {
	m.t.Helper()
	versions, _ := m.read("keys/" + key + "/versions")["versions"].(map[string]any)
	return versions
}

// clients reads what is known of a key's clients.
func (m *mount) clients(key string) []map[string]any {
	m.t.Helper()
	var clients []map[string]any
	shown, _ := m.read("keys/" + key + "/clients")["clients"].([]any)
	for _, client := range shown {
		client, _ := client.(map[string]any)
		clients = append(clients, client)
	}
	return clients
}

// plant stores a raw entry behind the engine's back.
func (m *mount) plant(key, value string) {
	m.t.Helper()
	if err := m.storage.inner.Put(context.Background(), &logical.StorageEntry{Key: key, Value: []byte(value)}); err != nil {
		m.t.Fatal(err)
	}
	m.invalidate(context.Background(), key) // as Vault does when another node has written it
}

func (s *watchedStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.begin("get", key); err != nil {
		return nil, err
	}
	return s.inner.Get(ctx, key)
}

func (s *watchedStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.begin("list", prefix); err != nil {
		return nil, err
	}
	return s.inner.List(ctx, prefix)
}

func (s *watchedStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	s.mu.Lock()
	s.entries = append(s.entries, *entry)
	s.mu.Unlock()
	if err := s.begin("put", entry.Key); err != nil {
		s.mu.Lock()
		carriedOut := s.carriedOut
		s.carriedOut = false
		s.mu.Unlock()
		if carriedOut {
			return errors.Join(err, s.inner.Put(ctx, entry))
		}
		return err
	}
	defer s.tell(entry.Key)
	return s.inner.Put(ctx, entry)
}

func (s *watchedStorage) Delete(ctx context.Context, key string) error {
	if err := s.begin("delete", key); err != nil {
		return err
	}
	defer s.tell(key)
	return s.inner.Delete(ctx, key)
}

func (s *watchedStorage) tell(key string) {
	if s.onChange != nil {
		s.onChange(key)
	}
}

// eachPath calls check for every path of the engine.
func (m *mount) eachPath(check func(*framework.Path)) {
	for _, p := range m.backend.Paths {
		check(p)
	}
}
