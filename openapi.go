// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"slices"
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
		if item.Delete != nil {
			keepForDeletion(item, forceField)
		}
	}
	clear(document.Components.Schemas)
}

// keepForDeletion takes a field that only the deletion of a path has out of the other operations: the framework gives it
// to all.
func keepForDeletion(item *framework.OASPathItem, field string) {
	if item.Get != nil {
		item.Get.Parameters = slices.DeleteFunc(item.Get.Parameters, func(p framework.OASParameter) bool { return p.Name == field })
	}
	if item.Post != nil && item.Post.RequestBody != nil {
		for _, media := range item.Post.RequestBody.Content {
			delete(media.Schema.Properties, field)
		}
	}
}
