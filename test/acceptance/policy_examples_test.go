// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/marks"
	"vault-plugin-secrets-redox/internal/sandbox"
)

var updateMatrix = flag.Bool("update", false, "write the matrix in docs/policies.md anew; look at the difference")

const (
	policiesDocument = "../../docs/policies.md"
	examplePolicies  = "../../examples/policies"
)

// attempt is a row of the matrix: a request that changes nothing that another row needs, and the one capability that
// Vault asks for.
type attempt struct{ method, path, needs string }

// unauthenticated is what an attempt needs that everybody may make.
const unauthenticated = "nothing"

// attempts are made at a mount with the roles team-a, team-b, ci and manager, of which manager is a platform_role.
var attempts = []attempt{
	{"POST", "config", "create"},
	{"POST", "config", "update"},
	{"GET", "config", "read"},
	{"DELETE", "config", "delete"},
	{"LIST", "keys", "list"},
	{"POST", "keys/main", "create"},
	{"POST", "keys/main", "update"},
	{"GET", "keys/main", "read"},
	{"GET", "keys/main/versions", "read"},
	{"LIST", "keys/main/versions", "list"},
	{"GET", "keys/main/clients", "read"},
	{"LIST", "keys/main/clients", "list"},
	{"DELETE", "keys/main", "delete"},
	{"POST", "keys/main/import", "update"},
	{"POST", "keys/main/rotate", "update"},
	{"POST", "keys/main/activate", "update"},
	{"POST", "keys/main/abandon", "update"},
	{"POST", "keys/main/retire", "update"},
	{"POST", "keys/main/register", "update"},
	{"GET", "wrapping_key", "read"},
	{"POST", "wrapping_key/rotate", "update"},
	{"DELETE", "wrapping_key", "delete"},
	{"GET", "jwks", unauthenticated},
	{"GET", "jwks/main", unauthenticated},
	{"LIST", "roles", "list"},
	{"POST", "roles/team-a", "create"},
	{"POST", "roles/team-a", "update"},
	{"GET", "roles/team-a", "read"},
	{"DELETE", "roles/team-a", "delete"},
	{"GET", "token", "read"},
	{"POST", "token", "update"},
	{"GET", "token/team-a", "read"},
	{"POST", "token/team-a", "update"},
	{"GET", "token/team-b", "read"},
	{"POST", "token/team-b", "update"},
	{"GET", "token/ci", "read"},
	{"POST", "token/ci", "update"},
	{"GET", "token/manager", "read"},
	{"POST", "token/manager", "update"},
	{"POST", "assertion", "update"},
	{"POST", "assertion/team-a", "update"},
	{"POST", "assertion/manager", "update"},
	{"POST", "check", "update"},
	{"POST", "check/team-a", "update"},
	{"POST", "check/team-b", "update"},
	{"POST", "check/ci", "update"},
	{"GET", "metrics", "read"},
	{"GET", "info", "read"},
}

// harmless is refused by every endpoint, once Vault has let it through.
const harmless = `{"not_a_field": ""}`

// send makes the attempt, and gives the answer's HTTP status and text.
func (a attempt) send(by person, e *engine) (int, string) {
	by.t.Helper()
	body := ""
	if a.method == http.MethodPost {
		body = harmless
	}
	response, text := by.http(a.method, e.at(a.path), body)
	return response.StatusCode, text
}

// allowed says whether Vault let somebody's attempt through to the engine, whatever came of it there.
func (a attempt) allowed(by person, e *engine) bool {
	by.t.Helper()
	status, _ := a.send(by, e)
	return status != http.StatusForbidden
}

// examplePerson is somebody who has one of the example policies, or who has no Vault token.
type examplePerson struct {
	policy string
	person
}

