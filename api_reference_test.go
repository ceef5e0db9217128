// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/marks"
	"vault-plugin-secrets-redox/internal/sandbox"
)

const apiReference = "docs/api.md"

// sample is an operation's example in docs/api.md. What it answers there is what it answers here.
type sample struct {
	operation string // as the page marks it
	path      string
	data      map[string]any
	arguments string // of the vault command, where they are not the data
	before    func(*mount)
}

// samples are in the order of the page, and are run in that order.
var samples = []sample{
	{operation: "POST config", path: "config", data: map[string]any{"client_id": "my-client-id", "key": "main"},
		before: func(m *mount) {
			m.write("keys/main", map[string]any{"algorithm": algorithmES384, "kid": "main-2026"})
			m.register("my-client-id", "main")
			m.register("team-a-client-id", "main")
			m.write("config", map[string]any{"base_url": m.redox.URL})
		}},
	{operation: "GET config", path: "config"},
	{operation: "DELETE config", path: "config"},
	{operation: "POST keys/:name", path: "keys/main", data: map[string]any{"algorithm": algorithmES384, "kid": "main-2026"},
		before: func(m *mount) {
			m.write("config", map[string]any{"client_id": "my-client-id", "key": "main", "base_url": m.redox.URL})
		}},
	{operation: "GET keys/:name", path: "keys/main", before: func(m *mount) { m.read("token") }},
	{operation: "LIST keys", path: "keys"},
	{operation: "DELETE keys/:name", path: "keys/old", before: func(m *mount) {
		m.write("keys/old", map[string]any{"algorithm": algorithmES384, "deletion_allowed": true})
	}},
	{operation: "POST keys/:name/import", path: "keys/imported", arguments: "private_key=@key.pem kid=dashboard-key",
		data: map[string]any{privateKeyField: "PEM", "kid": "dashboard-key"}},
	{operation: "POST keys/:name/rotate", path: "keys/main", data: map[string]any{"kid": "main-2027"}},
	{operation: "GET keys/:name/clients", path: "keys/main"},
	{operation: "LIST keys/:name/clients", path: "keys/main"},
	{operation: "GET keys/:name/versions", path: "keys/main"},
	{operation: "LIST keys/:name/versions", path: "keys/main"},
	{operation: "POST keys/:name/activate", path: "keys/main", before: func(m *mount) { m.registerPending("my-client-id", "main") }},
	{operation: "POST keys/:name/retire", path: "keys/main", data: map[string]any{"version": 1}},
	{operation: "POST keys/:name/abandon", path: "keys/main", before: func(m *mount) {
		m.write("keys/main/rotate", map[string]any{"kid": "main-2028"})
	}},
	{operation: "POST keys/:name/register", path: "keys/main", before: func(m *mount) {
		m.write("keys/manager", map[string]any{"algorithm": algorithmES384})
		jwk, _ := m.read("keys/manager")["public_jwk"].(string)
		m.redox.CreateAPIKey(sandbox.APIKey{ID: "manager", Management: true, JWKSet: json.RawMessage(`{"keys":[` + jwk + `]}`)})
		m.write("roles/manager", map[string]any{"client_id": "manager", "key": "manager"})
		m.write("keys/main", map[string]any{"registration": registrationPlatform, "platform_role": "manager"})
	}},
	{operation: "POST roles/:name", path: "roles/team-a", data: map[string]any{"client_id": "team-a-client-id"},
		before: func(m *mount) {
			m.write("keys/main", map[string]any{"registration": "", "platform_role": ""})
			m.remove("roles/manager")
		}},
	{operation: "GET roles/:name", path: "roles/team-a"},
	{operation: "LIST roles", path: "roles"},
	{operation: "DELETE roles/:name", path: "roles/team-a"},
	{operation: "GET token/:role", path: "token/team-a", before: func(m *mount) {
		m.write("roles/team-a", map[string]any{"client_id": "team-a-client-id"})
		m.register("team-a-client-id", "main")
	}},
	{operation: "POST token/:role", path: "token/team-a"},
	{operation: "POST assertion/:role", path: "assertion/team-a"},
	{operation: "POST check/:role", path: "check/team-a", before: func(m *mount) {
		m.clock.advance(300 * time.Millisecond) // Redox tells its time in whole seconds, which would be taken for an offset
	}},
	{operation: "GET jwks/:key", path: "jwks/main"},
	{operation: "GET wrapping_key", path: "wrapping_key"},
	{operation: "POST wrapping_key/rotate", path: "wrapping_key/rotate"},
	{operation: "DELETE wrapping_key", path: "wrapping_key"},
	{operation: "GET metrics", path: "metrics"},
	{operation: "GET info", path: "info"},
}

