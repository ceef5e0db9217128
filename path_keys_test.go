// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
)

// publicKey gives the public key of a key's answer, after checking that all that is said of it agrees.
func publicKey(t *testing.T, answer map[string]any) crypto.PublicKey {
	t.Helper()
	var jwk jose.JSONWebKey
	if err := json.Unmarshal([]byte(answer["public_jwk"].(string)), &jwk); err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode([]byte(answer["public_pem"].(string)))
	if block == nil || len(rest) > 0 {
		t.Fatalf("public_pem is not one PEM block: %v", answer["public_pem"])
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(jwk.Key) {
		t.Error("public_jwk and public_pem are different keys")
	}
	if jwk.KeyID != answer["kid"] || jwk.Algorithm != answer["algorithm"] || jwk.Use != "sig" {
		t.Errorf("the JWK says kid %q, algorithm %q, use %q, but the answer %v, %v", jwk.KeyID, jwk.Algorithm, jwk.Use,
			answer["kid"], answer["algorithm"])
	}
	return public
}

// thumbprint is RFC 7638's, from go-jose.
func thumbprint(public crypto.PublicKey) string {
	jwk := jose.JSONWebKey{Key: public}
	return base64.RawURLEncoding.EncodeToString(must(jwk.Thumbprint(crypto.SHA256)))
}

func TestKeyGeneration(t *testing.T) {
	tests := map[string]struct {
		input     map[string]any
		algorithm string
		rsaBits   int
		kid       string // empty: the thumbprint
	}{
		"nothing said": {nil, "RS384", 3072, ""},
		"RS384":        {fields{"algorithm": "RS384"}, "RS384", 3072, ""},
		"RS384 2048":   {fields{"algorithm": "RS384", "rsa_bits": 2048}, "RS384", 2048, ""},
		"RS384 4096":   {fields{"rsa_bits": "4096"}, "RS384", 4096, ""}, // as the CLI sends it
		"ES384":        {fields{"algorithm": "ES384"}, "ES384", 0, ""},
		"own kid":      {fields{"algorithm": "ES384", "kid": "Key 1/2026"}, "ES384", 0, "Key 1/2026"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			answer := m.write("keys/main", test.input)
			public := publicKey(t, answer)
			switch public := public.(type) {
			case *rsa.PublicKey:
				if public.N.BitLen() != test.rsaBits || public.E != 65537 {
					t.Errorf("RSA with %d bits and exponent %d", public.N.BitLen(), public.E)
				}
			case *ecdsa.PublicKey:
				if public.Curve.Params().Name != "P-384" || test.rsaBits != 0 {
					t.Errorf("a key on curve %s", public.Curve.Params().Name)
				}
			}
			kid := test.kid
			if kid == "" {
				kid = thumbprint(public)
			}
			created := m.clock.wall().Format(time.RFC3339)
			want := fields{
				"name": "main", "algorithm": test.algorithm, "kid": kid, "created_time": created, "deletion_allowed": false,
				"public_jwk": answer["public_jwk"], "public_pem": answer["public_pem"],
				"pending_kid": "", "pending_public_jwk": "", "next_step": "", "next_rotation_time": "",
				"registration": "manual", "platform_role": "", "public_jwks_url": "", "retire_grace": 86400,
				"rotation_period": 0, "rotation_schedule": "", "rotation_window": 0,
				"active_version": 1, "retired_versions": []int{}, "blocked_by": []string{},
			}
			versions := fields{"1": fields{
				"state": "active", "algorithm": test.algorithm, "kid": kid, "imported": false, "forced": false, "compromised": false,
				"created_time": created, "activated_time": created, "public_jwk": answer["public_jwk"], "public_pem": answer["public_pem"],
			}}
			if got := m.versions("main"); !reflect.DeepEqual(got, versions) {
				t.Errorf("the versions are %v, want %v", got, versions)
			}
			if !reflect.DeepEqual(answer, want) {
				t.Errorf("answered %v, want %v", answer, want)
			}
			m.clock.advance(time.Hour)
			m.restart()
			if again := m.read("keys/main"); !reflect.DeepEqual(again, want) {
				t.Errorf("read %v, want %v", again, want)
			}
		})
	}
}