// TestPolicyExamples tries every endpoint with each example policy, and compares with what docs/policies.md says.
func TestPolicyExamples(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	people := e.examplePeople()

	// A policy for one capability has it on every path, and the opposite one has all others.
	all := []string{"create", "read", "update", "delete", "list", "patch", "sudo"}
	sufficient, insufficient := map[string]person{}, map[string]person{}
	for _, needed := range []string{"create", "read", "update", "delete", "list"} {
		only, others := map[string]string{}, map[string]string{}
		for _, a := range attempts {
			only[a.path] = needed
			others[a.path] = strings.Join(slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == needed }), " ")
		}
		sufficient[needed], insufficient[needed] = e.as("only-"+needed, only), e.as("all-but-"+needed, others)
	}

	rows := map[attempt]string{}
	try := func(chosen func(attempt) bool) {
		for _, a := range attempts {
			if !chosen(a) {
				continue
			}
			e.checkHarmless(a)
			if a.needs != unauthenticated {
				if !a.allowed(sufficient[a.needs], e) {
					t.Errorf("%s %s is refused to who has %q", a.method, a.path, a.needs)
				}
				if a.allowed(insufficient[a.needs], e) {
					t.Errorf("%s %s is allowed to who has everything but %q", a.method, a.path, a.needs)
				}
			}
			row := fmt.Sprintf("| `%s redox/%s` | %s |", a.method, a.path, a.needs)
			for _, somebody := range people {
				cell := " – |"
				if a.allowed(somebody.person, e) {
					cell = " yes |"
					checkNeverAllowed(t, a, somebody.policy)
				}
				row += cell
			}
			rows[a] = row
		}
	}
	// A write creates while there is nothing, and what is deleted is missed by the others.
	try(func(a attempt) bool { return a.needs == "create" })
	e.prepareExamples()
	try(func(a attempt) bool { return a.needs != "create" && a.needs != "delete" })
	try(func(a attempt) bool { return a.needs == "delete" })

	header, line := "\n| Request | Needs |", "|---|---|"
	for _, somebody := range people {
		header, line = header+" "+somebody.policy+" |", line+"---|"
	}
	matrix := header + "\n" + line + "\n"
	for _, a := range attempts {
		matrix += rows[a] + "\n"
	}
	marks.Hold(t, policiesDocument, "matrix", matrix+"\n", *updateMatrix)
}

// TestPolicyExamplesAreComplete compares the matrix's rows with the endpoints that the mount itself tells of.
func TestPolicyExamplesAreComplete(t *testing.T) {
	e := newEngine(t, sandbox.Options{})
	endpoints := e.endpoints()
	tried := map[string]bool{}
	for _, a := range attempts {
		found := slices.IndexFunc(endpoints, func(endpoint attempt) bool {
			return a.method == endpoint.method && a.needs == endpoint.needs && matches(endpoint.path, a.path)
		})
		if found < 0 {
			t.Errorf("there is no endpoint for the row %v", a)
			continue
		}
		tried[fmt.Sprint(endpoints[found])] = true
	}
	for _, endpoint := range endpoints {
		if !tried[fmt.Sprint(endpoint)] {
			t.Errorf("the matrix has no row for the endpoint %v", endpoint)
		}
	}
}

// TestPolicyExamplesOwnRole lets what an entity's metadata say decide whose token somebody gets.
func TestPolicyExamplesOwnRole(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	e.prepareExamples()
	roles := []string{"team-a", "team-b", "ci", "manager"}
	for name, test := range map[string]struct {
		metadata string
		allowed  []string
	}{
		"a":         {"team-a", []string{"team-a"}},
		"b":         {"team-b", []string{"team-b"}},
		"none":      {"", nil},
		"manager":   {"manager", nil},
		"everybody": {"*", []string{"team-a", "team-b", "ci"}}, // as docs/policies.md warns
	} {
		t.Run(name, func(t *testing.T) {
			e := &engine{person: person{t, e.vault, e.token}, path: e.path, redox: e.redox}
			somebody := e.entity(name, test.metadata, e.examplePolicy("own-role"))
			for _, role := range roles {
				if !slices.Contains(test.allowed, role) {
					somebody.refused(http.StatusForbidden, "read", e.at("token/"+role))
					somebody.refused(http.StatusForbidden, "write", "-f", e.at("token/"+role))
				} else if client := somebody.data("read", e.at("token/"+role))["client_id"]; client != role+"-client" {
					t.Errorf("the token of %s is of %v", role, client)
				}
			}
			somebody.refused(http.StatusForbidden, "read", e.at("token"))
		})
	}
}

// TestPolicyExamplesList names what is listed in each way that a policy may.
func TestPolicyExamplesList(t *testing.T) {
	t.Parallel()
	e := newReadyEngine(t)
	for name, policy := range map[string]string{"bare": "keys", "slash": "keys/", "segment": "keys/+", "all": "keys/*"} {
		somebody := e.as(name, map[string]string{policy: "list"})
		for _, request := range []string{"LIST keys", "LIST keys/", "GET keys?list=true"} {
			method, path, _ := strings.Cut(request, " ")
			if response, text := somebody.http(method, e.at(path), ""); response.StatusCode != http.StatusOK {
				t.Errorf("a policy for %s: %s is answered with %d %s", policy, request, response.StatusCode, text)
			}
		}
	}
}

