// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command put puts its standard input into a part of a page, for scripts: put PAGE PART
package main

import (
	"io"
	"log"
	"os"

	"vault-plugin-secrets-redox/internal/marks"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: put PAGE PART <text")
	}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = marks.Replace(os.Args[1], os.Args[2], string(text))
	}
	if err != nil {
		log.Fatal("put: ", err)
	}
}
