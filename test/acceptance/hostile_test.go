// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// planted is a part of hostile values. It is not ASCII, so no field takes it, and nobody has a reason to repeat it.
const planted = "s3crét=" + plantedEnd

// plantedEnd is how it is known again, however the rest of it was encoded.
const plantedEnd = "not/to+be:repeated"

// hostileJSON are values that no field is meant for, as they are written in a body. Some are no JSON.
func hostileJSON() []string {
	return []string{
		`"` + planted + `"`, `"\u0000` + planted + `"`, `"\ud800` + planted + `"`, "\"\xff" + planted + `"`,
		`"` + strings.Repeat(planted, 10_000) + `"`,
		`"../../` + planted + `"`, `"-----BEGIN PRIVATE KEY-----\n` + planted + `"`, `"TZ=` + planted + `"`, `"TZ="`,
		`["` + planted + `"]`,
		`{"a":"` + planted + `"}`, `{"kty":"EC","d":["` + planted + `"]}`, strings.Repeat("[", 250) + strings.Repeat("]", 250),
		strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), "null", "true", "-1", "-0", "1.5", "1e400",
		"9223372036854775808",
		"18446744073709551616", "36028797018964088", "NaN", "Infinity", "0x10", "'" + planted + "'", `"NaN"`, `"1e309"`,
		`"36028797018964088"`,
	}
}

// hostileSegments are parts of a path, as they are written in a URL, that are no names.
func hostileSegments() []string {
	return []string{
		"..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e%2fsys%2fraw", "..%5c", "/", "//", "%00", "victim%00", "victim%0a", "vi%d1%81tim",
		"victim/", "victim//", "victim.", "victim..victim", "-victim", "*", "+", "%2b", "%20", "victim%20", "%23", "%3f",
		"victim;a=b",
		strings.Repeat("a", 129), strings.Repeat("a", 10_000), strings.Repeat("../", 500),
	}
}

// notUTF8 are such parts that Vault can't even hand to a plugin, and says so with a 500 of its own.
var notUTF8 = []string{"%ff", "%c0%ae%c0%ae", "victim%ff"}

// hostileBody is a body that is malformed, or not what it says it is.
type hostileBody struct{ contentType, body string }

func hostileBodies(field string) []hostileBody {
	object := fmt.Sprintf(`{%q:%q}`, field, planted)
	boundary := "--x\r\nContent-Disposition: form-data; name=\"" + field + "\"\r\n\r\n" + planted + "\r\n--x--\r\n"
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, `"field_%d":"%s",`, i, planted)
	}
	return []hostileBody{
		{"application/json", fmt.Sprintf(`{%q:"main",%q:%q}`, field, field, planted)},
		{"application/json", fmt.Sprintf(`{%q:%q,%q:"main"}`, field, planted, strings.ToUpper(field))},
		{"application/json", "{" + many.String() + `"last":1}`},
		{"application/json", `[` + object + `]`}, {"application/json", `"` + planted + `"`},
		{"application/json", "1"}, {"application/json", "null"},
		{"application/json", object[:len(object)-2]}, {"application/json", object + object}, {"application/json", object + planted},
		{"application/json", "\xff\xfe{\x00}\x00"}, {"application/json", "\x00"}, {"application/json", strings.Repeat("[", 100_000)},
		{"text/plain", object}, {"application/xml",
			"<a>" + planted + "</a>"}, {"", object}, {"application/json; charset=utf-16", object},
		{"application/x-www-form-urlencoded", url.Values{field: {planted, planted}}.Encode()},
		{"application/x-www-form-urlencoded", "%zz;" + planted},
		{"multipart/form-data; boundary=x", boundary}, {"multipart/form-data", boundary}, {"application/merge-patch+json", object},
	}
}

// hostileEngine is an engine that is sent hostile requests, and what came of them.
type hostileEngine struct {
	*engine
	requests  map[string]int // by operation
	statuses  map[int]int
	vaultsOwn int // failures that were compared with what Vault says without the plugin
}

