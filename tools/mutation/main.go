// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command mutation breaks the engine's core, one operator at a time (< becomes <=, && becomes ||, + becomes -), and tells which
// breaks no test notices: there a test is missing, or the change does no harm. The mutants are made by gremlins
// (https://github.com/go-gremlins/gremlins), which can't take away a statement or change a constant, a call or a returned value.
// scripts/mutation calls it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// target is code whose tests are tried.
type target struct {
	name      string
	directory string
	file      string // the only one to break; empty for all
	tests     string // a regular expression for the tests that are about it; empty for all
}

var targets = []target{
	{name: "tokencache", directory: "internal/tokencache"},
	{name: "rotation", directory: "internal/rotation"},
	{name: "redox", directory: "internal/redox"},
	{name: "privatekey", directory: "internal/privatekey"},
	{name: "jwk", directory: "internal/jwk"},
	// All tests of the engine together take minutes; these are about what is signed.
	{name: "signer", directory: ".", file: "signer.go", tests: "^(TestAssertion|TestPrivateKey|TestUnusable|TestSignaturesAtOnce)"},
}

func main() {
	if filepath.Base(os.Args[0]) == "go" {
		os.Exit(standIn(os.Args[1:]))
	}
	gremlins := flag.String("gremlins", "", "the gremlins `program`")
	work := flag.String("work", "", "an empty `directory` to work in")
	only := flag.String("run", "", "a regular `expression` for the code to break: tokencache, rotation, redox, privatekey, jwk, signer")
	workers := flag.Int("workers", runtime.NumCPU(), "how many mutants are tried at the same time, a `number`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *gremlins, *work, *only, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, gremlins, work, only string, workers int) error {
	chosen, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	reasons, err := readReasons("tools/mutation/harmless.txt")
	if err != nil {
		return err
	}
	checkout := filepath.Join(work, "checkout")
	if err := copySource(checkout); err != nil {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(work, "bin"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(own, filepath.Join(work, "bin", "go")); err != nil {
		return err
	}
	var tried []string
	unexplained := 0
	for _, target := range targets {
		if !chosen.MatchString(target.name) {
			continue
		}
		got, err := mutate(ctx, gremlins, work, checkout, target, workers)
		if err != nil {
			return fmt.Errorf("%s: %w", target.name, err)
		}
		text, without := got.text(reasons)
		fmt.Printf("\n%s: %s", target.name, text)
		for _, entry := range reasons.stale(got) {
			fmt.Fprintf(os.Stderr, "no longer lives, so take it out of tools/mutation/harmless.txt: %s\n", entry)
		}
		unexplained += without
		tried = append(tried, target.name)
	}
	if len(tried) == 0 {
		return fmt.Errorf("-run %s chooses nothing", only)
	}
	if unexplained > 0 {
		return fmt.Errorf("%d mutants live that tools/mutation/harmless.txt does not explain: "+
			"write the test that each of them fails, or say there why it is harmless", unexplained)
	}
	fmt.Printf("\nMUTATION CHECK PASSED: %s\n", strings.Join(tried, ", "))
	return nil
}

// copySource copies what the tests of the targets need: gremlins copies the whole of a module for each of its workers.
func copySource(to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		return err
	}
	for _, file := range append(files, "go.mod", "go.sum") {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, file), text, 0o644); err != nil {
			return err
		}
	}
	for _, directory := range []string{"docs", "internal", "testdata"} {
		if err := os.CopyFS(filepath.Join(to, directory), os.DirFS(directory)); err != nil {
			return err
		}
	}
	return nil
}

// mutate runs gremlins on one target.
func mutate(ctx context.Context, gremlins, work, checkout string, target target, workers int) (*result, error) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return nil, err
	}
	tests := ""
	if target.tests != "" {
		tests = "-run=" + target.tests
	}
	environment := append(os.Environ(),
		realGo+"="+goCommand,
		testArgument+"="+tests,
		"PATH="+filepath.Join(work, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"TMPDIR="+work)

	// How long the tests take decides when a mutant takes too long: what they need is built before.
	fmt.Fprintf(os.Stderr, "\n== %s: building its tests\n", target.name)
	build := exec.CommandContext(ctx, goCommand, "test", "-vet=off", "-ldflags=-s -w", "-run=^$", "./"+target.directory)
	build.Dir, build.Stdout, build.Stderr = checkout, os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}

	output := filepath.Join(work, target.name+".json")
	arguments := []string{"unleash", "--output", output, "--timeout-coefficient", "3", "--workers", strconv.Itoa(workers),
		"--invert-logical", "--invert-loopctrl", "--invert-bitwise", "--invert-assignments", "--invert-bwassign",
		"--remove-self-assignments"}
	excluded, err := target.excluded(checkout)
	if err != nil {
		return nil, err
	}
	for _, file := range excluded {
		arguments = append(arguments, "--exclude-files", "^"+regexp.QuoteMeta(file)+"$")
	}
	fmt.Fprintf(os.Stderr, "== %s: gremlins\n", target.name)
	began := time.Now()
	command := exec.CommandContext(ctx, gremlins, append(arguments, filepath.Join(checkout, target.directory))...)
	command.Dir, command.Env, command.Stdout, command.Stderr = checkout, environment, os.Stderr, os.Stderr
	// A group of its own, so that an interrupt ends all that gremlins has started, and each only once.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGINT) }
	command.WaitDelay = 10 * time.Second
	if err := command.Run(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	text, err := os.ReadFile(output)
	if err != nil {
		return nil, fmt.Errorf("gremlins wrote no result: %w", err)
	}
	var report struct {
		Files []struct {
			Name      string   `json:"file_name"`
			Mutations []mutant `json:"mutations"`
		} `json:"files"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, err
	}
	got := &result{target: target, took: time.Since(began)}
	for _, file := range report.Files {
		name := filepath.ToSlash(filepath.Join(target.directory, file.Name))
		for _, m := range file.Mutations {
			switch m.Status {
			case killed, lived, timedOut, notViable:
			default:
				return nil, fmt.Errorf("a mutant of %s:%d is %s", name, m.Line, m.Status)
			}
			if m.File, m.Was, m.Becomes, err = describeChange(name, m); err != nil {
				return nil, err
			}
			got.mutants = append(got.mutants, m)
		}
	}
	if got.count(killed) == 0 {
		return nil, errors.New("no mutant was killed: something is wrong with this run")
	}
	return got, nil
}

// excluded returns the files below the target's directory that are to be left whole.
func (t target) excluded(checkout string) ([]string, error) {
	if t.file == "" {
		return nil, nil
	}
	var files []string
	source := os.DirFS(filepath.Join(checkout, t.directory))
	err := fs.WalkDir(source, ".", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".go") && name != t.file {
			files = append(files, name)
		}
		return err
	})
	return files, err
}
