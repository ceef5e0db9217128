// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command nomad reads a Nomad job file with Nomad's own parser, and prints the job as JSON, defaults included.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/nomad/jobspec2"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: file, Body: text, Strict: true})
	if err != nil {
		return err
	}
	job.Canonicalize()
	return json.NewEncoder(os.Stdout).Encode(job)
}
