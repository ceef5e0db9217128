// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// misplaced is part of every value that must not be repeated: a secret in the wrong place, as far as the engine knows.
const misplaced = "s3cret-in-the-wrong-place"

// wrongTypes are values that are not of a field's type, in the forms that Vault decodes JSON to.
func wrongTypes(kind framework.FieldType) []any {
	deep := any(misplaced)
	for range 1000 {
		deep = map[string]any{"deeper": []any{deep}}
	}
	values := []any{[]any{misplaced}, []any{}, map[string]any{misplaced: misplaced}, map[string]any{}, deep}
	switch kind {
	case framework.TypeString:
		values = append(values, true, false)
	case framework.TypeBool:
		values = append(values, misplaced, "yes", json.Number("2"), json.Number("1e999"), "truefalse")
	case framework.TypeInt:
		values = append(values, misplaced, true, "1.5", json.Number("1.5"), json.Number("1e2"), json.Number("1e999"), "NaN",
			"010", "0x10", "1_0", " 2", "2 ", "+2", "9223372036854775808", json.Number("99999999999999999999"))
	case framework.TypeDurationSecond:
		values = append(values, misplaced, true, "-1", "-1s", json.Number("-1"), "-0.5s", "0.5s", "1.9s", json.Number("1.5"),
			"500ms", "1e2", "1e999", json.Number("1e999"), "NaN", "Inf", "+Inf", "5 s", " 5s", "5x", "s",
			"9223372036854775807", "9223372036854775807s", "9999999999999999d", json.Number("99999999999999999999"))
	}
	return values
}

// concretePath gives a path that the pattern matches, with NAME for each name in it.
func (m *mount) concretePath(p *framework.Path) string {
	m.t.Helper()
	pattern := p.Pattern
	for field := range p.Fields {
		pattern = strings.ReplaceAll(pattern, framework.GenericNameRegex(field), "NAME")
	}
	path := strings.NewReplacer("^", "", "$", "", "/?", "", "(", "", ")?", "").Replace(pattern)
	if m.Route(path) != p {
		m.t.Fatalf("%q is no path of the pattern %s", path, p.Pattern)
	}
	return path
}

// eachOperation calls check for every operation of every path.
func (m *mount) eachOperation(check func(p *framework.Path, operation logical.Operation, path string)) {
	m.Route("") // completes the patterns
	m.eachPath(func(p *framework.Path) {
		for _, operation := range slices.Sorted(maps.Keys(p.Operations)) {
			check(p, operation, m.concretePath(p))
		}
	})
}

func TestWrongTypesAreRefusedAndNotRepeated(t *testing.T) {
	m := newMount(t)
	seen := 0
	m.eachOperation(func(p *framework.Path, operation logical.Operation, path string) {
		for name, field := range p.Fields {
			if isCaptured(p, name) {
				continue
			}
			var first string
			for _, value := range wrongTypes(field.Type) {
				if name == privateKeyField && fmt.Sprintf("%T", value) == "map[string]interface {}" {
					continue // a JWK as an object, which the import looks at
				}
				seen++
				text := m.refused(operation, path, map[string]any{name: value})
				if !strings.HasPrefix(text, name+": ") {
					t.Errorf("%s %s with a wrong %s: %q does not name the field", operation, path, name, text)
				}
				// One text for all values: none is repeated, in whatever form.
				if first == "" {
					first = text
				}
				if text != first {
					t.Errorf("%s %s: %s is refused with %q here and with %q there", operation, path, name, first, text)
				}
				if strings.Contains(text, misplaced) {
					t.Errorf("%s %s repeats a value: %q", operation, path, text)
				}
			}
		}
	})
	if seen == 0 {
		t.Fatal("nothing was tried")
	}
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	m := newMount(t)
	key := "-----BEGIN PRIVATE KEY-----\n" + misplaced
	m.eachOperation(func(p *framework.Path, operation logical.Operation, path string) {
		wayOut := "this path takes no fields"
		for name := range p.Fields {
			if !isCaptured(p, name) && takes(p, operation, name) {
				wayOut = "the fields of this path are "
			}
		}
		m.refusedWith(operation, path, map[string]any{"client_ids": "x"}, "client_ids: unknown field", wayOut)
		m.refusedWith(operation, path, map[string]any{"client_ids": nil}, "client_ids: unknown field", wayOut)
		for _, name := range []string{key, misplaced, "{\"d\":\"" + misplaced, strings.Repeat("a", 42), "Client_ID", ""} {
			text := m.refused(operation, path, map[string]any{name: "x"})
			if strings.Contains(text, misplaced) || name != "" && strings.Contains(text, name) {
				t.Errorf("%s %s repeats a field's name that may be a secret: %q", operation, path, text)
			}
			if !strings.Contains(text, wayOut) || !strings.Contains(text, "field=value") {
				t.Errorf("%s %s: %q does not say what to do", operation, path, text)
			}
		}
	})
	m.refusedWith(logical.UpdateOperation, "roles/a", map[string]any{"clientid": "x"},
		"clientid: unknown field; the fields of this path are client_id, disabled, jku, key, leased, min_ttl, scope")
	// With several faults it is always the same one that is told.
	for range 20 {
		m.refusedWith(logical.UpdateOperation, "config", map[string]any{"b": 1, "c": 1, "a": 1, "key": true}, "a: unknown")
	}
}

