// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The environment in which the stand-in is called: the real go, and more arguments for "go test".
const (
	realGo       = "MUTATION_GO"
	testArgument = "MUTATION_TEST_ARGUMENTS"
)

// standIn is what gremlins finds as "go". gremlins takes exit code 2 for a mutant that can't be built, but "go test"
// ends with 1 for that, as for a test that failed: such a mutant would count as killed. It also ends everything that a
// mutant that takes too long has started, since gremlins only ends what it started itself. It gives the exit code.
func standIn(arguments []string) int {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx := interrupted
	testing := len(arguments) > 0 && arguments[0] == "test"
	profile := ""
	if testing {
		for i, argument := range arguments {
			if argument == "-coverprofile" {
				profile = arguments[i+1]
			}
			// A little before gremlins ends this process; it adds two seconds to what go is told.
			if limit, err := time.ParseDuration(argument); err == nil && arguments[i-1] == "-timeout" {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(interrupted, limit-2500*time.Millisecond)
				defer cancel()
			}
			arguments[i] = strings.TrimSuffix(argument, "/...") // no packages below
		}
		// What go vet finds is not what a test finds. Without symbols, linking takes half as long.
		more := append([]string{"-vet=off", "-count=1", "-ldflags=-s -w"}, strings.Fields(os.Getenv(testArgument))...)
		arguments = slices.Insert(arguments, 1, more...)
	}
	command := exec.CommandContext(ctx, os.Getenv(realGo), arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	output, err := command.CombinedOutput()
	os.Stdout.Write(output)
	if ctx.Err() != nil && interrupted.Err() == nil {
		time.Sleep(time.Minute) // gremlins sees that the time is over when it is over for this process
	}
	if profile != "" && err == nil {
		err = coverAll(profile)
	}
	var failed *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &failed), testing && bytes.Contains(output, []byte("[build failed]")),
		testing && bytes.Contains(output, []byte("[setup failed]")):
		return 2
	}
	return failed.ExitCode()
}

// coverAll changes a coverage profile so that all of each file counts as covered. gremlins tries no mutant outside of the
// blocks in it, and these hold neither the expressions behind "case" nor constants.
func coverAll(profile string) error {
	text, err := os.ReadFile(profile)
	if err != nil {
		return err
	}
	mode, blocks, _ := strings.Cut(string(text), "\n")
	all, seen := mode+"\n", map[string]bool{}
	for block := range strings.Lines(blocks) {
		file, _, _ := strings.Cut(block, ":")
		if !seen[file] {
			all += file + ":1.1,1000000.1 1 1\n"
		}
		seen[file] = true
	}
	return os.WriteFile(profile, []byte(all), 0o600)
}