func TestEachKeyIsAnother(t *testing.T) {
	m := newMount(t)
	m.write("keys/a", fields{"algorithm": "ES384"})
	m.write("keys/b", fields{"algorithm": "ES384"})
	if m.read("keys/a")["public_jwk"] == m.read("keys/b")["public_jwk"] {
		t.Error("two keys have the same key pair")
	}
	if names := m.list("keys"); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("listed %v", names)
	}
	if data := m.read("keys/c"); data != nil {
		t.Errorf("an unknown key reads as %v", data)
	}
}

func TestKeyGenerationRefusals(t *testing.T) {
	tests := map[string]struct {
		input map[string]any
		want  []string
	}{
		"RS256":         {fields{"algorithm": "RS256"}, []string{"algorithm: ", "give RS384 or ES384"}},
		"another case":  {fields{"algorithm": "rs384"}, []string{"algorithm: ", "give RS384 or ES384"}},
		"none":          {fields{"algorithm": "none"}, []string{"algorithm: ", "give RS384 or ES384"}},
		"1024 bits":     {fields{"rsa_bits": 1024}, []string{"rsa_bits: ", "2048, 3072 or 4096"}},
		"odd bits":      {fields{"rsa_bits": 2049}, []string{"rsa_bits: ", "2048, 3072 or 4096"}},
		"negative bits": {fields{"rsa_bits": -2048}, []string{"rsa_bits: ", "2048, 3072 or 4096"}},
		"many bits":     {fields{"rsa_bits": 1 << 30}, []string{"rsa_bits: ", "2048, 3072 or 4096"}},
		"bits for ES384": {fields{"algorithm": "ES384", "rsa_bits": 3072},
			[]string{"rsa_bits: ", "RS384 keys only", "leave it out"}},
		"bits as words":      {fields{"rsa_bits": "many"}, []string{"rsa_bits: ", "whole number"}},
		"kid with a newline": {fields{"kid": "a\nb"}, []string{"kid: ", "printable ASCII"}},
		"kid not ASCII":      {fields{"kid": "schlüssel"}, []string{"kid: ", "printable ASCII"}},
		"long kid":           {fields{"kid": strings.Repeat("k", 513)}, []string{"kid: ", "512", "shorter"}},
		"deletion_allowed":   {fields{"deletion_allowed": "perhaps"}, []string{"deletion_allowed: ", "true or false"}},
		"unknown field":      {fields{"bits": 2048}, []string{"bits: unknown field", "rsa_bits"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.refusedWith(logical.UpdateOperation, "keys/main", test.input, test.want...)
			if names := m.list("keys"); len(names) != 0 {
				t.Errorf("there are keys: %v", names)
			}
		})
	}
}

// A name that is too long never reaches storage, and is refused as such, not as an internal error of the existence
// check.
func TestKeyNames(t *testing.T) {
	m := newMount(t)
	longest := strings.Repeat("n", 128)
	m.write("keys/"+longest, fields{"algorithm": "ES384"})
	m.write("keys/a.b-c_1", fields{"algorithm": "ES384"})
	m.write("keys/import", fields{"algorithm": "ES384"})
	m.storage.onEach(func(_, key string) error {
		if len(key) > len(keysStoragePrefix)+128 { // as some storage backends do
			return errors.New("the storage key is too long")
		}
		return nil
	})
	for _, operation := range []logical.Operation{logical.UpdateOperation, logical.ReadOperation, logical.DeleteOperation} {
		m.refusedWith(operation, "keys/"+longest+"n", nil, "name: ", "longer than 128 characters", "shorter")
	}
	m.refusedWith(logical.UpdateOperation, "keys/"+longest+"n/import", fields{"private_key": pkcs8Text(outsideEC())},
		"name: ", "longer than 128 characters")
	for _, name := range []string{"a/b", "a b", "-a", "a-", "..", "../config", "a%2fb", "ä"} {
		_, err := m.request(logical.UpdateOperation, "keys/"+name, fields{"algorithm": "ES384"})
		if !errors.Is(err, logical.ErrUnsupportedPath) && !errors.Is(err, logical.ErrUnsupportedOperation) {
			t.Errorf("the name %q was answered with %v", name, err)
		}
	}
	if names := m.list("keys"); !slices.Equal(names, []string{"a.b-c_1", "import", longest}) {
		t.Errorf("there are the keys %v", names)
	}
}

