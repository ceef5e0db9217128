// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// inlineSchemas puts each schema of the OpenAPI document in a help response where it is referred to. Vault drops the
// references when it reads the document of a plugin that runs in a process of its own (the SDK's OASSchema does not
// say that its Ref is read from "$ref"), and with them every schema of requests and responses.
func inlineSchemas(response *logical.Response) {
	if response == nil {
		return
	}
	document, _ := response.Data["openapi"].(*framework.OASDocument)
	if document == nil {
		return
	}
	inline := func(content framework.OASContent) {
		for _, media := range content {
			if name, isReference := strings.CutPrefix(media.Schema.Ref, "#/components/schemas/"); isReference {
				media.Schema = document.Components.Schemas[name]
			}
		}
	}
	for _, item := range document.Paths {
		for _, operation := range []*framework.OASOperation{item.Get, item.Post, item.Patch, item.Delete} {
			if operation == nil {
				continue
			}
			if operation.RequestBody != nil {
				inline(operation.RequestBody.Content)
			}
			for _, response := range operation.Responses {
				inline(response.Content)
			}
		}
	}
	clear(document.Components.Schemas)
}