// registerPending makes the local Redox know a key's pending version, too.
func (m *mount) registerPending(clientID, key string) {
	m.t.Helper()
	shown := m.read("keys/" + key)
	set := fmt.Sprintf(`{"keys":[%s,%s]}`, shown["public_jwk"], shown["pending_public_jwk"])
	if err := m.redox.SetJWKSet(clientID, json.RawMessage(set)); err != nil {
		m.t.Fatal(err)
	}
}

// TestAPIReference compares docs/api.md with the code: what stands between the page's marks is made from the fields of
// the paths and from the answers to the samples.
func TestAPIReference(t *testing.T) {
	text, err := os.ReadFile(apiReference)
	if err != nil {
		t.Fatal(err)
	}
	m := newMount(t)
	operations := m.documentedOperations()
	blocks, shown := map[string]string{}, map[string]string{}
	var order []string
	for _, s := range samples {
		o := operations[s.operation]
		if o == nil {
			t.Fatalf("there is a sample of %s, which is no operation", s.operation)
		}
		order = append(order, s.operation)
		answer := o.answerTable()
		earlier, again := shown[answer]
		if again = again && len(o.answer.Fields) > 1; again {
			answer = fmt.Sprintf("\nThe answer is that of `%s`, above.\n", earlier)
		} else {
			shown[answer] = s.operation
		}
		blocks[s.operation] = o.tables() + answer + m.run(o, s, again)
	}
	for name := range operations {
		if blocks[name] == "" {
			t.Errorf("%s has no sample: add one to the list in this test, and its two marks to %s", name, apiReference)
		}
	}
	var marked []string
	for _, found := range regexp.MustCompile(`(?m)^<!-- begin: ([A-Z]+ [^ ]+), `).FindAllStringSubmatch(string(text), -1) {
		marked = append(marked, found[1])
		marks.Hold(t, apiReference, found[1], "\n"+blocks[found[1]]+"\n", *updateGolden)
	}
	if !slices.Equal(marked, order) {
		t.Errorf("%s has the operations\n%q\nthe list in this test has\n%q", apiReference, marked, order)
	}
}

// documented is an operation as the page has it: POST stands for create and for update.
type documented struct {
	method     string
	paths      []string // without and with what is optional
	capability string
	inPath     []string // fields
	inBody     []string
	inQuery    []string
	fields     map[string]*framework.FieldSchema
	answer     framework.Response
	operation  logical.Operation
}

func (m *mount) documentedOperations() map[string]*documented {
	methods := map[logical.Operation]string{
		logical.ReadOperation: "GET", logical.ListOperation: "LIST", logical.DeleteOperation: "DELETE",
		logical.CreateOperation: "POST", logical.UpdateOperation: "POST",
	}
	open := m.SpecialPaths().Unauthenticated
	operations := map[string]*documented{}
	m.eachOperation(func(p *framework.Path, operation logical.Operation, _ string) {
		o := &documented{method: methods[operation], fields: p.Fields, operation: operation, paths: documentedPaths(p)}
		if o.method == "" {
			m.t.Fatalf("%s %s has no method", operation, p.Pattern)
		}
		o.capability = "`" + string(operation) + "`"
		switch {
		case slices.Contains(open, o.paths[0]):
			o.capability = "none, not even a token"
		case p.Operations[logical.CreateOperation] != nil && o.method == "POST":
			o.capability = "`create`, or `update` where it exists"
		}
		for _, name := range slices.Sorted(maps.Keys(p.Fields)) {
			switch {
			case isCaptured(p, name):
				o.inPath = append(o.inPath, name)
			case !takes(p, operation, name):
			case o.method == "POST":
				o.inBody = append(o.inBody, name)
			case p.Fields[name].Query:
				o.inQuery = append(o.inQuery, name)
			}
		}
		for _, responses := range p.Operations[operation].Properties().Responses {
			o.answer = responses[0]
		}
		operations[o.method+" "+o.paths[len(o.paths)-1]] = o
	})
	return operations
}

