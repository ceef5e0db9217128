// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/testkeys"
)

func TestImport(t *testing.T) {
	tests := testkeys.Importable()
	for _, bits := range []int{3072, 4096} {
		key := must(rsa.GenerateKey(rand.Reader, bits))
		tests = append(tests, testkeys.Case{Name: "RSA " + big.NewInt(int64(bits)).String(), Input: pkcs8Text(key), Key: key})
	}
	for _, test := range tests {
		t.Run(test.Name, func(t *testing.T) {
			m := newMount(t)
			response, err := m.request(logical.UpdateOperation, "keys/main/import", fields{"private_key": test.Input})
			if err != nil || response.IsError() {
				t.Fatalf("%v %v", response, err)
			}
			if warnings := strings.Join(response.Warnings, "\n"); !strings.Contains(warnings, "lived outside Vault") {
				t.Errorf("the answer does not warn of copies: %q", warnings)
			}
			public := publicKey(t, response.Data)
			if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(test.Key.Public()) {
				t.Error("another key was imported")
			}
			kid := test.KID
			if kid == "" {
				kid = thumbprint(test.Key.Public())
			}
			if response.Data["kid"] != kid || response.Data["deletion_allowed"] != false {
				t.Errorf("answered %v, want kid %s", response.Data, kid)
			}
			first := m.versions("main")["1"].(map[string]any)
			if first["imported"] != true || first["state"] != "active" {
				t.Errorf("the version is %v", first)
			}
			if read := m.read("keys/main"); !reflect.DeepEqual(read, response.Data) {
				t.Errorf("read %v, want %v", read, response.Data)
			}

			m.restart()
			m.write("config", fields{"client_id": "client-1", "key": "main"})
			assertion := m.write("assertion", nil)["client_assertion"].(string)
			header, _ := verified(t, assertion, jose.JSONWebKey{Key: test.Key.Public()})
			if header["kid"] != kid {
				t.Errorf("signed with kid %v, want %s", header["kid"], kid)
			}
		})
	}
}

func TestImportSettings(t *testing.T) {
	m := newMount(t)
	jwk := changed(jwkMembers(outsideEC()), fields{"kid": "of the JWK"})
	answer := m.write("keys/main/import", fields{"private_key": jwk, "kid": "of the request", "deletion_allowed": true})
	if answer["kid"] != "of the request" || answer["deletion_allowed"] != true {
		t.Errorf("answered %v", answer)
	}
	m.remove("keys/main")
	if answer := m.write("keys/main/import", fields{"private_key": jwk, "kid": ""}); answer["kid"] != "of the JWK" {
		t.Errorf("answered %v", answer)
	}
}

// An import never replaces a key: it adds a pending version, and only one.
func TestImportOntoAnExistingKey(t *testing.T) {
	m := newMount(t)
	m.createEC("main")
	before := m.read("keys/main")
	answer := m.write("keys/main/import", fields{"private_key": pkcs8Text(outsideEC()), "kid": "imported"})
	if answer["kid"] != before["kid"] || answer["pending_kid"] != "imported" {
		t.Errorf("active is %v, pending %v", answer["kid"], answer["pending_kid"])
	}
	again := fields{"private_key": pkcs8Text(outsideEC()), "kid": "again"}
	m.refusedWith(logical.UpdateOperation, "keys/main/import", again, "name: ", "pending version", "activate", "abandon")
}

// refusedByEndpoint are inputs that don't get as far as internal/privatekey, or are refused with other words there.
func refusedByEndpoint() []testkeys.Case {
	ecKey := outsideEC()
	return []testkeys.Case{
		{Name: "empty", Input: "", Want: "missing or empty, and so is ciphertext; give one unencrypted private key"},
		{Name: "null", Input: nil, Want: "neither a string nor a JSON object; give one unencrypted private key"},
		{Name: "a list of keys", Input: []any{jwkMembers(ecKey)}, Key: ecKey, Want: "neither a string nor a JSON object"},
		{Name: "a list of texts", Input: []string{pkcs8Text(ecKey)}, Key: ecKey, Want: "neither a string nor a JSON object"},
		{Name: "a number", Input: json.Number("12345"), Want: "neither a string nor a JSON object"},
		{Name: "true", Input: true, Want: "neither a string nor a JSON object"},
	}
}