// send sends one request. Whatever it is, Vault has to answer, the fault may not be the server's, and what was planted
// may not come back.
func (h *hostileEngine) send(operation, method, path string, sent hostileBody, headers ...string) int {
	h.t.Helper()
	h.requests[operation]++
	request, err := http.NewRequest(method, h.vault.address+"/v1/"+path, strings.NewReader(sent.body))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", h.token)
	request.Header.Set("Content-Type", sent.contentType)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	what := fmt.Sprintf("%s %.200s with %.200q (%s)", method, path, sent.body, sent.contentType)
	response, err := httpClient.Do(request)
	if err != nil {
		h.t.Fatalf("%s: %v", what, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatalf("%s: %v", what, err)
	}
	output.record(what, string(text))
	h.statuses[response.StatusCode]++
	if response.StatusCode >= 500 && !h.isVaultsOwn(method, sent, string(text)) {
		h.t.Errorf("%s: %d %.1000s", what, response.StatusCode, text)
	}
	if strings.Contains(string(text), plantedEnd) {
		h.t.Errorf("%s: what was planted comes back: %d %.1000s", what, response.StatusCode, text)
	}
	return response.StatusCode
}

// isVaultsOwn says whether a failure is Vault's own, with which no plugin has to do: it answers 500 to some malformed
// bodies itself. Then it says the same of the same body sent to a secrets engine that it has built in.
func (h *hostileEngine) isVaultsOwn(method string, sent hostileBody, text string) bool {
	h.t.Helper()
	request, err := http.NewRequest(method, h.vault.address+"/v1/cubbyhole/control", strings.NewReader(sent.body))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", h.token)
	request.Header.Set("Content-Type", sent.contentType)
	response, err := httpClient.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	control, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	h.vaultsOwn++
	return response.StatusCode >= 500 && string(control) == text
}

// documented is what the OpenAPI document of Vault says of this mount: the fields of each operation, by method and path.
func (h *hostileEngine) documented() map[string][]string {
	h.t.Helper()
	_, text := h.http(http.MethodGet, "sys/internal/specs/openapi", "")
	type operation struct {
		RequestBody struct {
			Content map[string]struct {
				Schema struct{ Properties map[string]any }
			}
		}
	}
	var document struct {
		Paths map[string]struct{ Get, Post, Delete, Patch *operation }
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		h.t.Fatal(err)
	}
	operations := map[string][]string{}
	for path, item := range document.Paths {
		path, ours := strings.CutPrefix(path, "/"+h.path)
		if !ours || !strings.HasPrefix(path, "/") {
			continue
		}
		for method, o := range map[string]*operation{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete, "PATCH": item.Patch} {
			if o == nil {
				continue
			}
			if method == "GET" && strings.HasSuffix(path, "/") {
				method = "LIST"
			}
			operations[method+" "+path] = slices.Sorted(maps.Keys(o.RequestBody.Content["application/json"].Schema.Properties))
		}
	}
	return operations
}

// templateVariable is a part of a path that stands for a name.
var templateVariable = regexp.MustCompile(`\{[a-z]+\}`)

// mints gives how many tokens were asked for since the plugin's process was started.
func (h *hostileEngine) mints() int {
	h.t.Helper()
	_, text := h.http(http.MethodGet, h.at("metrics"), "")
	total := 0
	for _, line := range regexp.MustCompile(`(?m)^redox_mints_total(?:\{[^}]*\})? ([0-9]+)$`).FindAllStringSubmatch(text, -1) {
		var n int
		if _, err := fmt.Sscan(line[1], &n); err != nil {
			h.t.Fatal(err)
		}
		total += n
	}
	return total
}

// TestHostileRequests sends hostile bodies, values, methods and paths to each operation that Vault documents for the
// mount. The victim is a key and a role of that name; the key "main" and the role "team" must stay as they are. The
// plugin's process must be the same in the end: it still knows what it had counted.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	h := &hostileEngine{engine: newReadyEngine(t), requests: map[string]int{}, statuses: map[int]int{}}
	h.must("write", h.at("keys/victim"), "algorithm=ES384")
	h.must("write", "-f", h.at("keys/victim/rotate"))
	h.must("write", h.at("roles/victim"), "key=victim")
	h.must("write", h.at("roles/team"), "scope=fhir:development")
	config, key, role := h.data("read", h.at("config")), h.data("read", h.at("keys/main")), h.data("read", h.at("roles/team"))
	versions := h.data("read", h.at("keys/main/versions"))
	saved, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	// So much is counted that a process which was started anew would not get there within one operation.
	for i := range 60 {
		name := fmt.Sprintf("counted-%d", i)
		h.http(http.MethodPost, h.at("roles/"+name), "")
		if response, _ := h.http(http.MethodGet, h.at("token/"+name), ""); response.StatusCode != http.StatusOK {
			t.Fatalf("%s gets no token: %s", name, response.Status)
		}
	}
	counted := h.mints()

	operations := h.documented()
	for _, operation := range slices.Sorted(maps.Keys(operations)) {
		method, template, _ := strings.Cut(operation, " ")
		path := h.path + templateVariable.ReplaceAllLiteralString(template, "victim")
		h.hostileTo(operation, method, path, operations[operation])
		if template == "/config" { // some of it was accepted
			h.mustWith(string(saved), "write", h.at("config"), "-")
		}
		if templateVariable.MatchString(template) {
			for _, segment := range hostileSegments() {
				path := h.path + templateVariable.ReplaceAllLiteralString(template, segment)
				h.send(operation, method, path, hostileBody{"application/json", `{"algorithm":"ES384"}`})
			}
			for _, segment := range notUTF8 {
				response, text := h.http(method, h.path+templateVariable.ReplaceAllLiteralString(template, segment), "")
				if response.StatusCode < 400 {
					t.Errorf("%s with %s in its path: %d %s", operation, segment, response.StatusCode, text)
				}
			}
		}
		before := counted
		if counted = h.mints(); before < 60 || counted < before {
			t.Errorf("%d mints were counted before %s, %d after it: the plugin's process is another", before, operation, counted)
		}
	}

	if !reflect.DeepEqual(h.data("read", h.at("config")), config) {
		t.Error("the configuration can't be put back")
	}
	after := h.data("read", h.at("keys/main"))
	if after["public_jwk"] != key["public_jwk"] || !reflect.DeepEqual(h.data("read", h.at("keys/main/versions")), versions) {
		t.Error("the key has changed")
	}
	if !reflect.DeepEqual(h.data("read", h.at("roles/team")), role) {
		t.Error("the role has changed")
	}
	if status := h.opens(h.accessToken("token/team")); status != http.StatusOK {
		t.Errorf("the token opens nothing: %d", status)
	}
	h.searchLogs()

	total, fields := 0, 0
	for _, operation := range slices.Sorted(maps.Keys(operations)) {
		t.Logf("%4d %s %v", h.requests[operation], operation, operations[operation])
		fields += len(operations[operation])
		if total += h.requests[operation]; h.requests[operation] < 10 {
			t.Errorf("%s was tried only %d times", operation, h.requests[operation])
		}
	}
	t.Logf("%d requests to %d operations; answers by status: %v", total, len(operations), h.statuses)
	t.Logf("%d failures were Vault's own", h.vaultsOwn)
	if len(operations) < 20 || fields < 30 || h.statuses[400] < 100 {
		t.Error("that says little")
	}
}

