// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"net/http"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// What the paths' declarations have in common.

// operationPrefix begins every operation ID in the OpenAPI document.
const operationPrefix = "redox"

// display names a path for the UI and for OpenAPI operation IDs: prefix, verb, suffix. A path with an optional part
// has a suffix for each form, separated by "|".
func display(suffix string) *framework.DisplayAttributes {
	return &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: suffix}
}

// reading is an operation that any node answers.
func reading(handler framework.OperationFunc, summary string, responses map[int][]framework.Response) *framework.PathOperation {
	return &framework.PathOperation{Callback: handler, Summary: summary, Responses: responses}
}

// changing is an operation that writes storage: performance standbys and secondaries forward it before it begins.
func changing(handler framework.OperationFunc, summary string, responses map[int][]framework.Response) *framework.PathOperation {
	return &framework.PathOperation{
		Callback: handler, Summary: summary, Responses: responses,
		ForwardPerformanceStandby:   true,
		ForwardPerformanceSecondary: true,
	}
}

// acting is an operation under POST and PUT that writes no storage. The verb goes into its OpenAPI operation ID.
func acting(handler framework.OperationFunc, verb, summary string, responses map[int][]framework.Response) *framework.PathOperation {
	o := reading(handler, summary, responses)
	o.DisplayAttrs = &framework.DisplayAttributes{OperationVerb: verb}
	return o
}

var noContent = map[int][]framework.Response{http.StatusNoContent: {{Description: "No content."}}}

func ok(description string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	return map[int][]framework.Response{http.StatusOK: {{Description: description, Fields: fields}}}
}

// listing is what a list operation answers: names and, if there is anything to say of them, key_info.
func listing(description, about string) map[int][]framework.Response {
	fields := map[string]*framework.FieldSchema{"keys": answerField(framework.TypeStringSlice, "The names.")}
	if about != "" {
		fields["key_info"] = &framework.FieldSchema{Type: framework.TypeMap, Description: about}
	}
	return ok(description, fields)
}

// raw is an answer that is all body: Vault puts nothing around it. A JSON body has fields. Of another the SDK can write
// down only the media type, and that only where there is an example.
func raw(description, mediaType string, fields map[string]*framework.FieldSchema) map[int][]framework.Response {
	response := framework.Response{Description: description, MediaType: mediaType, Fields: fields}
	if fields == nil {
		response.Example = &logical.Response{}
	}
	return map[int][]framework.Response{http.StatusOK: {response}}
}

// responseFields turns the schemas of a request into those of a response that always has all fields. Durations are
// answered as numbers; what a request takes for one is a string to OpenAPI.
func responseFields(request map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	response := make(map[string]*framework.FieldSchema, len(request))
	for name, schema := range request {
		field := *schema
		field.Default, field.Required = nil, true
		if field.Type == framework.TypeDurationSecond {
			field.Type = framework.TypeInt64
			field.Description += " In seconds."
		}
		response[name] = &field
	}
	return response
}

// answerField is a field that a response always has.
func answerField(kind framework.FieldType, description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: kind, Description: description, Required: true}
}

// nameField is the name in a path.
func nameField(description string) *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: description,
		DisplayAttrs: &framework.DisplayAttributes{Name: "Name", Identifier: true}}
}

// optionalRole is the pattern of a path that may end with a role's name. framework.OptionalParamRegex would take a name
// with a slash in it.
func optionalRole(path string) string {
	return path + "(/" + framework.GenericNameRegex("role") + ")?$"
}

func roleFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"role": nameField("Name of a role. Left out: the configuration's own client ID and key."),
	}
}

// pathName returns a name captured from the path, empty where an optional one is not there.
func pathName(data *framework.FieldData, field string) string {
	name, _ := data.Get(field).(string)
	return name
}

// forceField is the field that does a step at once, and of a deletion that also takes an entry that can't be used.
const forceField = "force"

func deletionForce() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeBool, Query: true,
		Description: "Delete it also where its stored entry can't be read. An entry that can be read is deleted, or not, " +
			"as without it. Default: false.",
		DisplayAttrs: &framework.DisplayAttributes{Name: "Force"}}
}

// forced returns what the failure to read an entry means to its deletion: nothing where the entry can't be used and is
// to be deleted by force.
func forced(err error, data *framework.FieldData) error {
	unusable := asUnusable(err)
	if unusable == nil {
		return err
	}
	if force, _ := data.Get(forceField).(bool); force {
		return nil
	}
	return fieldError(forceField, "to delete it: "+unusable.deleteByForce(), "%s", unusable)
}