// documentedPaths gives the forms of a path, with its parameters written as :name.
func documentedPaths(p *framework.Path) []string {
	pattern := strings.Trim(p.Pattern, "^$")
	for field := range p.Fields {
		pattern = strings.ReplaceAll(pattern, framework.GenericNameRegex(field), ":"+field)
	}
	short, optional, hasOptional := strings.Cut(strings.TrimSuffix(pattern, "/?"), "(")
	if !hasOptional {
		return []string{short}
	}
	return []string{short, short + strings.TrimSuffix(optional, ")?")}
}

// tables give an operation's paths and parameters.
func (o *documented) tables() string {
	var page strings.Builder
	page.WriteString("| Method | Path | Capability |\n|---|---|---|\n")
	for _, path := range o.paths {
		fmt.Fprintf(&page, "| `%s` | `/redox/%s` | %s |\n", o.method, path, o.capability)
	}
	if len(o.inPath)+len(o.inBody)+len(o.inQuery) > 0 {
		page.WriteString("\n| Parameter | Type | Default | Description |\n|---|---|---|---|\n")
		for _, name := range o.inPath {
			fmt.Fprintf(&page, "| `%s` | %s, in the path | | %s |\n", name, typeWords[o.fields[name].Type], o.fields[name].Description)
		}
		for place, names := range map[string][]string{"": o.inBody, ", in the query": o.inQuery} { // one of them is empty
			for _, name := range names {
				description, value := withoutDefault(o.fields[name])
				fmt.Fprintf(&page, "| `%s` | %s%s |%s | %s |\n", name, typeWords[o.fields[name].Type], place, value, description)
			}
		}
	}
	return page.String()
}

