// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/privatekey"
)

// fieldNamePattern is what a field's name looks like. A name that looks otherwise is not repeated in an error: the
// CLI splits its arguments at the first "=", so a private key given without "private_key=" arrives as a name.
var fieldNamePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// plainForms is how whole numbers and durations are to be written. The framework takes more, and means something else
// by it: "010" is 8 to it, and "0.9s" no time at all.
var plainForms = map[framework.FieldType]*regexp.Regexp{
	framework.TypeInt:            regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`),
	framework.TypeDurationSecond: regexp.MustCompile(`^([0-9]+|([0-9]+[hms])+|[0-9]+d)$`),
}

// checkInput refuses fields that the path does not have, and values that are not of their field's type. The framework
// would only warn of the first, and repeat the value of the second in its error.
func checkInput(path *framework.Path, operation logical.Operation, data map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(data)) { // the same error for the same input
		schema := path.Fields[name]
		if path.Fields[privateKeyField] != nil && (data["kty"] != nil || data["keys"] != nil) {
			return fieldError(privateKeyField, "give the file as the value of that field: private_key=@key.json",
				"the members of a JWK were given as fields; Vault's audit log has their names in clear, and hashes of their values")
		}
		if schema == nil || !takes(path, operation, name) {
			return unknownField(path, operation, name)
		}
		if isCaptured(path, name) {
			// The framework would go on with what the path says: with the configuration's own client ID, for example,
			// where a role was meant.
			return fieldError(name, "give it as a part of the path", "it was given as a field, but belongs into the path")
		}
		if name == privateKeyField {
			if _, isString := data[name].(string); !isString {
				return fieldError(name, privatekey.AcceptedForms, "it is neither a string nor a JSON object")
			}
		}
		if !isOfType(name, data[name], path.Fields) {
			return wrongType(name, schema.Type)
		}
	}
	return nil
}

// isOfType reports whether a value is of its field's type. Null and the empty string are of every type: they stand for the
// default.
func isOfType(name string, value any, schemas map[string]*framework.FieldSchema) bool {
	if value == nil || value == "" {
		return true
	}
	kind := schemas[name].Type
	if _, isBool := value.(bool); isBool && kind != framework.TypeBool {
		return false // the framework would take true for the string "1"
	}
	if form := plainForms[kind]; form != nil && !form.MatchString(fmt.Sprint(value)) {
		return false
	}
	data := framework.FieldData{Raw: map[string]any{name: value}, Schema: schemas}
	return data.Validate() == nil
}

// isCaptured reports whether the field is a part of the path.
func isCaptured(path *framework.Path, field string) bool {
	return strings.Contains(path.Pattern, "(?P<"+field+">")
}

// takes reports whether an operation takes a field of its path. What a deletion takes, and nothing else does, is marked
// as coming in the query.
func takes(path *framework.Path, operation logical.Operation, field string) bool {
	return isCaptured(path, field) || path.Operations[logical.DeleteOperation] == nil ||
		path.Fields[field].Query == (operation == logical.DeleteOperation)
}

func unknownField(path *framework.Path, operation logical.Operation, name string) error {
	known := make([]string, 0, len(path.Fields))
	for field := range path.Fields {
		if !isCaptured(path, field) && takes(path, operation, field) {
			known = append(known, field)
		}
	}
	slices.Sort(known)
	wayOut := "this path takes no fields"
	if len(known) > 0 {
		wayOut = "the fields of this path are " + strings.Join(known, ", ")
	}
	if !fieldNamePattern.MatchString(name) {
		return fieldError("", wayOut+"; give each as field=value",
			"a field that was given is unknown, and its name is not repeated here because it looks like no field's name")
	}
	return fieldError(name, wayOut, "unknown field")
}
