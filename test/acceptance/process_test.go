// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"os/exec"
	"testing"

	"vault-plugin-secrets-redox/internal/testvault"
)

// startProcess runs a command until it is stopped or the test ends. What it prints is kept for the search for secrets.
func startProcess(t testing.TB, name string, command *exec.Cmd) *testvault.Process {
	t.Helper()
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	p, err := testvault.StartProcess(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop()
		output.record("the log of "+name, log.String())
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, log.String())
		}
	})
	return p
}
