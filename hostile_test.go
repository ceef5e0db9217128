// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
)

const (
	// planted is a part of every hostile text. It could be no name, so nothing that is said may repeat it.
	planted = "s3cret=not/to+be:repeated"
	// plantedName is the same for names: it has a name's characters.
	plantedName = "s3cret-in-a-name"
)

// hostileTexts are strings that no field is meant for.
func hostileTexts() []any {
	var texts []any
	for _, text := range []string{
		"", "\x00", "\r\nX-Header: ", "\x1b[31m", "\x7f", "\xff\xfe", "\xed\xa0\x80", "\u202e", "\u2028", "\ufeff", "../",
		"%2e%2e%2f", "..\\",
		"//", "/", "~", "*", "$(id)", "%s%n%!d", "${jndi:ldap://x}", "{{.}}", "' OR 1=1 --", "<script>", "https://user:",
		"http://", "file://",
		"https://localhost/#", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\n", `{"kty":"RSA","d":"`,
		"аpi.redoxengine.com/", "ｍain",
		"TZ=", "@every 1s ", "0 0 30 2 * ",
	} {
		texts = append(texts, text+planted+text)
	}
	for _, text := range []string{
		"", " ", "null", "[]", "{}", "true ", "tRuE", "yes", "2", "NaN", "nan", "Inf", "-Inf", "1e309", "1e400", "-0", "+1", "-1",
		"0x10", "0b1",
		"010", "1_0", "1.5", "0.9s", "1e2", "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616",
		"36028797018964088",
		"36028797018964088s", "213503982334602d", "-1h", "1h-1m", "5x", "* * * * *", "0 0 29 2 *", "TZ=", "TZ=UTC", "CRON_TZ=x",
		".", "..",
	} {
		texts = append(texts, text)
	}
	return append(texts, strings.Repeat(planted, 100), strings.Repeat(planted, 5000), strings.Repeat("9", 100_000),
		strings.Repeat("0", 5000)+"1")
}

// hostileValues are hostileTexts and what JSON has besides strings, in the forms that Vault decodes it to.
func hostileValues() []any {
	deep, many, long := any(planted), map[string]any{}, []any{}
	for i := range 1000 {
		deep = map[string]any{planted: []any{deep}}
		many[fmt.Sprint(planted, i)] = planted
		long = append(long, planted)
	}
	values := append(hostileTexts(), nil, true, false, []any{}, []any{planted}, []any{nil}, []any{""}, map[string]any{},
		map[string]any{planted: planted}, map[string]any{"kty": "EC", "d": []any{planted}}, deep, many, long)
	for _, number := range []string{
		"0", "-0", "-1", "1.5", "1e0", "1e2", "1e309", "1e400", "-1e400", "1e-400", "2147483648", "9223372036854775807",
		"9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
		"36028797018964088", strings.Repeat("9", 5000),
	} {
		values = append(values, json.Number(number))
	}
	return values
}

// hostileNames are parts of a path that are, or try to be, something else than a name.
func hostileNames() []string {
	names := []string{
		"", ".", "..", "../..", "...", "main/", "/main", "//main", "main//import", " main", "main ", "main\n", "main\x00",
		"main\xff", "mаin",
		"ｍain", "main.", "-main", "main..main", "%6dain", "main%00", "main?list=true", "main#", "*", "+", "main/../main",
		"main/import/import", "MAIN",
		"0", "_", "import",
		strings.Repeat("a", 128), strings.Repeat("a", 129), strings.Repeat("../", 1000),
	}
	for _, text := range []string{
		"../", "..", "%2e%2e%2f", "\x00", "\r\n", "\u202e", "ä", "//", strings.Repeat("a", 128), strings.Repeat("a", 100_000),
	} {
		names = append(names, text+plantedName, plantedName+text, "a"+text+plantedName)
	}
	return names
}

// plausibleValues gives values that a field may well take, so that requests get past the first check.
func plausibleValues(kind framework.FieldType, name string) []any {
	switch {
	case name == privateKeyField:
		return []any{pkcs8Text(outsideEC()), jwkMembers(otherOutsideEC())}
	case kind == framework.TypeBool:
		return []any{true, false, "true"}
	case kind == framework.TypeInt:
		return []any{json.Number("1"), "2", json.Number("10")}
	case kind == framework.TypeDurationSecond:
		return []any{json.Number("30"), "1h", "2h"}
	case strings.HasSuffix(name, "url") || name == "jku":
		return []any{"https://redox.test/a", "http://127.0.0.1:1"}
	default:
		return []any{"main", "team", algorithmES384, registrationPlatform, registrationJWKSURL, "0 3 * * *", "SHA1"}
	}
}

// hostileTarget is one operation of the OpenAPI document.
type hostileTarget struct {
	name      string // as the document has it: "post /keys/{name}"
	operation logical.Operation
	template  string
	fields    map[string]*framework.FieldSchema // but for those in the path
}

// pathVariable is a part of a path in the OpenAPI document.
var pathVariable = regexp.MustCompile(`\{[a-z]+\}`)

// path puts a name into the path.
func (g *hostileTarget) path(name string) string {
	return strings.TrimPrefix(pathVariable.ReplaceAllLiteralString(g.template, name), "/")
}

// names are those that the operation is tried with: of what is there in several states, and of nothing.
func (g *hostileTarget) names() []string {
	switch {
	case !pathVariable.MatchString(g.template):
		return []string{""}
	case g.operation != logical.UpdateOperation:
		return []string{"main"} // no input is looked at further than its type
	case strings.HasPrefix(g.template, "/keys/"), strings.HasPrefix(g.template, "/jwks/"):
		return []string{"main", "rotating", "fresh"}
	default:
		return []string{"team", "fresh"}
	}
}

// base is what a request needs besides the hostile field, so that this is what it is refused for. It also keeps RSA
// keys, which take long, from being made.
func (g *hostileTarget) base(field string) map[string]any {
	switch {
	case g.name == "post /keys/{name}" && field != "algorithm" && field != "rsa_bits":
		return map[string]any{"algorithm": algorithmES384}
	case g.name == "post /keys/{name}/import" && field != privateKeyField && field != ciphertextField:
		return map[string]any{privateKeyField: pkcs8Text(outsideEC())}
	default:
		return map[string]any{}
	}
}

// hostileMount is a mount in which requests can go wrong in many ways, and what was seen of them.
type hostileMount struct {
	*mount
	targets           []hostileTarget
	tried             map[string]int // requests by the target's name
	accepted, refused int
	heard             int // bytes of the log that were looked at
}

func newHostileMount(t *testing.T) *hostileMount {
	m := newReadyMount(t)
	m.plant(wrappingKeyStorage, wrappingKeyEntry(goldenWrappingKey()))
	present := must(m.store.wrappingKeys(t.Context())).present
	m.newWrappingKey = func() (*privatekey.Key, error) { return present, nil } // which would take seconds
	m.write("keys/rotating", fields{"algorithm": algorithmES384, "deletion_allowed": true})
	m.write("keys/rotating/rotate", nil)
	m.write("roles/team", fields{"scope": "a"})
	m.system.PluginEnvironment = &logical.PluginEnvironment{VaultVersion: "0.0.0"}
	h := &hostileMount{mount: m, tried: map[string]int{}}
	_, made := m.help("")
	for template, item := range made.(*framework.OASDocument).Paths {
		add := func(method string, operation logical.Operation) {
			g := hostileTarget{method + " " + template, operation, template, map[string]*framework.FieldSchema{}}
			route := m.Route(g.path("main"))
			if route == nil || route.Operations[operation] == nil && route.Operations[logical.CreateOperation] == nil {
				t.Fatalf("%s %s is in the document, but not offered", operation, template)
			}
			for name, schema := range route.Fields {
				if !isCaptured(route, name) {
					g.fields[name] = schema
				}
			}
			h.targets = append(h.targets, g)
		}
		if item.Get != nil && strings.HasSuffix(template, "/") {
			add("list", logical.ListOperation)
		} else if item.Get != nil {
			add("get", logical.ReadOperation)
		}
		if item.Post != nil {
			add("post", logical.UpdateOperation)
		}
		if item.Delete != nil {
			add("delete", logical.DeleteOperation)
		}
	}
	slices.SortFunc(h.targets, func(a, b hostileTarget) int { return strings.Compare(a.name, b.name) })
	// The other way round: what the engine offers is in the document.
	m.eachOperation(func(p *framework.Path, operation logical.Operation, path string) {
		if operation == logical.CreateOperation {
			operation = logical.UpdateOperation
		}
		if !slices.ContainsFunc(h.targets, func(g hostileTarget) bool { return g.operation == operation && m.Route(g.path("main")) == p }) {
			t.Errorf("%s %s is offered, but not in the document", operation, path)
		}
	})
	return h
}

// try sends one hostile request. It must be done or refused, and not end as the engine's own failure; refused, it
// changes nothing, and nothing that was planted in it comes back; done, all can still be read.
func (h *hostileMount) try(g *hostileTarget, path string, data map[string]any) {
	h.t.Helper()
	defer func() {
		if p := recover(); p != nil {
			h.t.Fatalf("%s %q with %.200q panics: %v", g.name, path, data, p)
		}
	}()
	h.tried[g.name]++
	before := h.storage.snapshot()
	response, err := h.request(g.operation, path, data)
	said := h.listen()
	if err == nil && !response.IsError() {
		h.accepted++
		if !maps.Equal(before, h.storage.snapshot()) {
			h.checkAllReads()
			h.restore(before)
		}
		return
	}
	h.refused++
	if err == nil {
		err = response.Error()
	} else if status := statusOf(err); status == http.StatusInternalServerError {
		h.t.Errorf("%s %q with %.200q fails as the engine's fault: %v", g.name, path, data, err)
	}
	text := err.Error()
	if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		h.t.Errorf("%s %q with %.200q: the error is not fit to be read: %.2000q", g.name, path, data, text)
	}
	if said += text; strings.Contains(said, planted) || strings.Contains(said, plantedName) {
		h.t.Errorf("%s %q with %.200q: what was planted is in the error, the log or an event: %.2000q", g.name, path, data, said)
	}
	if after := h.storage.snapshot(); !maps.Equal(withoutAcceptance(before), withoutAcceptance(after)) {
		h.t.Errorf("%s %q with %.200q was refused, but storage has changed", g.name, path, data)
		h.restore(before)
	}
}

// statusOf is what Vault makes of an error.
func statusOf(err error) int {
	if coded, ok := err.(logical.HTTPCodedError); ok {
		return coded.Code()
	}
	for known, status := range map[error]int{
		logical.ErrUnsupportedPath: http.StatusNotFound, logical.ErrUnsupportedOperation: http.StatusMethodNotAllowed,
		logical.ErrInvalidRequest: http.StatusBadRequest,
	} {
		if errors.Is(err, known) {
			return status
		}
	}
	return http.StatusInternalServerError
}

// withoutAcceptance leaves out what was learned about Redox, which may be stored at any time.
func withoutAcceptance(stored map[string]string) map[string]string {
	maps.DeleteFunc(stored, func(key, _ string) bool { return strings.HasPrefix(key, clientsStoragePrefix) })
	return stored
}

// listen gives what was logged and announced since it was called last.
func (h *hostileMount) listen() string {
	log := h.log.bytes()
	said := string(log[h.heard:]) + h.announced()
	h.heard = len(log)
	return said
}

// checkAllReads reads all that is stored, and what is derived from it.
func (h *hostileMount) checkAllReads() {
	h.t.Helper()
	ctx := context.Background()
	paths := []string{"jwks", "metrics"}
	for key := range h.storage.snapshot() {
		if key == configStorageKey || strings.HasPrefix(key, keysStoragePrefix) || strings.HasPrefix(key, rolesStoragePrefix) {
			paths = append(paths, key)
		}
	}
	for _, path := range paths {
		req := &logical.Request{Operation: logical.ReadOperation, Path: path, Storage: h.storage, MountPoint: "redox/"}
		if response, err := h.HandleRequest(ctx, req); err != nil || response == nil || response.IsError() {
			h.t.Fatalf("%s can't be read any more: %v, %v", path, err, response)
		}
	}
}

// restore puts the storage back, as another node would.
func (h *hostileMount) restore(wanted map[string]string) {
	h.t.Helper()
	now := h.storage.snapshot()
	for key, value := range wanted {
		if now[key] != value {
			h.plant(key, value)
			h.invalidate(context.Background(), key)
		}
	}
	for key := range now {
		if _, stays := wanted[key]; !stays {
			if err := h.storage.inner.Delete(context.Background(), key); err != nil {
				h.t.Fatal(err)
			}
			h.invalidate(context.Background(), key)
		}
	}
}

// withField gives the data with one more field.
func withField(data map[string]any, name string, value any) map[string]any {
	data = maps.Clone(data)
	data[name] = value
	return data
}

// TestHostileRequests sends to each operation of the OpenAPI document what it is not made for: in each field, as names
// of fields, and in the path.
func TestHostileRequests(t *testing.T) {
	h := newHostileMount(t)
	values := hostileValues()
	thousands := map[string]any{}
	for i := range 5000 {
		thousands[fmt.Sprint(planted, i)] = planted
	}
	for i := range h.targets {
		g := &h.targets[i]
		for _, name := range g.names() {
			path := g.path(name)
			for field := range maps.Keys(g.fields) {
				for _, value := range values {
					h.try(g, path, withField(g.base(field), field, value))
				}
			}
			for _, unknown := range hostileTexts() {
				h.try(g, path, withField(g.base(""), fmt.Sprint(unknown), planted))
			}
			h.try(g, path, thousands)
			h.try(g, path, withField(thousands, "key", planted))
		}
		if pathVariable.MatchString(g.template) {
			for _, name := range hostileNames() {
				h.try(g, g.path(name), g.base(""))
			}
		}
	}
	h.checkCounts()
}

// TestHostileCombinations sends several fields at once, of which some are plausible.
func TestHostileCombinations(t *testing.T) {
	h := newHostileMount(t)
	random := rand.New(rand.NewPCG(20260301, 1))
	values := hostileValues()
	for range 150 {
		for i := range h.targets {
			g := &h.targets[i]
			names := g.names()
			data := g.base("")
			for _, field := range slices.Sorted(maps.Keys(g.fields)) { // the same for the same seed
				if field == "algorithm" || random.IntN(3) > 0 {
					continue
				}
				choice := values
				if random.IntN(4) > 0 {
					choice = plausibleValues(g.fields[field].Type, field)
				}
				data[field] = choice[random.IntN(len(choice))]
			}
			h.try(g, g.path(names[random.IntN(len(names))]), data)
		}
	}
	h.checkCounts()
}

// checkCounts makes sure that every operation was tried, that some requests were done and most refused, and that no
// metric tells what was planted.
func (h *hostileMount) checkCounts() {
	h.t.Helper()
	for _, g := range h.targets {
		h.t.Logf("%5d %s", h.tried[g.name], g.name)
		if h.tried[g.name] < 50 {
			h.t.Errorf("%s was tried only %d times", g.name, h.tried[g.name])
		}
	}
	h.t.Logf("%d were done, %d refused", h.accepted, h.refused)
	if len(h.targets) < 20 || h.accepted == 0 || h.refused < 10*len(h.targets) {
		h.t.Errorf("of %d operations, %d requests were done and %d refused: that says little", len(h.targets), h.accepted, h.refused)
	}
	metrics, _ := h.read("metrics")[logical.HTTPRawBody].([]byte)
	if len(metrics) == 0 || strings.Contains(string(metrics), planted) {
		h.t.Error("the metrics tell what was planted, or nothing")
	}
}
