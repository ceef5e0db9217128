// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
)

var (
	genericEndpoint = regexp.MustCompile(`(?ms)^resource "vault_generic_endpoint" "\w+" \{\n.*?^\}`)
	endpointPath    = regexp.MustCompile(`path += "\$\{vault_mount\.redox\.path\}/(.+)"`)
	endpointData    = regexp.MustCompile(`(?ms)jsonencode\(\{\n(.*?)^  \}\)`)
	dataField       = regexp.MustCompile(`(?m)^ +(\w+) += ("[^"]*"|[\w.]+)`)
)

// TestTerraformPlanIsEmpty writes what the example has for each endpoint, as Terraform's Vault provider does, and compares
// with what a read gives then: where that is the same, a second plan has no changes.
func TestTerraformPlanIsEmpty(t *testing.T) {
	t.Parallel()
	e := newEngine(t, sandbox.Options{})
	text, err := os.ReadFile("../../examples/terraform/main.tf")
	if err != nil {
		t.Fatal(err)
	}
	endpoints := genericEndpoint.FindAllString(string(text), -1)
	if len(endpoints) != strings.Count(string(text), `"vault_generic_endpoint"`) || len(endpoints) == 0 {
		t.Fatalf("of the endpoints in main.tf, only %d are understood", len(endpoints))
	}
	values := strings.NewReplacer("var.client_id", `"client-1"`, "var.base_url", `"`+e.redox.URL+`"`)
	for _, endpoint := range endpoints {
		if !regexp.MustCompile(`(?m)^  ignore_absent_fields += true`).MatchString(endpoint) {
			t.Errorf("all that is not written would be in each plan:\n%s", endpoint)
		}
		path, data := endpointPath.FindStringSubmatch(endpoint), endpointData.FindStringSubmatch(endpoint)
		if path == nil || data == nil {
			t.Fatalf("this is not understood:\n%s", endpoint)
		}
		written := map[string]any{}
		for _, field := range dataField.FindAllStringSubmatch(data[1], -1) {
			var value any
			if err := json.Unmarshal([]byte(values.Replace(field[2])), &value); err != nil {
				t.Fatalf("%s: %v", field[0], err)
			}
			written[field[1]] = value
		}
		if len(written) != strings.Count(data[1], "\n") {
			t.Fatalf("of these fields, only %d are understood:\n%s", len(written), data[1])
		}
		body, err := json.Marshal(written)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // an update is to go as the first write does
			if response, answer := e.http(http.MethodPost, e.at(path[1]), string(body)); response.StatusCode >= 300 {
				t.Fatalf("%s: %s", path[1], answer)
			}
		}
		read := e.data("read", e.at(path[1]))
		for name, value := range written {
			if read[name] != value {
				t.Errorf("%s: %s was written as %v and is read as %v: each plan has a change", path[1], name, value, read[name])
			}
		}
	}
}