// A role given as a field would else be ignored, and the token be another's.
func TestNamesAreTakenFromThePathOnly(t *testing.T) {
	m := newReadyMount(t)
	m.write("roles/team", nil)
	seen := 0
	m.eachOperation(func(p *framework.Path, operation logical.Operation, path string) {
		for name := range p.Fields {
			if !isCaptured(p, name) {
				continue
			}
			seen++
			m.refusedWith(operation, path, map[string]any{name: misplaced}, name+": ", "give it as a part of the path")
		}
	})
	if seen == 0 {
		t.Fatal("nothing was tried")
	}
	m.refusedWith(logical.ReadOperation, "token", map[string]any{"role": "team"}, "role: ", "part of the path")
	m.refusedWith(logical.UpdateOperation, "check", map[string]any{"role": "team"}, "role: ", "part of the path")
}

// Null, as a client sends it for a field that it leaves alone, is never the engine's failure.
func TestNullIsNoFailure(t *testing.T) {
	m := newMount(t)
	m.eachOperation(func(p *framework.Path, operation logical.Operation, path string) {
		for name := range p.Fields {
			if _, err := m.request(operation, path, map[string]any{name: nil}); err != nil {
				t.Errorf("%s %s with %s=null: %v", operation, path, name, err)
			}
		}
	})
}

// What a path does not offer is said as such, whatever came with it.
func TestUnofferedOperations(t *testing.T) {
	m := newReadyMount(t)
	for _, c := range []struct {
		operation logical.Operation
		path      string
	}{
		{logical.PatchOperation, "config"},
		{logical.PatchOperation, "roles/team"},
		{logical.PatchOperation, "keys/main"},
		{logical.PatchOperation, "keys/main/import"},
		{logical.UpdateOperation, "info"},
		{logical.UpdateOperation, "jwks"},
		{logical.DeleteOperation, "token"},
		{logical.ReadOperation, "assertion"},
		{logical.ReadOperation, "check"},
		{logical.ReadOperation, "keys/main/import"},
		{logical.ListOperation, "config"},
	} {
		before := m.storage.snapshot()
		for _, data := range []map[string]any{
			nil, {privateKeyField: map[string]any{"d": misplaced}}, {misplaced: misplaced},
		} {
			_, err := m.failed(c.operation, c.path, data)
			if !errors.Is(err, logical.ErrUnsupportedOperation) || strings.Contains(err.Error(), misplaced) {
				t.Errorf("%s %s failed with %q", c.operation, c.path, err)
			}
		}
		if !maps.Equal(before, m.storage.snapshot()) {
			t.Errorf("%s %s changed the storage", c.operation, c.path)
		}
	}
}
