// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command kubernetes checks the manifests of examples/kubernetes, and whether the programs they configure understand an
// answer of the engine.
//
//	go run . FOLDER                    checks the manifests
//	go run . -answer FOLDER < ANSWER   checks an answer of the token endpoint, too
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	answer := flag.Bool("answer", false, "read an answer of the token endpoint from standard input, and check it")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run . [-answer] FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *answer); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(folder string, withAnswer bool) error {
	c, err := newChecker()
	if err != nil {
		return err
	}
	objects, err := c.checkFolder(os.DirFS(folder))
	if err != nil {
		return err
	}
	fmt.Printf("%d objects are as Kubernetes wants them\n", objects)
	if !withAnswer {
		return nil
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := checkAnswer(text); err != nil {
		return err
	}
	fmt.Println("the answer is understood")
	return nil
}