// Writing a key again changes its settings, never its key pair.
func TestKeyRewrite(t *testing.T) {
	tests := map[string]struct {
		created map[string]any
		written map[string]any
		refused []string // empty: it is done
	}{
		"nothing": {fields{"algorithm": "ES384"}, nil, nil},
		"the same RS384": {fields{"rsa_bits": 2048, "kid": "k"},
			fields{"algorithm": "RS384", "rsa_bits": 2048, "kid": "k"}, nil},
		"the same ES384": {fields{"algorithm": "ES384"}, fields{"algorithm": "ES384"}, nil},
		"empty kid":      {fields{"algorithm": "ES384", "kid": "k"}, fields{"kid": ""}, nil},
		"settings":       {fields{"algorithm": "ES384"}, fields{"deletion_allowed": true}, nil},
		"another algorithm": {fields{"algorithm": "ES384"}, fields{"algorithm": "RS384"},
			[]string{"algorithm: ", "is ES384", "keys/main/rotate"}},
		"an unknown algorithm": {fields{"algorithm": "ES384"}, fields{"algorithm": "RS256"},
			[]string{"algorithm: ", "is ES384"}},
		"another size": {fields{"rsa_bits": 2048}, fields{"rsa_bits": 4096},
			[]string{"rsa_bits: ", "another size", "keys/main/rotate"}},
		"the default's size": {fields{"rsa_bits": 2048}, fields{"rsa_bits": 3072},
			[]string{"rsa_bits: ", "another size"}},
		"a size for ES384": {fields{"algorithm": "ES384"}, fields{"rsa_bits": 3072}, []string{"rsa_bits: "}},
		"another kid": {fields{"algorithm": "ES384", "kid": "k"}, fields{"kid": "l"},
			[]string{"kid: ", `"k"`, "keys/main/rotate"}},
		"settings and another kid": {fields{"algorithm": "ES384"}, fields{"kid": "l", "deletion_allowed": true},
			[]string{"kid: "}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			before := m.write("keys/main", test.created)
			m.clock.advance(time.Hour)
			if test.refused != nil {
				m.refusedWith(logical.UpdateOperation, "keys/main", test.written, test.refused...)
			} else {
				m.write("keys/main", test.written)
			}
			want := maps.Clone(before)
			want["deletion_allowed"] = test.refused == nil && test.written["deletion_allowed"] == true
			if after := m.read("keys/main"); !reflect.DeepEqual(after, want) {
				t.Errorf("the key was %v and is %v", before, after)
			}
		})
	}
}

// An update names what it changes; what it does not name stays.
func TestKeyUpdateKeepsSettings(t *testing.T) {
	m := newMount(t)
	m.write("keys/main", fields{"algorithm": "ES384", "deletion_allowed": true})
	m.write("keys/main", nil)
	if m.read("keys/main")["deletion_allowed"] != true {
		t.Error("deletion_allowed was taken back by a write that does not name it")
	}
	m.write("keys/main", fields{"deletion_allowed": false})
	m.refusedWith(logical.DeleteOperation, "keys/main", nil, "deletion_allowed: ")
}

func TestKidIsUniqueInTheMount(t *testing.T) {
	m := newMount(t)
	m.write("keys/a", fields{"algorithm": "ES384", "kid": "k"})
	m.refusedWith(logical.UpdateOperation, "keys/b", fields{"algorithm": "ES384", "kid": "k"},
		"kid: ", `key "a"`, "another kid")
	private := pkcs8Text(outsideEC())
	m.refusedWith(logical.UpdateOperation, "keys/b/import", fields{"private_key": private, "kid": "k"}, "kid: ", `key "a"`)
	m.write("keys/b/import", fields{"private_key": private})
	m.refusedWith(logical.UpdateOperation, "keys/c/import", fields{"private_key": private}, "kid: ", `key "b"`)

	m.write("keys/a", fields{"deletion_allowed": true})
	m.remove("keys/a")
	m.write("keys/c", fields{"algorithm": "ES384", "kid": "k"})
}

