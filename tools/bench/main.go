// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command bench compares reads of the Redox engine with those of other engines of one Vault server, in one run: what
// counts are the ratios. scripts/bench builds what it needs and calls it. It talks to loopback only.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"vault-plugin-secrets-redox/internal/marks"
)

// settings are the flags.
type settings struct {
	vault, plugins, sandbox string // files and a folder that scripts/bench has built
	docs                    string // folder with benchmarks.md, to write its tables and plot; empty: nowhere
	inside                  string // file with what the benchmarks inside the process printed
	rounds                  int
	duration                time.Duration // of one measurement
	clients                 int           // connections at once
	roles                   int
	reads                   int
	coldRoles               int
	only                    string // the part to measure; empty: all
	read                    bool   // be the reader of a cold start
}

func main() {
	log.SetFlags(0)
	var s settings
	flag.StringVar(&s.vault, "vault", "", "the vault binary")
	flag.StringVar(&s.plugins, "plugins", "", "folder with the two plugins")
	flag.StringVar(&s.sandbox, "sandbox", "", "the redox-sandbox binary")
	flag.StringVar(&s.docs, "docs", "", "folder whose benchmarks.md and benchmarks.svg to write anew")
	flag.StringVar(&s.inside, "inside", "", "file with what the benchmarks inside the process printed, for the docs")
	flag.IntVar(&s.rounds, "rounds", 7, "interleaved rounds; the median counts")
	flag.DurationVar(&s.duration, "duration", 4*time.Second, "of one measurement")
	flag.IntVar(&s.clients, "clients", 16, "connections at once")
	flag.IntVar(&s.roles, "roles", 10_000, "roles with live tokens, for memory")
	flag.IntVar(&s.reads, "reads", 1_000_000, "reads, for memory")
	flag.IntVar(&s.coldRoles, "cold-roles", 10_000, "roles of the larger cold start; at most 1000: none")
	flag.StringVar(&s.only, "only", "", "measure one part: a cold start, or rates")
	flag.BoolVar(&s.read, "read", false, "for the program itself: be the reader of a cold start")
	flag.Parse()
	if s.read {
		if err := readUntilTold(); err != nil {
			log.Fatal("bench: ", err)
		}
		return
	}
	if err := run(context.Background(), s); err != nil {
		log.Fatal("bench: ", err)
	}
}

func run(ctx context.Context, s settings) error {
	directory, err := os.MkdirTemp("", "redox-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	redox, err := startSandbox(ctx, s.sandbox, 5*time.Minute)
	if err != nil {
		return err
	}
	defer redox.Stop()
	vault, err := startVault(ctx, s.vault, s.plugins, filepath.Join(directory, "vault"))
	if err != nil {
		return err
	}
	defer vault.Stop()
	if err := setUp(vault, redox); err != nil {
		return err
	}
	r := &report{settings: s}
	if s.only == "" || s.only == coldPart {
		if err := measureColdStarts(ctx, vault, s, r); err != nil {
			return err
		}
		if err := r.write(coldPart, r.coldTable()); err != nil || s.only != "" {
			return err
		}
	}
	if err := measureRates(vault, s, r); err != nil {
		return err
	}
	if s.only == ratesPart {
		fmt.Print("\n", r.ratesTable())
		return nil
	}
	if err := measureRefreshes(ctx, vault, s, r); err != nil {
		return err
	}
	if err := measureMemory(vault, s, r); err != nil {
		return err
	}
	if err := measureSizes(s, r); err != nil {
		return err
	}
	if err := r.write("the tables", r.markdown()); err != nil || s.docs == "" {
		return err
	}
	inside, err := os.ReadFile(s.inside)
	if err != nil {
		return err
	}
	if err := r.write("inside the process", "```text\n"+string(inside)+"```\n"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.docs, "benchmarks.svg"), []byte(r.plot()), 0o644)
}

// write prints a part of the report, and puts it into the docs if they are to be written.
func (r *report) write(part, text string) error {
	fmt.Print("\n", text)
	if r.settings.docs == "" {
		return nil
	}
	return marks.Replace(filepath.Join(r.settings.docs, "benchmarks.md"), part, "\n"+text+"\n")
}
