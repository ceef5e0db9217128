// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// load reads a document and holds it against the specification.
func load(ctx context.Context, text []byte) (*openapi3.T, error) {
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if document.Paths.Len() == 0 {
		return nil, errors.New("it has no paths")
	}
	return document, document.Validate(ctx)
}

// operation is one of the document's.
type operation struct {
	name   string // method and path
	method string
	path   *regexp.Regexp
	*openapi3.Operation
}

var parameter = regexp.MustCompile(`\\\{\w+\\\}`)

// listOperations gives the operations, and what one has to have but lacks.
func listOperations(document *openapi3.T) (operations []operation, problems []string) {
	complain := func(format string, arguments ...any) {
		problems = append(problems, fmt.Sprintf(format, arguments...))
	}
	owners := map[string]string{} // of operation IDs
	for path, item := range document.Paths.Map() {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
		for method, declared := range item.Operations() {
			o := operation{method + " " + path, method, pattern, declared}
			operations = append(operations, o)
			if o.OperationID == "" || o.Summary == "" {
				complain("%s lacks an operationId or a summary", o.name)
			}
			if owner, taken := owners[o.OperationID]; taken {
				complain("%s has the operationId %q, and so has %s", o.name, o.OperationID, owner)
			}
			owners[o.OperationID] = o.name
			if o.RequestBody != nil && len(properties(o.RequestBody.Value.Content)) == 0 {
				complain("%s: the request has no schema", o.name)
			}
			succeeds := false
			for status, response := range o.Responses.Map() {
				succeeds = succeeds || strings.HasPrefix(status, "2")
				content := response.Value.Content
				switch {
				case status == "204":
					if len(content) > 0 {
						complain("%s: %s has content", o.name, status)
					}
				case content["application/json"] == nil && len(content) == 1:
					// Text, such as metrics. The SDK can't give it a schema.
				case len(properties(content)) == 0:
					complain("%s: the answer %s has no schema", o.name, status)
				}
			}
			if !succeeds {
				complain("%s has no answer for success", o.name)
			}
		}
	}
	return operations, problems
}

// properties gives the fields of a JSON body, all of which have a type.
func properties(content openapi3.Content) openapi3.Schemas {
	media := content["application/json"]
	if media == nil || media.Schema == nil || !media.Schema.Value.Type.Is("object") {
		return nil
	}
	for _, property := range media.Schema.Value.Properties {
		if property.Value.Type == nil || property.Value.Description == "" {
			return nil
		}
	}
	return media.Schema.Value.Properties
}