func TestKeyDeletion(t *testing.T) {
	m := newMount(t)
	m.remove("keys/never-there")
	m.createEC("main")
	m.createEC("other")
	m.write("config", fields{"client_id": "client-1", "key": "main"})
	m.write("roles/inherits", nil)
	m.write("roles/names-it", fields{"key": "main"})
	m.write("roles/names-another", fields{"key": "other"})

	m.write("keys/main", fields{"deletion_allowed": false})
	m.refusedWith(logical.DeleteOperation, "keys/main", nil,
		"deletion_allowed: ", "protected", "deletion_allowed=true", "keys/main")
	m.write("keys/main", fields{"deletion_allowed": true})
	text := m.refused(logical.DeleteOperation, "keys/main", nil)
	if !strings.Contains(text, "used by config, roles/names-it;") {
		t.Errorf("users are not named exactly: %s", text)
	}
	m.write("config", fields{"key": "other"})
	m.refusedWith(logical.DeleteOperation, "keys/main", nil, "used by roles/names-it;", "another key")
	m.remove("roles/names-it")
	m.remove("keys/main")

	if data := m.read("keys/main"); data != nil {
		t.Errorf("the deleted key reads as %v", data)
	}
	if names := m.list("keys"); !slices.Equal(names, []string{"other"}) {
		t.Errorf("listed %v", names)
	}
	m.refusedWith(logical.UpdateOperation, "config", fields{"key": "main"}, "key: ", "keys/main")
}

func TestKeyUsedByManyRoles(t *testing.T) {
	m := newMount(t)
	m.createEC("main")
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		m.write("roles/"+name, fields{"key": "main"})
	}
	m.refusedWith(logical.DeleteOperation, "keys/main", nil, "roles/a, roles/b, roles/c, roles/d, roles/e and 2 more")
}

// All who create a key at the same moment get the same one.
func TestKeyCreatedByManyAtOnce(t *testing.T) {
	const callers = 8
	m := newMount(t)
	var arrived sync.WaitGroup
	arrived.Add(callers)
	var looked sync.Mutex
	looks := 0
	m.storage.onEach(func(operation, key string) error {
		if operation != "get" || key != "keys/main" {
			return nil
		}
		looked.Lock()
		looks++
		first := looks <= callers
		looked.Unlock()
		if first { // nobody goes on before all have seen that there is no key
			arrived.Done()
			arrived.Wait()
		}
		return nil
	})
	answers := make([]any, callers)
	var done sync.WaitGroup
	for i := range callers {
		done.Go(func() {
			response, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.CreateOperation,
				Path: "keys/main", Data: fields{"algorithm": "ES384"}, Storage: m.storage})
			if err != nil || response.IsError() {
				t.Errorf("%v %v", response, err)
				return
			}
			answers[i] = response.Data["public_jwk"]
		})
	}
	done.Wait()
	m.storage.onEach(nil)
	stored := m.read("keys/main")
	for _, answer := range answers {
		if answer != stored["public_jwk"] {
			t.Errorf("somebody got %v, but stored is %v", answer, stored["public_jwk"])
		}
	}
	if versions := m.versions("main"); len(versions) != 1 {
		t.Errorf("there are several key pairs: %v", versions)
	}
}

