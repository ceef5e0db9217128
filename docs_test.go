// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLinks: where a page of this repository links to another file of it, that file exists, and so does the section.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	links := 0
	for _, file := range repositoryFiles(t) {
		if filepath.Ext(file) != ".md" {
			continue
		}
		for _, found := range link.FindAllStringSubmatch(string(must(os.ReadFile(file))), -1) {
			target, section, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			linked := file
			if target != "" {
				linked = filepath.Join(filepath.Dir(file), target)
			}
			checkCited(t, file, found[1], linked, section)
		}
	}
	if links == 0 {
		t.Fatal("there are no links")
	}
}

// TestCitedPages: where any file, such as a script, a workflow or a comment in Go, names a page of docs or a path below
// examples, that exists. A section is named as in docs/internals/reliability.md#soak.
func TestCitedPages(t *testing.T) {
	citation := regexp.MustCompile(`(?:^|[^\w./-]|\.\./)(docs/(?:internals/)?[\w-]+\.\w+|examples/[\w./-]*\w)(?:#([\w-]+))?`)
	citing := map[string]bool{}
	for _, file := range repositoryFiles(t) {
		content := string(must(os.ReadFile(file)))
		if strings.Contains(content, "\x00") {
			continue // a program that was built here
		}
		for line := range strings.Lines(content) {
			for _, found := range citation.FindAllStringSubmatch(line, -1) {
				citing[filepath.Dir(file)] = true
				checkCited(t, file, found[1], found[1], found[2])
			}
		}
	}
	for _, directory := range []string{".", ".github/workflows", "scripts", "test/acceptance"} {
		if !citing[directory] {
			t.Errorf("no citation was found in %s, where there are some", directory)
		}
	}
}

// TestDependabot: Dependabot watches every Go module of this repository but the hosts to test on, and no directory without
// one.
func TestDependabot(t *testing.T) {
	var modules, watched []string
	for _, file := range repositoryFiles(t) {
		if filepath.Base(file) == "go.mod" && !strings.HasPrefix(filepath.ToSlash(file), "tools/vault/") {
			modules = append(modules, path.Join("/", filepath.ToSlash(filepath.Dir(file))))
		}
	}
	settings := string(must(os.ReadFile(".github/dependabot.yml")))
	for _, found := range regexp.MustCompile(`(?m)^ +- (/\S*)$`).FindAllStringSubmatch(settings, -1) {
		watched = append(watched, found[1])
	}
	slices.Sort(modules)
	slices.Sort(watched)
	if !slices.Equal(watched, modules) {
		t.Errorf(".github/dependabot.yml lists under directories\n%q, the Go modules are in\n%q", watched, modules)
	}
}

// TestMountsNameTheirVersion: whoever mounts the engine says which version is meant. From Vault 2.1 on the catalog may answer
// with any.
func TestMountsNameTheirVersion(t *testing.T) {
	mounts := regexp.MustCompile("(?s)vault secrets enable (?:[^`;|&\n]|\\\\\n)*vault-plugin-secrets-redox")
	found := 0
	for _, file := range repositoryFiles(t) {
		if !slices.Contains([]string{".md", "", ".sh", ".yml", ".yaml", ".hcl"}, filepath.Ext(file)) {
			continue
		}
		for _, command := range mounts.FindAllString(string(must(os.ReadFile(file))), -1) {
			if found++; !strings.Contains(command, "-plugin-version=") {
				t.Errorf("%s: without a version: %s", file, command)
			}
		}
	}
	if found < 3 {
		t.Errorf("only %d mounts were found", found)
	}
}

// repositoryFiles returns the paths of all files, without those in hidden directories other than .ci and .github.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !entry.IsDir():
			files = append(files, file)
		case strings.HasPrefix(entry.Name(), ".") && file != "." && file != ".ci" && file != ".github":
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkCited reports a file or section that is missing.
func checkCited(t *testing.T, file, citation, cited, section string) {
	t.Helper()
	if info, err := os.Stat(cited); err != nil {
		t.Errorf("%s cites %s, which does not exist", file, citation)
	} else if section != "" && (info.IsDir() || !hasHeading(string(must(os.ReadFile(cited))), section)) {
		t.Errorf("%s cites the section %s of %s, which does not exist", file, section, citation)
	}
}

// hasHeading reports whether a page has a heading with an anchor, made of the heading as GitHub does.
func hasHeading(page, anchor string) bool {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		words := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}
