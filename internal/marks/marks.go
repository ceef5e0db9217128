// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package marks puts what a script has measured into a page of the docs.
package marks

import (
	"fmt"
	"os"
	"strings"
)

// Replace puts text between the marks of a part of a page, which name the script that writes it.
func Replace(page, part, script, text string) error {
	written, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	begin := fmt.Sprintf("<!-- begin: %s, written by %s -->\n", part, script)
	end := fmt.Sprintf("<!-- end: %s -->\n", part)
	before, rest, begun := strings.Cut(string(written), begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return fmt.Errorf("%s has not the marks %q and %q", page, begin, end)
	}
	return os.WriteFile(page, []byte(before+begin+text+end+after), 0o644)
}
