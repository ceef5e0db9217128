// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command release packs binaries that scripts/release has built: an archive for each, a container image, a software bill of
// materials and checksums. The same input gives the same bytes: times are the commit's, and nothing is random.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	r := release{}
	epoch := flag.Int64("time", 0, "the commit's time, in seconds since 1970")
	flag.StringVar(&r.version, "version", "", "version of the release, like v1.2.3")
	flag.StringVar(&r.commit, "commit", "", "commit that the binaries were built from")
	flag.StringVar(&r.root, "root", "", "directory that has LICENSE and README.md")
	flag.StringVar(&r.binaries, "binaries", "", "directory that has a directory like linux_amd64 for each binary")
	flag.StringVar(&r.out, "out", "", "existing, empty directory to write to")
	flag.Parse()
	r.made = time.Unix(*epoch, 0).UTC()
	if err := r.pack(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
