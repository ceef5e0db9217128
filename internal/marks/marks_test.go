// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package marks

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// complaints is a test that is held.
type complaints []string

func (c *complaints) Helper() {}
func (c *complaints) Errorf(format string, arguments ...any) {
	*c = append(*c, fmt.Sprintf(format, arguments...))
}

func TestMarks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const before = "a\n<!-- begin: one, written by scripts/x -->\nold\n<!-- end: one -->\nb\n"
	const after = "a\n<!-- begin: one, written by scripts/x -->\nnew\n<!-- end: one -->\nb\n"
	if err := os.WriteFile(page, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		if got, err := os.ReadFile(page); err != nil || string(got) != text {
			t.Errorf("the page is %q, %v", got, err)
		}
	}
	if err := Replace(page, "two", "new\n"); err == nil {
		t.Error("there is no part two")
	}
	if text, err := Read(page, "one"); err != nil || text != "old\n" {
		t.Errorf("the part has %q, %v", text, err)
	}
	var c complaints
	Hold(&c, page, "one", "old\n", false)
	if len(c) != 0 {
		t.Errorf("what is up to date is complained of: %q", c)
	}
	Hold(&c, page, "one", "new\n", false)
	Hold(&c, page, "two", "new\n", true)
	if len(c) != 2 {
		t.Errorf("complaints are %q", c)
	}
	want(before)
	Hold(&c, page, "one", "new\n", true)
	if len(c) != 2 {
		t.Errorf("complaints are %q", c)
	}
	want(after)
}
