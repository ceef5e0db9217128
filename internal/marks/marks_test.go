// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package marks

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
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
	for _, missing := range [][2]string{{"two", "scripts/x"}, {"one", "scripts/y"}} {
		if err := Replace(page, missing[0], missing[1], "new\n"); err == nil {
			t.Errorf("there is no part %q", missing)
		}
	}
	want(before)
	if err := Replace(page, "one", "scripts/x", "new\n"); err != nil {
		t.Error(err)
	}
	want(after)
}
