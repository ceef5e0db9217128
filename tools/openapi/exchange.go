// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/getkin/kin-openapi/openapi3"
)

// exchange is a request and its answer.
type exchange struct {
	Method      string         `json:"method"`
	Path        string         `json:"path"`    // relative to the mount, without query
	Request     map[string]any `json:"request"` // the body, if there is one
	Status      int            `json:"status"`
	ContentType string         `json:"content_type"`
	Answer      any            `json:"answer"` // without what Vault puts around it; not for text
}

// checkExchanges gives what in the exchanges is not as the document says, and what of it they leave out.
func checkExchanges(operations []operation, exchanges []exchange) (problems []string) {
	missing := map[string]bool{}
	for _, o := range operations {
		for status := range o.Responses.Map() {
			missing[o.name+" "+status] = true
		}
	}
	for _, x := range exchanges {
		i := slices.IndexFunc(operations, func(o operation) bool { return o.method == x.Method && o.path.MatchString(x.Path) })
		if i < 0 {
			problems = append(problems, fmt.Sprintf("%s %s is answered, but not in the document", x.Method, x.Path))
			continue
		}
		o := operations[i]
		delete(missing, o.name+" "+strconv.Itoa(x.Status))
		if err := o.check(x); err != nil {
			problems = append(problems, fmt.Sprintf("%s, answered with %d: %v", o.name, x.Status, err))
		}
	}
	for name := range maps.Keys(missing) {
		problems = append(problems, name+" is in the document, but has not been tried")
	}
	return problems
}

func (o operation) check(x exchange) error {
	if x.Request != nil {
		if o.RequestBody == nil {
			return fmt.Errorf("the document has no body for the request")
		}
		if err := validate(o.RequestBody.Value.Content, x.Request); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	response := o.Responses.Status(x.Status)
	switch {
	case response == nil:
		return fmt.Errorf("the document does not have this status")
	case len(response.Value.Content) == 0:
		if x.Answer != nil {
			return fmt.Errorf("the document has no body for the answer")
		}
		return nil
	case response.Value.Content[x.ContentType] == nil:
		return fmt.Errorf("the answer is %s, which the document does not have", x.ContentType)
	case x.ContentType != "application/json":
		return nil // the SDK can't describe text
	default:
		return validate(response.Value.Content, x.Answer)
	}
}

// validate holds a JSON body against its schema, in which it must find all its fields.
func validate(content openapi3.Content, body any) error {
	closed := *content["application/json"].Schema.Value
	none := false
	closed.AdditionalProperties = openapi3.AdditionalProperties{Has: &none}
	return closed.VisitJSON(body, openapi3.MultiErrors(), openapi3.EnableFormatValidation(),
		// The message of the library quotes the body.
		openapi3.SetSchemaErrorMessageCustomizer(func(err *openapi3.SchemaError) string {
			return fmt.Sprintf("%v: %s", err.JSONPointer(), err.Reason)
		}))
}