// answerTable gives the fields of an answer, where it has some.
func (o *documented) answerTable() string {
	if len(o.answer.Fields) == 0 {
		return ""
	}
	var page strings.Builder
	page.WriteString("\n| Answer | Type | Description |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(o.answer.Fields)) {
		field := o.answer.Fields[name]
		description := field.Description
		if !field.Required {
			description += " Not always there."
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s |\n", name, typeWords[field.Type], description)
	}
	return page.String()
}

var typeWords = map[framework.FieldType]string{
	framework.TypeString:         "string",
	framework.TypeBool:           "boolean",
	framework.TypeInt:            "integer",
	framework.TypeInt64:          "integer",
	framework.TypeDurationSecond: "duration",
	framework.TypeTime:           "time (RFC 3339)",
	framework.TypeStringSlice:    "list of strings",
	framework.TypeSlice:          "list of objects",
	framework.TypeCommaIntSlice:  "list of integers",
	framework.TypeMap:            "object",
}

// withoutDefault gives a description and, for a column of its own, the default that it names.
func withoutDefault(field *framework.FieldSchema) (description, value string) {
	switch {
	case field.Default != nil:
		value = fmt.Sprint(field.Default)
	case field.Type == framework.TypeBool:
		value = "false"
	default:
		return field.Description, ""
	}
	return strings.Replace(field.Description, " Default: "+value+".", "", 1), " `" + value + "`"
}

// run carries a sample out, and returns it as the page shows it; its answer only when the page has not had one of that kind.
func (m *mount) run(o *documented, s sample, again bool) string {
	m.t.Helper()
	m.clock.advance(time.Hour) // so that the times on the page differ
	if s.before != nil {
		s.before(m)
	}
	path := s.path
	if verb := strings.LastIndex(s.operation, ":name/"); verb >= 0 {
		path += s.operation[verb+len(":name"):]
	}
	data := maps.Clone(s.data)
	if data[privateKeyField] != nil {
		key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
		data[privateKeyField] = pemText("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
	}
	response, err := m.request(o.operation, path, data)
	if err != nil || response.IsError() {
		m.t.Fatalf("the sample of %s: %v, %v", s.operation, response, err)
	}
	var page strings.Builder
	fmt.Fprintf(&page, "\n```sh\nvault %s\n```\n\nOver HTTP: `%s /v1/redox/%s`", s.command(o, path), o.method, path)
	if len(s.data) > 0 {
		fmt.Fprintf(&page, ", with the payload\n\n~~~json\n%s~~~\n", m.shown(s.data))
	} else {
		page.WriteString(".\n")
	}
	if response == nil {
		page.WriteString("\nThe answer has no content (204).\n")
		return page.String()
	}
	body, isRaw := response.Data[logical.HTTPRawBody].([]byte)
	switch {
	case again: // each object is shown once
	case !isRaw:
		answer := map[string]any{"data": response.Data}
		if len(response.Warnings) > 0 {
			answer["warnings"] = response.Warnings
		}
		fmt.Fprintf(&page, "\n~~~json\n%s~~~\n", m.shown(answer))
	case o.answer.MediaType == "application/json":
		fmt.Fprintf(&page, "\n~~~json\n%s~~~\n", m.shown(json.RawMessage(body)))
	default:
		fmt.Fprintf(&page, "\n~~~text\n%s~~~\n", someMetrics(string(body)))
	}
	return page.String()
}

// someMetrics shows one metric of many, whose values are not of the moment.
func someMetrics(text string) string {
	var some strings.Builder
	some.WriteString("…\n")
	for line := range strings.Lines(text) {
		if strings.Contains(line, "redox_key_versions") {
			some.WriteString(line)
		}
	}
	return some.String() + "…\n"
}

// command is what the vault command is given.
func (s *sample) command(o *documented, path string) string {
	path = "redox/" + path
	switch {
	case o.answer.MediaType != "":
		return "read -format=raw " + path
	case o.method == "POST" && len(s.data) == 0:
		return "write -f " + path
	case o.method == "POST" && s.arguments != "":
		return "write " + path + " " + s.arguments
	case o.method == "POST":
		command := "write " + path
		for _, name := range slices.Sorted(maps.Keys(s.data)) {
			command += fmt.Sprintf(" %s=%v", name, s.data[name])
		}
		return command
	default:
		return map[string]string{"GET": "read ", "LIST": "list ", "DELETE": "delete "}[o.method] + path
	}
}

// hidden are the values that are secret, or another each time, and what the page has in their place.
var hidden = []struct {
	pattern *regexp.Regexp
	shown   string
}{
	{regexp.MustCompile(`("access_token": ")[^"]+`), "${1}ACCESS TOKEN"},
	{regexp.MustCompile(`("client_assertion": ")[^"]+`), "${1}SIGNED JWT"},
	{regexp.MustCompile(`("private_key": ")[^"]+`), `${1}-----BEGIN PRIVATE KEY-----\n…\n-----END PRIVATE KEY-----\n`},
	{regexp.MustCompile(`(-----BEGIN PUBLIC KEY-----\\n)[^-]+`), `${1}…\n`},
	{regexp.MustCompile(`(\\?"[xy]\\?": ?\\?")[\w-]+`), "${1}…"},
	{regexp.MustCompile(`("latency_ms": )\d+`), "${1}85"},
	{regexp.MustCompile(`("go_version": ")[^"]+`), "${1}go1.26.0"},
}

// shown gives JSON as the page shows it.
func (m *mount) shown(value any) string {
	m.t.Helper()
	var page bytes.Buffer
	encoder := json.NewEncoder(&page)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		m.t.Fatal(err)
	}
	return m.withPlaceholders(page.String())
}

func (m *mount) withPlaceholders(text string) string {
	text = strings.ReplaceAll(text, m.redox.URL, defaultConfig().BaseURL)
	for _, h := range hidden {
		text = h.pattern.ReplaceAllString(text, h.shown)
	}
	return text
}