// Each refusal names the field and the reason, leaves storage as it was, and repeats nothing of the key.
func TestImportRefusals(t *testing.T) {
	for _, test := range slices.Concat(testkeys.Refusable(), refusedByEndpoint()) {
		t.Run(test.Name, func(t *testing.T) {
			m := newMount(t)
			if test.Key != nil {
				if err := m.scanner.AddKey("refused", test.Key); err != nil {
					t.Fatal(err)
				}
			}
			m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{"private_key": test.Input},
				"private_key: ", "; ", test.Want)
			if answers := m.output.String() + m.log.String(); len(answers) > 400 {
				t.Errorf("the refusal is so long that it may repeat the input: %.500s", answers)
			}
		})
	}
}

func TestImportRefusesOtherFields(t *testing.T) {
	text, members := pkcs8Text(outsideEC()), jwkMembers(outsideEC())
	for name, test := range map[string]struct {
		input fields
		want  []string
	}{
		"nothing":        {nil, []string{"private_key: it is missing or empty, and so is ciphertext; give one"}},
		"kid":            {fields{"private_key": text, "kid": "a\nb"}, []string{"kid: ", "printable ASCII"}},
		"kid of the JWK": {fields{"private_key": changed(members, fields{"kid": "a\nb"})}, []string{"kid: ", "printable ASCII"}},
		"long kid":       {fields{"private_key": text, "kid": strings.Repeat("k", 513)}, []string{"kid: ", "512"}},
		"field of keys/main": {fields{"private_key": text, "algorithm": "ES384"},
			[]string{"algorithm: unknown field", "ciphertext, deletion_allowed, hash_function, kid, private_key"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			if err := m.scanner.AddKey("refused", outsideEC()); err != nil {
				t.Fatal(err)
			}
			m.refusedWith(logical.UpdateOperation, "keys/main/import", test.input, test.want...)
		})
	}
}

// A key that ends up where it does not belong is refused without a word of it, whichever endpoint it went to.
func TestPrivateKeyInTheWrongPlace(t *testing.T) {
	text, members := pkcs8Text(outsideEC()), jwkMembers(outsideEC())
	jwk := string(must(json.Marshal(members)))
	requests := []struct {
		operation logical.Operation
		path      string
	}{
		{logical.UpdateOperation, "keys/new"},
		{logical.UpdateOperation, "keys/main"},
		{logical.UpdateOperation, "config"},
		{logical.UpdateOperation, "roles/new"},
		{logical.UpdateOperation, "token"},
		{logical.UpdateOperation, "assertion"},
		{logical.UpdateOperation, "check"},
		{logical.ReadOperation, "keys/main"},
		{logical.ReadOperation, "jwks"},
		{logical.ReadOperation, "token"},
		{logical.ReadOperation, "info"},
		{logical.ListOperation, "keys"},
		{logical.DeleteOperation, "keys/main"},
	}
	for _, request := range requests {
		t.Run(string(request.operation)+" "+request.path, func(t *testing.T) {
			m := newReadyMount(t)
			if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
				t.Fatal(err)
			}
			for _, value := range []any{text, jwk, members, []any{members}, true} {
				m.refusedWith(request.operation, request.path, fields{"private_key": value},
					"private_key: unknown field")
			}
			// As a field's name: the CLI splits its arguments at the first "=".
			for _, data := range []fields{{text: ""}, {jwk: "="}, {"d" + members["d"].(string): ""}} {
				m.refusedWith(request.operation, request.path, data, "unknown, and its name is not repeated", "field=value")
			}
		})
	}

	// As the value of another field.
	m := newReadyMount(t)
	if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
		t.Fatal(err)
	}
	for path, names := range map[string][]string{
		"keys/main":       {"algorithm", "rsa_bits", "kid", "deletion_allowed"},
		"keys/new":        {"algorithm", "rsa_bits", "kid", "deletion_allowed"},
		"keys/new/import": {"kid", "deletion_allowed", "ciphertext", "hash_function"},
		"config":          {"client_id", "key", "scope", "base_url", "audience", "jku", "ca_pem", "assertion_ttl", "max_retries"},
		"roles/new":       {"client_id", "key", "scope", "jku", "min_ttl", "leased"},
	} {
		for _, field := range names {
			for _, value := range []any{text, members, []any{members}} {
				data := fields{field: value}
				if path == "keys/new/import" {
					data["private_key"] = text
				}
				m.refusedWith(logical.UpdateOperation, path, data, field+": ")
			}
		}
	}
	for _, data := range []fields{{text: ""}, {jwk: "="}} {
		m.refusedWith(logical.UpdateOperation, "keys/new/import", data, "unknown, and its name is not repeated")
	}
}