// hostileTo sends what is hostile to an operation whose path is right.
func (h *hostileEngine) hostileTo(operation, method, path string, fields []string) {
	h.send(operation, method, path, hostileBody{"application/json", fmt.Sprintf(`{"%s":%q}`, strings.Repeat("a", 50_000), planted)})
	for _, field := range append(slices.Clone(fields), "unknown") {
		h.send(operation, method, path+"?"+url.Values{field: {planted, "\x00"}}.Encode(), hostileBody{})
		if method != http.MethodPost {
			continue
		}
		for _, value := range hostileJSON() {
			if value == "1e400" && !host.HandsOverGreatNumbers() {
				continue
			}
			h.send(operation, method, path, hostileBody{"application/json", fmt.Sprintf(`{%q:%s}`, field, value)})
		}
	}
	some := "unknown"
	if len(fields) > 0 {
		some = fields[0]
	}
	for _, sent := range hostileBodies(some) {
		h.send(operation, method, path, sent)
	}
	unknown := fmt.Sprintf(`{"unknown":%q}`, planted)
	h.send(operation, http.MethodPost, path, hostileBody{"application/json", unknown}, "X-HTTP-Method-Override", "DELETE")
	if slices.Contains(fields, "private_key") { // more than Vault takes in a request
		h.send(operation, method, path, hostileBody{"application/json", fmt.Sprintf(`{%q:"%s"}`, some, strings.Repeat("9", 33<<20))})
	}
	for _, other := range []string{"PATCH", "HEAD", "OPTIONS", "TRACE", "HELP", "get", "X"} {
		h.send(operation, other, path, hostileBody{"application/merge-patch+json", unknown})
	}
}

// searchLogs looks into the server's log, which has the plugin's, and into the audit log, in which errors are in clear.
func (h *hostileEngine) searchLogs() {
	h.t.Helper()
	for file, signs := range map[string][]string{
		h.vault.LogFile():   {plantedEnd, "panic:", "runtime error", "goroutine "},
		h.vault.auditFile(): {plantedEnd},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, sign := range signs {
			if at := strings.Index(string(text), sign); at >= 0 {
				h.t.Errorf("%s has %q in it: …%.1000s…", file, sign, text[max(0, at-500):])
			}
		}
	}
}