// prepareExamples makes what the example policies are about.
func (e *engine) prepareExamples() {
	e.t.Helper()
	e.must("write", e.at("keys/main"), "algorithm=ES384")
	e.register("client-1", "main")
	e.must("write", e.at("config"), "client_id=client-1", "key=main", "base_url="+e.redox.URL)
	for _, role := range []string{"team-a", "team-b", "ci", "manager"} {
		e.register(role+"-client", "main")
		e.must("write", e.at("roles/"+role), "client_id="+role+"-client")
	}
}

// checkHarmless makes an attempt as root, to whom nothing is refused: an endpoint must answer, and change nothing.
func (e *engine) checkHarmless(a attempt) {
	e.t.Helper()
	status, text := a.send(e.person, e)
	switch a.method {
	case http.MethodPost:
		if status != http.StatusBadRequest || !strings.Contains(text, "unknown field") {
			e.t.Errorf("%s %s is not harmless: %d %s", a.method, a.path, status, text)
		}
	case http.MethodDelete:
		if status != http.StatusNoContent && status != http.StatusBadRequest {
			e.t.Errorf("%s %s: %d %s", a.method, a.path, status, text)
		}
	default:
		if status != http.StatusOK {
			e.t.Errorf("%s %s: %d %s", a.method, a.path, status, text)
		}
	}
}

// checkNeverAllowed is about what no example may allow, whatever the document says.
func checkNeverAllowed(t *testing.T, a attempt, policy string) {
	t.Helper()
	kind, role, _ := strings.Cut(a.path, "/")
	secret := kind == "token" || kind == "assertion"
	switch {
	case secret && role == "manager":
		t.Errorf("%s lets somebody have tokens of a platform_role: %s %s", policy, a.method, a.path)
	case secret && (policy == "operator" || policy == "auditor" || policy == "oncall" || policy == "installer"):
		t.Errorf("%s gets secrets: %s %s", policy, a.method, a.path)
	case policy == "auditor" && a.method != http.MethodGet && a.method != "LIST":
		t.Errorf("the auditor changes something: %s %s", a.method, a.path)
	case policy == "nobody" && a.needs != unauthenticated:
		t.Errorf("nobody may %s %s", a.method, a.path)
	}
}

// examplePeople gives somebody for each example, and one without a Vault token.
func (e *engine) examplePeople() []examplePerson {
	e.t.Helper()
	files, err := filepath.Glob(examplePolicies + "/*.hcl")
	if err != nil || len(files) == 0 {
		e.t.Fatal("there are no example policies", err)
	}
	var people []examplePerson
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hcl")
		policy := e.examplePolicy(name)
		somebody := person{e.t, e.vault, ""}
		if name == "own-role" {
			somebody = e.entity("own-role", "team-a", policy)
		} else {
			somebody.token = strings.TrimSpace(e.must("token", "create", "-policy="+policy, "-field=token"))
		}
		people = append(people, examplePerson{name, somebody})
	}
	return append(people, examplePerson{"nobody", person{e.t, e.vault, ""}})
}

// TestPolicyExampleOnCall: who is on call stops a role, and changes nothing else of it.
func TestPolicyExampleOnCall(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	e.prepareExamples()
	somebody := person{t, e.vault, strings.TrimSpace(e.must("token", "create", "-policy="+e.examplePolicy("oncall"), "-field=token"))}
	somebody.must("write", e.at("roles/team-a"), "disabled=true")
	e.refused(http.StatusBadRequest, "read", e.at("token/team-a"))
	somebody.must("write", e.at("roles/team-a"), "disabled=false")
	somebody.refused(http.StatusForbidden, "write", e.at("roles/team-a"), "client_id=team-b-client")
	somebody.refused(http.StatusForbidden, "write", e.at("roles/team-a"), "disabled=false", "client_id=team-b-client")
	somebody.must("write", "-f", e.at("keys/main/rotate"))
	somebody.must("write", "-f", e.at("check/team-a"))
}

