// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package marks is how what was made or measured gets into a page of the docs: a part of the page stands between the lines
//
//	<!-- begin: NAME, written by COMMAND -->
//	<!-- end: NAME -->
package marks

import (
	"fmt"
	"os"
	"regexp"
)

// find returns the page, and where the text of a part begins and ends in it.
func find(page, part string) (text string, begin, end int, err error) {
	written, err := os.ReadFile(page)
	if err != nil {
		return "", 0, 0, err
	}
	name := regexp.QuoteMeta(part)
	at := regexp.MustCompile(`(?s)<!-- begin: ` + name + `, written by [^\n]* -->\n(.*?)<!-- end: ` + name + ` -->\n`).FindSubmatchIndex(written)
	if at == nil {
		return "", 0, 0, fmt.Errorf("%s has no part %q", page, part)
	}
	return string(written), at[2], at[3], nil
}

// Read returns what a part of a page has.
func Read(page, part string) (string, error) {
	text, begin, end, err := find(page, part)
	return text[begin:end], err
}

// Replace puts text in the place of what a part of a page has.
func Replace(page, part, text string) error {
	written, begin, end, err := find(page, part)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(written[:begin]+text+written[end:]), 0o644)
}

// Hold fails a test when a part of a page has another text. With update the page gets it instead.
func Hold(t interface {
	Helper()
	Errorf(format string, arguments ...any)
}, page, part, text string, update bool) {
	t.Helper()
	has, err := Read(page, part)
	if err == nil && has != text {
		if update {
			err = Replace(page, part, text)
		} else {
			err = fmt.Errorf("%s is not up to date about %s; run the command that is named there, and look at the difference. It should have:\n%s",
				page, part, text)
		}
	}
	if err != nil {
		t.Errorf("%v", err)
	}
}
