// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// TestOpenAPIReachesVault: Vault reads the document of a plugin's process as here, and nothing gets lost.
func TestOpenAPIReachesVault(t *testing.T) {
	_, made := newDocumentedMount(t).help("")
	sent := asJSON(t, made)
	read, err := framework.NewOASDocumentFromMap(sent)
	if err != nil {
		t.Fatal(err)
	}
	got := asJSON(t, read)
	paths, _ := sent["paths"].(map[string]any)
	gotPaths, _ := got["paths"].(map[string]any)
	if len(paths) == 0 {
		t.Fatal("the document has no paths")
	}
	for path, item := range paths {
		if !reflect.DeepEqual(gotPaths[path], item) {
			t.Errorf("of %s Vault reads\n%v\nnot\n%v", path, gotPaths[path], item)
		}
	}
}

// A raw answer that is no JSON has its media type in the document.
func TestOpenAPIOfRawText(t *testing.T) {
	m := newDocumentedMount(t)
	const mediaType = "text/plain; version=0.0.4"
	m.backend.Paths = append(m.backend.Paths, &framework.Path{
		Pattern: "^text$",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: reading(m.infoRead, "Read a text.", raw("A text.", mediaType, nil)),
		},
	})
	_, made := m.help("")
	if content := made.(*framework.OASDocument).Paths["/text"].Get.Responses[200].Content; content[mediaType] == nil {
		t.Errorf("the content is %v", content)
	}
}

// asJSON gives a document as it crosses a process boundary.
func asJSON(t *testing.T, document any) map[string]any {
	t.Helper()
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	return read
}