// TestPolicyExampleInstaller registers and mounts the plugin, and upgrades the mount, with no other policy.
func TestPolicyExampleInstaller(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	e.path += "-installed"
	somebody := person{t, e.vault, strings.TrimSpace(e.must("token", "create", "-policy="+e.examplePolicy("installer"), "-field=token"))}
	somebody.must("plugin", "register", "-sha256="+checksum(t, pluginFile), "-version="+pluginVersion, "-command="+pluginName, "secret", pluginName)
	somebody.must("plugin", "info", "-version="+pluginVersion, "secret", pluginName)
	somebody.mount(e.path)
	somebody.must("secrets", "list", "-detailed")
	somebody.must("secrets", "tune", "-plugin-version="+pluginVersion, e.path)
	if version := somebody.data("read", e.at("info"))["version"]; version != pluginVersion {
		t.Errorf("the version is %v", version)
	}
	somebody.must("write", "-f", e.at("check"))
	somebody.refused(http.StatusForbidden, "read", e.at("config"))
	somebody.refused(http.StatusForbidden, "secrets", "disable", e.path)
}

// examplePolicy writes an example into Vault, and gives the policy's name. Nothing but the mount is replaced in it.
func (e *engine) examplePolicy(name string) string {
	e.t.Helper()
	text, err := os.ReadFile(filepath.Join(examplePolicies, name+".hcl"))
	if err != nil {
		e.t.Fatal(err)
	}
	mount := regexp.MustCompile(`(?m)^path "(sys/mounts/)?redox\b`)
	rules := mount.ReplaceAllString(string(text), `path "${1}`+e.path)
	if others := regexp.MustCompile(`(?m)^path "(?:redox|sys/mounts/redox)\b`).FindString(rules); others != "" || rules == string(text) {
		e.t.Fatalf("%s.hcl has no paths of the mount, or some that stay", name)
	}
	policy := e.path + "-example-" + name
	e.mustWith(rules, "policy", "write", policy, "-")
	return policy
}

// entity gives somebody who has logged in with a password, and whose entity has a redox_role unless that is empty.
func (e *engine) entity(name, redoxRole, policy string) person {
	e.t.Helper()
	method := e.path + "-" + name
	e.must("auth", "enable", "-path="+method, "userpass")
	e.must("write", "auth/"+method+"/users/"+name, "password=correct-horse", "token_policies="+policy)
	entity := []string{"write", "-field=id", "identity/entity", "name=" + method}
	if redoxRole != "" {
		entity = append(entity, "metadata=redox_role="+redoxRole)
	}
	id := strings.TrimSpace(e.must(entity...))
	accessor := strings.TrimSpace(e.must("read", "-field=accessor", "sys/auth/"+method))
	e.must("write", "identity/entity-alias", "name="+name, "canonical_id="+id, "mount_accessor="+accessor)
	token := e.must("write", "-field=token", "auth/"+method+"/login/"+name, "password=correct-horse")
	return person{e.t, e.vault, strings.TrimSpace(token)}
}

// endpoints gives what the mount's OpenAPI document tells of, each with the capability it needs; its paths have braces
// where a name goes.
func (e *engine) endpoints() []attempt {
	e.t.Helper()
	var document struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(e.must("path-help", "-format=json", e.path)), &document); err != nil {
		e.t.Fatal(err)
	}
	var endpoints []attempt
	for path, item := range document.Paths {
		path = strings.Trim(path, "/")
		for method, text := range item {
			method = strings.ToUpper(method)
			needs := map[string]string{"GET": "read", "POST": "update", "PATCH": "patch", "DELETE": "delete"}[method]
			if needs == "" {
				continue // something about the path
			}
			var operation struct{ Parameters []struct{ Name string } }
			if err := json.Unmarshal(text, &operation); err != nil {
				e.t.Fatal(err)
			}
			if slices.ContainsFunc(operation.Parameters, func(p struct{ Name string }) bool { return p.Name == "list" }) {
				method, needs = "LIST", "list"
			}
			if string(item["x-vault-unauthenticated"]) == "true" {
				needs = unauthenticated
			}
			endpoints = append(endpoints, attempt{method, path, needs})
			if method == http.MethodPost && string(item["x-vault-createSupported"]) == "true" {
				endpoints = append(endpoints, attempt{method, path, "create"})
			}
		}
	}
	return endpoints
}

// matches says whether a path is one of an endpoint's.
func matches(endpoint, path string) bool {
	want, got := strings.Split(endpoint, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") })
}
