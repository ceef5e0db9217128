// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"
)

// fuzzed is an engine that is asked with a storage of its own for each input. It is leaner than a mount: it keeps
// nothing of what was said.
type fuzzed struct {
	*backend
	storage *logical.InmemStorage
}

func newFuzzedBackend(f *testing.F) *backend {
	f.Helper()
	b, err := newBackend(context.Background(), &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), System: logical.TestSystemView(), StorageView: &logical.InmemStorage{},
	}, newTestSigner(), newTestClock().now)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { b.Cleanup(context.Background()) })
	return b
}

// ask does a request as Vault does it. A write comes with an existence check.
func (z *fuzzed) ask(t *testing.T, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	t.Helper()
	req := &logical.Request{Operation: operation, Path: path, Data: maps.Clone(data), Storage: z.storage, MountPoint: "redox/"}
	if operation == logical.UpdateOperation {
		found, exists, err := z.HandleExistenceCheck(t.Context(), req)
		if err != nil {
			return nil, err
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	return z.HandleRequest(t.Context(), req)
}

// stored returns all that is in the storage.
func (z *fuzzed) stored(t *testing.T) map[string]string {
	t.Helper()
	stored := map[string]string{}
	for _, key := range must(logical.CollectKeys(t.Context(), z.storage)) {
		if entry := must(z.storage.Get(t.Context(), key)); entry != nil {
			stored[key] = string(entry.Value)
		}
	}
	return stored
}

// fuzzedUpdates reads one JSON object a line, as Vault decodes a body.
func fuzzedUpdates(text string) []map[string]any {
	var all []map[string]any
	for line := range strings.Lines(text) {
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.UseNumber()
		var data map[string]any
		if decoder.Decode(&data) == nil {
			all = append(all, data)
		}
	}
	return all
}

// applyUpdates writes one update after the other. A refused one changes nothing, and its error is fit to be read and
// repeats no value. An accepted one is read back as it was written, and writing what was read changes nothing.
func (z *fuzzed) applyUpdates(t *testing.T, path, text string) {
	t.Helper()
	for _, data := range fuzzedUpdates(text) {
		before := z.stored(t)
		response, err := z.ask(t, logical.UpdateOperation, path, data)
		if err != nil {
			t.Fatalf("%q makes the engine fail: %v", data, err)
		}
		if response.IsError() {
			if !maps.Equal(before, z.stored(t)) {
				t.Errorf("%q was refused, and changed the storage", data)
			}
			checkErrorText(t, response.Error().Error(), data)
			continue
		}
		shown := z.mustRead(t, path)
		for name, value := range data {
			checkShown(t, name, value, shown[name])
		}
		derived := []string{"token_url", "audience", "platform_url"}
		for _, name := range derived { // may be longer than what can be written
			if text, _ := shown[name].(string); len(text) > 512 {
				return
			}
		}
		if response, err := z.ask(t, logical.UpdateOperation, path, shown); err != nil || response.IsError() {
			t.Fatalf("what was read can't be written: %v, %v", err, response)
		}
		if again := z.mustRead(t, path); !maps.Equal(shown, again) {
			t.Errorf("writing what was read changed it from %v to %v", shown, again)
		}
	}
}

func (z *fuzzed) mustRead(t *testing.T, path string) map[string]any {
	t.Helper()
	response, err := z.ask(t, logical.ReadOperation, path, nil)
	if err != nil || response == nil || response.IsError() {
		t.Fatalf("what was accepted can't be read: %v, %v", err, response)
	}
	return response.Data
}

// checkErrorText checks the text of a refusal.
func checkErrorText(t *testing.T, text string, data map[string]any) {
	t.Helper()
	if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("the error is not fit to be read: %q", text)
	}
	for name, value := range data {
		for _, part := range []string{name, fmt.Sprint(value)} {
			// What could be a name is told: "there is no signing key named …".
			if len(part) >= leastTelling && strings.Contains(text, part) && !referencePattern.MatchString(part) {
				t.Errorf("the error %q repeats %q", text, part)
			}
		}
	}
}

// checkShown fails the test unless a field was taken for what was written.
func checkShown(t *testing.T, name string, written, shown any) {
	t.Helper()
	if written == nil || written == "" {
		return // the default
	}
	text := fmt.Sprint(written)
	same := true
	switch shown := shown.(type) {
	case string:
		same = shown == text
	case bool:
		meant, err := strconv.ParseBool(text)
		same = err != nil || meant == shown
	case int:
		if meant, ok := new(big.Int).SetString(text, 10); ok {
			same = meant.IsInt64() && meant.Int64() == int64(shown)
		}
	}
	if !same {
		t.Errorf("%s was written as %q and is shown as %v", name, text, shown)
	}
}

// newFuzzed returns an engine whose storage has one key, "main", for settings that name one.
func newFuzzed(t *testing.T, b *backend) *fuzzed {
	t.Helper()
	z := &fuzzed{b, &logical.InmemStorage{}}
	entry := &logical.StorageEntry{Key: keysStoragePrefix + "main", Value: goldenKey()}
	if err := z.storage.Put(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	return z
}

// goldenKey is the stored entry of a key, made once.
var goldenKey = once(func() ([]byte, error) {
	k := defaultKey()
	k.name = "main"
	v, err := newKeyVersion(brought(outsideEC()), "", false, newTestClock().wall())
	if err != nil {
		return nil, err
	}
	if _, err := k.bring(v, "made by a test"); err != nil {
		return nil, err
	}
	k.setSchemaVersion()
	return json.Marshal(k)
})

func FuzzConfigUpdates(f *testing.F) {
	for _, text := range []string{
		`{"client_id":"client-1","key":"main"}`,
		`{"client_id":"client-1","key":"other"}` + "\n" + `{"key":"main","scope":"a b"}` + "\n" + `{"key":null,"scope":""}`,
		`{"base_url":"https://api.ca.redoxengine.com/","token_url":"https://redox.test/token?a=b","audience":"urn:x"}`,
		`{"assertion_ttl":300,"clock_skew":"0s"}` + "\n" + `{"clock_skew":1}` + "\n" + `{"assertion_ttl":"2m","clock_skew":"1m30s"}`,
		`{"assertion_ttl":36028797018964088}` + "\n" + `{"request_timeout":"1d","min_ttl":"213503982334601d"}`,
		`{"max_retries":"3"}` + "\n" + `{"max_retries":18446744073709551619}` + "\n" +
			`{"max_retries":-0}` + "\n" + `{"max_retries":1e0}`,
		`{"ca_pem":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}` + "\n" +
			`{"jku":"https://vault.test/v1/redox/jwks"}`,
		`{"client_id":"client\u0000","CLIENT_ID":1,"client_id":"a"}` + "\n" + `{"client_id":[1]}` + "\n" + `{"key":{"a":{"b":[]}}}`,
		`{"client_id":"-----BEGIN PRIVATE KEY-----","-----BEGIN PRIVATE KEY-----":true}` + "\n" + `{"key":"../../sys/raw"}`,
	} {
		f.Add(text)
	}
	b := newFuzzedBackend(f)
	f.Fuzz(func(t *testing.T, text string) { newFuzzed(t, b).applyUpdates(t, "config", text) })
}

func FuzzRoleUpdates(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"client_id":"client-2","key":"main","scope":"x:y","jku":"https://vault.test/v1/redox/jwks/main","min_ttl":60}`,
		`{"leased":true}` + "\n" + `{"leased":"false","disabled":1}` + "\n" + `{"leased":"t","disabled":0}` + "\n" + `{"leased":"yes"}`,
		`{"min_ttl":"1h"}` + "\n" + `{"min_ttl":3601}` + "\n" + `{"min_ttl":0}` + "\n" + `{"min_ttl":36028797018964028}`,
		`{"name":"other"}` + "\n" + `{"scope":"\"quoted\""}` + "\n" + `{"scope":" a"}` + "\n" + `{"client_id":"\ud800"}`,
	} {
		f.Add(text)
	}
	b := newFuzzedBackend(f)
	f.Fuzz(func(t *testing.T, text string) { newFuzzed(t, b).applyUpdates(t, "roles/team", text) })
}

// A name that is accepted names one entry, which is found under it, and under no other name.
func FuzzRoleName(f *testing.F) {
	for _, name := range []string{
		"team", "a.b-c_d", "..", "a..b", "../config", "%2e%2e/config", "a/b", "a//b", "", " ", "a ", "a\x00", "a\n", "téam",
		"ｔeam", "\xff", "a.",
		"-a", strings.Repeat("a", 128), strings.Repeat("a", 129), "import", "team/", "roles/team", "+", "*", "a?list=true",
	} {
		f.Add(name)
	}
	b := newFuzzedBackend(f)
	f.Fuzz(func(t *testing.T, name string) {
		z := newFuzzed(t, b)
		before := z.stored(t)
		response, err := z.ask(t, logical.UpdateOperation, "roles/"+name, nil)
		unoffered := errors.Is(err, logical.ErrUnsupportedPath) || errors.Is(err, logical.ErrUnsupportedOperation)
		if unoffered || err == nil && response.IsError() {
			if !maps.Equal(before, z.stored(t)) {
				t.Errorf("%q was refused, and something is stored", name)
			}
			if err == nil {
				checkErrorText(t, response.Error().Error(), map[string]any{name: name})
			}
			return
		}
		if err != nil {
			t.Fatalf("%q makes the engine fail: %v", name, err)
		}
		after := z.stored(t)
		delete(after, "roles/"+name)
		isName := len(name) <= maxNameLength && referencePattern.MatchString(name) && !strings.Contains(name, "..")
		if !maps.Equal(before, after) || !isName {
			t.Errorf("%q is a role's name", name)
		}
		z.mustRead(t, "roles/"+name)
		listed := must(z.ask(t, logical.ListOperation, "roles/", nil)).Data["keys"]
		if fmt.Sprint(listed) != fmt.Sprint([]string{name}) {
			t.Errorf("%q is listed as %v", name, listed)
		}
		if _, err := z.ask(t, logical.DeleteOperation, "roles/"+name, nil); err != nil || !maps.Equal(before, z.stored(t)) {
			t.Errorf("%q can't be deleted: %v", name, err)
		}
	})
}

// A kid that is accepted is what stands in the public JWK and in every assertion, to the byte.
func FuzzKID(f *testing.F) {
	for _, kid := range []string{
		"", "kid", "my key / 1", `"`, `\`, "</script>", "\u2028", "é", " a", "a ", "\x00", "\x7f", "\xff", strings.Repeat("a", 512),
		strings.Repeat("a", 513), "../..", "{}", "%s%n", "\r\nX-Header: a",
	} {
		f.Add(kid)
	}
	b := newFuzzedBackend(f)
	f.Fuzz(func(t *testing.T, kid string) {
		z := &fuzzed{b, &logical.InmemStorage{}}
		response, err := z.ask(t, logical.UpdateOperation, "keys/main", fields{"algorithm": algorithmES384, "kid": kid})
		if err != nil {
			t.Fatalf("%q makes the engine fail: %v", kid, err)
		}
		if response.IsError() {
			if len(z.stored(t)) > 0 {
				t.Errorf("%q was refused, and something is stored", kid)
			}
			checkErrorText(t, response.Error().Error(), map[string]any{"kid": kid})
			return
		}
		shown := fmt.Sprint(response.Data["kid"])
		var public jose.JSONWebKey
		if err := json.Unmarshal([]byte(fmt.Sprint(response.Data["public_jwk"])), &public); err != nil {
			t.Fatal(err)
		}
		if public.KeyID != shown || kid != "" && kid != shown {
			t.Errorf("the kid %q is shown as %q, and in the JWK %q", kid, shown, public.KeyID)
		}
		k := must(z.store.key(t.Context(), "main"))
		claims := assertionClaims{kid: k.Versions[0].KID, now: newTestClock().wall()}
		assertion := must(signAssertion(must(k.Versions[0].PrivateKey.Open()), claims))
		signed, err := jose.ParseSignedCompact(assertion, []jose.SignatureAlgorithm{jose.ES384})
		if err != nil {
			t.Fatalf("others can't read an assertion with the kid %q", kid)
		}
		if _, err := signed.Verify(public); err != nil || signed.Signatures[0].Protected.KeyID != shown {
			t.Errorf("an assertion with the kid %q names another, or is not signed by it", kid)
		}
	})
}
