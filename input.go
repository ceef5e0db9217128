// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// fieldNamePattern is what a field's name looks like. A name that looks otherwise is not repeated in an error: the
// CLI splits its arguments at the first "=", so a private key given without "private_key=" arrives as a name.
var fieldNamePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// checkInput refuses fields that the path does not have, and values that are not of their field's type. The framework
// would only warn of the first, and repeat the value of the second in its error.
func checkInput(path *framework.Path, data map[string]any) error {
	names := make([]string, 0, len(data))
	for name := range data {
		names = append(names, name)
	}
	slices.Sort(names) // the same error for the same input
	for _, name := range names {
		schema := path.Fields[name]
		if schema == nil {
			return unknownField(path, name)
		}
		if name == privateKeyField {
			if _, isString := data[name].(string); !isString {
				return fieldError(name, acceptedForms, "it is neither a string nor a JSON object")
			}
		}
		value := framework.FieldData{Raw: map[string]any{name: data[name]}, Schema: path.Fields}
		if value.Validate() != nil {
			return wrongType(name, schema.Type)
		}
	}
	return nil
}

func unknownField(path *framework.Path, name string) error {
	known := make([]string, 0, len(path.Fields))
	captured := path.Pattern
	for field := range path.Fields {
		if !strings.Contains(captured, "(?P<"+field+">") {
			known = append(known, field)
		}
	}
	slices.Sort(known)
	wayOut := "this path takes no fields"
	if len(known) > 0 {
		wayOut = "the fields of this path are " + strings.Join(known, ", ")
	}
	if !fieldNamePattern.MatchString(name) {
		return &userError{problem: "a field that was given is unknown, and its name is not repeated here because it looks like no field's name",
			wayOut: wayOut + "; give each as field=value"}
	}
	return &userError{field: name, problem: "unknown field", wayOut: wayOut}
}

// inputOperations are those whose data comes from the caller.
var inputOperations = []logical.Operation{
	logical.CreateOperation, logical.UpdateOperation, logical.PatchOperation,
	logical.ReadOperation, logical.ListOperation, logical.DeleteOperation,
}
