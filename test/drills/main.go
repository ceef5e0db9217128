// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Drills breaks what the engine depends on, one thing after the other, and prints what readers saw: Redox, the network,
// the clock, Vault itself, the plugin's process. Everything is real but Redox, which is the sandbox, and all of it is on
// the loopback interface. scripts/drills builds what this needs and runs it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/marks"
	"vault-plugin-secrets-redox/internal/testvault"
)

// drills is a run.
type drills struct {
	vault     string // the binary
	plugin    string // the binary, in a folder of its own
	version   string // of the plugin
	directory string
	only      *regexp.Regexp
	output    bytes.Buffer // what was printed, to be searched for secrets
	docs      string       // Markdown file whose tables are written anew, if any
	machine   string
	reports   []*report
	servers   []*server

	mu sync.Mutex
}

// print writes to the screen, and keeps it.
func (in *drills) print(format string, arguments ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Fprintf(io.MultiWriter(os.Stdout, &in.output), format, arguments...)
}

func main() {
	in := &drills{}
	flag.StringVar(&in.vault, "vault", "", "the Vault binary")
	flag.StringVar(&in.plugin, "plugin", "", "the plugin's binary")
	only := flag.String("run", "", "only the drills whose name matches this regular expression")
	flag.StringVar(&in.docs, "docs", "", "Markdown file in which the table of each stage that is done as a whole is written anew")
	list := flag.Bool("list", false, "only list the drills")
	flag.Parse()
	if *list {
		for _, s := range stages {
			for _, what := range s.drills {
				fmt.Printf("%-24s %s\n", what.name, what.title)
			}
		}
		return
	}
	var err error
	if in.only, err = regexp.Compile(*only); err == nil {
		err = in.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "drills:", err)
		os.Exit(1)
	}
}

func (in *drills) run() error {
	for _, file := range []*string{&in.vault, &in.plugin} {
		var err error
		if *file, err = filepath.Abs(*file); err != nil {
			return err
		}
	}
	var err error
	if in.version, err = testvault.PluginVersion(in.plugin); err != nil {
		return err
	}
	if in.directory, err = os.MkdirTemp("", "redox-drills-"); err != nil {
		return err
	}
	defer os.RemoveAll(in.directory)
	// Ctrl-C ends this process; watchdogs then end the servers.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		os.RemoveAll(in.directory)
		os.Exit(1)
	}()
	in.machine = in.describe()
	in.print("%s\n", in.machine)

	began := time.Now()
	for _, s := range stages {
		if err := in.runStage(s); err != nil {
			return err
		}
	}
	if len(in.reports) == 0 {
		return errors.New("no drill has such a name; see -list")
	}
	leaks, err := in.search()
	if err != nil {
		return err
	}
	in.print("\n=== verdicts after %s\n", short(time.Since(began)))
	var failed []string
	for _, d := range in.reports {
		in.print("  %s  %-24s %s\n", d.verdict(), d.drill.name, d.drill.title)
		if !d.passed() {
			failed = append(failed, d.drill.name)
		}
	}
	for _, leak := range leaks {
		in.print("  FAIL  %s\n", leak)
	}
	in.print("  secrets found in output, logs and audit logs: %d\n", len(leaks))
	if len(failed) > 0 || len(leaks) > 0 {
		return fmt.Errorf("%d of %d drills failed: %s", len(failed), len(in.reports), strings.Join(failed, ", "))
	}
	in.print("DRILLS PASSED: %d\n", len(in.reports))
	return nil
}

// stage is drills that share a Vault.
type stage struct {
	what   string
	at     int // how many drills at a time
	nodes  int // of the Vault
	audit  bool
	drills []drill
}

func (in *drills) runStage(s stage) error {
	var wanted []drill
	for _, what := range s.drills {
		if in.only.MatchString(what.name) {
			wanted = append(wanted, what)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	in.print("\n--- %s: %d drills, %d at a time; starting Vault\n", s.what, len(wanted), s.at)
	if err := in.startCluster(s); err != nil {
		return err
	}
	defer func() {
		for _, node := range in.servers {
			node.Stop()
		}
	}()
	done := make(chan *report)
	slots := make(chan struct{}, s.at)
	go func() {
		for _, what := range wanted {
			slots <- struct{}{}
			in.print("... %s: %s\n", what.name, what.title)
			go func() {
				d := in.conduct(what)
				<-slots
				done <- d
			}()
		}
	}()
	results := map[string]*report{}
	for range wanted {
		d := <-done
		results[d.drill.name] = d
		var text bytes.Buffer
		d.print(&text)
		in.print("%s", text.String())
	}
	var reports []*report
	for _, what := range wanted {
		reports = append(reports, results[what.name])
	}
	in.reports = append(in.reports, reports...)
	if in.docs != "" && len(wanted) == len(s.drills) {
		return marks.Replace(in.docs, s.what, "scripts/drills", table(in.machine, reports))
	}
	return nil
}

// startCluster starts the stage's Vault.
func (in *drills) startCluster(s stage) error {
	in.servers = nil
	for number := range s.nodes {
		node, err := newServer(in, fmt.Sprintf("%s-%d", strings.ReplaceAll(s.what, " ", "-"), number+1))
		if err != nil {
			return err
		}
		in.servers = append(in.servers, node)
		if number == 0 {
			if err := node.initialize(s.audit); err != nil {
				return err
			}
			continue
		}
		first := in.servers[0]
		node.Token, node.unsealKey = first.Token, first.unsealKey
		if _, err := node.must("POST", "sys/storage/raft/join", map[string]any{"leader_api_addr": first.Address}); err != nil {
			return err
		}
		if err := node.unseal(); err != nil {
			return err
		}
	}
	return awaitVoters(in.servers)
}

// search looks for secrets in what was printed and written.
func (in *drills) search() ([]string, error) {
	scanner := leakcheck.New()
	texts := map[string][]byte{"what was printed": in.output.Bytes()}
	for _, pattern := range []string{"*/vault.log", "*/audit.log"} {
		files, err := filepath.Glob(filepath.Join(in.directory, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if texts[file], err = os.ReadFile(file); err != nil {
				return nil, err
			}
		}
	}
	var found []string
	for name, text := range texts {
		for _, leak := range scanner.Scan(text) {
			found = append(found, fmt.Sprintf("%s is in %s", leak, strings.TrimPrefix(name, in.directory+"/")))
		}
	}
	return found, nil
}

// describe says what the drills run on.
func (in *drills) describe() string {
	vault, _ := exec.Command(in.vault, "version").Output()
	name, _, _ := strings.Cut(strings.TrimSpace(string(vault)), ",") // then comes when it was built
	memory := ""
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kilobytes int
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kilobytes); err == nil {
			memory = fmt.Sprintf(", %d GiB of memory", kilobytes>>20)
		}
	}
	load := ""
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = ", load average " + strings.Fields(string(text))[0] + " at the start"
	}
	return fmt.Sprintf("%s with integrated storage, plugin %s; %s/%s, %d processors%s%s; %s", name, in.version,
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), memory, load, time.Now().UTC().Format("2006-01-02"))
}
