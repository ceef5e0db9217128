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

// TestLinks: where a page of this repository links to another file of it, that is there, and so is the section.
func TestLinks(t *testing.T) {
	links := 0
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != "." && entry.Name() != ".github" {
			return fs.SkipDir
		}
		if filepath.Ext(file) != ".md" {
			return nil
		}
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(string(must(os.ReadFile(file))), -1) {
			target, section, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			linked := file
			if target != "" {
				linked = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(linked); err != nil {
				t.Errorf("%s links to %s, which is not there", file, link[1])
			} else if section != "" && !hasHeading(string(must(os.ReadFile(linked))), section) {
				t.Errorf("%s links to %s, which has no such section", file, link[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links == 0 {
		t.Fatal("there are no links")
	}
}

// hasHeading says whether a page has a heading with an anchor, made of the heading as GitHub does.
func hasHeading(page, anchor string) bool {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		words := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		if strings.ReplaceAll(words, " ", "-") == anchor {
			return true
		}
	}
	return false
}
