// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each fuzz target has inputs of its own under testdata/fuzz, besides the seeds in its code, and no input is left of a
// target that is gone: "go test" would not try it, and say nothing.
func TestFuzzCorporaAreComplete(t *testing.T) {
	declaration := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)
	targets, corpora := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		directory, name := filepath.Split(path)
		switch {
		case entry.IsDir() && path != "." && (strings.HasPrefix(name, ".") || name == "tools"):
			return fs.SkipDir
		case entry.IsDir() && strings.HasSuffix(directory, filepath.Join("testdata", "fuzz")+string(filepath.Separator)):
			inputs, err := os.ReadDir(path)
			if len(inputs) > 0 {
				corpora[path] = true
			}
			return err
		case strings.HasSuffix(name, "_test.go"):
			text, err := os.ReadFile(path)
			for _, found := range declaration.FindAllSubmatch(text, -1) {
				targets[filepath.Join(directory, "testdata", "fuzz", string(found[1]))] = true
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) == 0 {
		t.Fatal("no fuzz target was found")
	}
	for corpus := range targets {
		if !corpora[corpus] {
			t.Errorf("there is no input in %s", corpus)
		}
	}
	for corpus := range corpora {
		if !targets[corpus] {
			t.Errorf("there is no fuzz target for %s", corpus)
		}
	}
}