// Vault asks for existence before it looks at policies, and logs the error: it must not be the framework's, which
// quotes values.
func TestExistenceCheckIgnoresTheInput(t *testing.T) {
	m := newReadyMount(t)
	if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"config", "keys/main", "keys/new", "keys/new/import", "roles/new"} {
		for _, value := range []any{jwkMembers(outsideEC()), []any{jwkMembers(outsideEC())}} {
			_, _, err := m.HandleExistenceCheck(context.Background(), &logical.Request{
				Operation: logical.UpdateOperation, Path: path, Storage: m.storage,
				Data: fields{"private_key": value, "kid": value, "client_id": value}})
			if err != nil {
				m.record(nil, err)
				t.Errorf("the existence check of %s looked at the input", path)
			}
		}
	}
}

// TestImportAsFields: "import @key.json" without "private_key=" sends the members of the JWK as fields.
func TestImportAsFields(t *testing.T) {
	m := newMount(t)
	for _, members := range []map[string]any{testkeys.JWK(testkeys.EC()), {"keys": []any{testkeys.JWK(testkeys.RSA())}}} {
		m.refusedWith(logical.UpdateOperation, "keys/main/import", members, "private_key: the members of a JWK were given as fields", "private_key=@key.json", "audit log")
	}
}

// TestImportTellsOfItsKID: a kid that the engine made up is announced, one that was brought is not; a set is chosen from.
func TestImportTellsOfItsKID(t *testing.T) {
	named := testkeys.Changed(testkeys.JWK(testkeys.EC()), map[string]any{"kid": "one"})
	other := testkeys.Changed(testkeys.JWK(testkeys.OtherEC()), map[string]any{"kid": "two"})
	set := map[string]any{"keys": []any{named, other}}
	for name, c := range map[string]struct {
		data fields
		kid  string
		tell bool
	}{
		"pem":              {fields{"private_key": pkcs8Text(testkeys.EC())}, thumbprint(testkeys.EC().Public()), true},
		"pem-named":        {fields{"private_key": pkcs8Text(testkeys.EC()), "kid": "mine"}, "mine", false},
		"jwk":              {fields{"private_key": named}, "one", false},
		"jwk-renamed":      {fields{"private_key": named, "kid": "mine"}, "mine", false},
		"jwk-without":      {fields{"private_key": testkeys.JWK(testkeys.EC())}, thumbprint(testkeys.EC().Public()), true},
		"chosen-of-a-set":  {fields{"private_key": set, "kid": "two"}, "two", false},
		"set-of-one-named": {fields{"private_key": map[string]any{"keys": []any{named}}, "kid": "mine"}, "mine", false},
	} {
		m := newMount(t)
		response, err := m.request(logical.UpdateOperation, "keys/"+name+"/import", c.data)
		if err != nil || response.IsError() || response.Data["kid"] != c.kid {
			t.Errorf("%s: %v, %v", name, response, err)
			continue
		}
		if told := strings.Contains(strings.Join(response.Warnings, "\n"), "the engine made up"); told != c.tell {
			t.Errorf("%s: the warnings are %q", name, response.Warnings)
		}
	}
	m := newMount(t)
	m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{"private_key": set}, `whose kids are "one", "two"`, "kid=KID")
	cyrillic := testkeys.Changed(testkeys.JWK(testkeys.EC()), map[string]any{"kid": "ключ"})
	m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{"private_key": cyrillic}, "kid: ", "kid=")
}
