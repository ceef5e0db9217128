// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command openapi checks an OpenAPI document of the plugin's mount, and requests and answers of that mount against it:
// one JSON object on standard input, see input. It prints what is wrong, a problem a line, and then ends with 1.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
)

// input is what the program reads.
type input struct {
	Document json.RawMessage `json:"document"` // its paths relative to the mount
	// Exchanges have to cover every operation and every answer that the document has. Empty: only the document is checked.
	Exchanges []exchange `json:"exchanges"`
}

func main() {
	problems, err := check(os.Stdin)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

func check(from io.Reader) (problems []string, err error) {
	var in input
	if err := json.NewDecoder(from).Decode(&in); err != nil {
		return nil, err
	}
	document, err := load(context.Background(), in.Document)
	if err != nil {
		return nil, fmt.Errorf("the document does not conform to OpenAPI 3: %w", err)
	}
	operations, problems := listOperations(document)
	if len(in.Exchanges) > 0 {
		problems = append(problems, checkExchanges(operations, in.Exchanges)...)
	}
	slices.Sort(problems)
	return problems, nil
}