// A key that goes away between the look and the lock is not made anew by a write that meant to change it.
func TestKeyDeletedWhileItIsWritten(t *testing.T) {
	m := newMount(t)
	m.createEC("main")
	m.storage.onEach(func(operation, key string) error {
		if operation == "get" && key == "keys/main" {
			m.storage.onEach(nil)
			entry := must(m.storage.inner.Get(context.Background(), key))
			m.remove("keys/main")
			m.during("get", "keys/main", func() { must(0, m.storage.inner.Delete(context.Background(), key)) })
			return m.storage.inner.Put(context.Background(), entry)
		}
		return nil
	})
	response, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.UpdateOperation,
		Path: "keys/main", Data: fields{"deletion_allowed": false}, Storage: m.storage})
	if err != nil || !response.IsError() || !strings.Contains(response.Error().Error(), "once more") {
		t.Errorf("answered %v, %v", response, err)
	}
	if names := m.list("keys"); len(names) != 0 {
		t.Errorf("there are keys: %v", names)
	}
}

// Storage's errors go back as they are, and nothing is told of a key that may not be stored.
func TestKeysWithFailingStorage(t *testing.T) {
	broken := errors.New("storage is down")
	tests := map[string]struct {
		operation logical.Operation
		path      string
		data      map[string]any
		failing   []string
	}{
		"create": {logical.UpdateOperation, "keys/new", fields{"algorithm": "ES384"},
			[]string{"get", "list", "put"}},
		"change": {logical.UpdateOperation, "keys/main", fields{"deletion_allowed": true}, []string{"get", "put"}},
		"read":   {logical.ReadOperation, "keys/main", nil, []string{"get"}},
		"list":   {logical.ListOperation, "keys", nil, []string{"list"}},
		"delete": {logical.DeleteOperation, "keys/main", nil, []string{"get", "list", "delete"}},
		"import": {logical.UpdateOperation, "keys/new/import", fields{"private_key": pkcs8Text(outsideEC())},
			[]string{"get", "list", "put"}},
		"read-only":  {logical.UpdateOperation, "keys/main", fields{"deletion_allowed": true}, []string{"put"}},
		"assertions": {logical.UpdateOperation, "assertion", nil, []string{"get"}},
	}
	for name, test := range tests {
		for _, failing := range test.failing {
			t.Run(name+" fails to "+failing, func(t *testing.T) {
				m := newMount(t)
				m.createEC("main")
				want := broken
				if name == "read-only" {
					want = logical.ErrReadOnly // Vault forwards it, if it is this very value
				}
				m.storage.onEach(func(operation, _ string) error {
					if operation == failing {
						return want
					}
					return nil
				})
				before := m.storage.snapshot()
				if _, err := m.failed(test.operation, test.path, test.data); err != want {
					t.Errorf("storage's error became %v", err)
				}
				if !maps.Equal(before, m.storage.snapshot()) {
					t.Error("storage has changed")
				}
			})
		}
	}
}

// An entry that this version can't read is neither overwritten nor deleted, and the error says what to do.
func TestUnusableKeyIsLeftAlone(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"unreadable":                {"{", "restore it from a snapshot"},
		"newer":                     {`{"schema_version": 99}`, "written by a newer version"},
		"newer and of another form": {`{"versions": {"1": {}}, "schema_version": 99}`, "written by a newer version"},
		"no version":                {`{"schema_version": 1, "deletion_allowed": false}`, "restore it from a snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.plant("keys/main", test.entry)
			for _, request := range []struct {
				operation logical.Operation
				path      string
				data      map[string]any
			}{
				{logical.ReadOperation, "keys/main", nil},
				{logical.UpdateOperation, "keys/main", fields{"algorithm": "ES384"}},
			} {
				status, err := m.failed(request.operation, request.path, request.data)
				text := err.Error()
				if status != 500 || !strings.Contains(text, `"keys/main"`) || !strings.Contains(text, test.want) {
					t.Errorf("%s: %d: %s", request.operation, status, text)
				}
			}
			if m.storage.snapshot()["keys/main"] != test.entry {
				t.Error("the entry was changed")
			}
			// The existence check must not be what fails: Vault hides its errors.
			_, exists, err := m.HandleExistenceCheck(context.Background(), &logical.Request{
				Operation: logical.UpdateOperation, Path: "keys/main", Storage: m.storage})
			if !exists || err != nil {
				t.Errorf("the existence check says %v, %v", exists, err)
			}
		})
	}
}
