// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/marks"
	"vault-plugin-secrets-redox/internal/testvault"
)

// docs is the page whose tables are written anew, from the root.
var docs = flag.String("docs", "", "Markdown file in which the table of each stage that was done as a whole is written anew")

// What all drills share.
var (
	vaultBinary   string
	pluginFile    string // alone in its folder
	pluginVersion string
	directory     string // of all servers
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runDrills(m))
}

// runDrills builds the plugin, runs the drills, and looks for secrets in what the servers wrote.
func runDrills(m *testing.M) int {
	var err error
	if directory, err = os.MkdirTemp("", "redox-drills-"); err != nil {
		return complain(err)
	}
	defer os.RemoveAll(directory)
	if vaultBinary = os.Getenv("VAULT_BIN"); vaultBinary == "" {
		return complain(errors.New("VAULT_BIN is not set: run scripts/drills"))
	}
	pluginFile = filepath.Join(directory, "plugins", pluginName)
	if text, err := exec.Command("../../scripts/build", pluginFile).CombinedOutput(); err != nil {
		return complain(fmt.Errorf("building the plugin failed: %w\n%s", err, text))
	}
	if pluginVersion, err = testvault.PluginVersion(pluginFile); err != nil {
		return complain(err)
	}
	// As many of a stage's drills run at once, where they may.
	if err := flag.Set("test.parallel", "6"); err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := search(); err != nil {
		return complain(err)
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "drills:", err)
	return 1
}

// stage is drills that share a Vault.
type stage struct {
	what   string
	atOnce bool // its drills don't mind each other
	nodes  int  // of the Vault
	audit  bool
	drills []drill

	started sync.Once
	servers []*server
	startup error

	mu      sync.Mutex
	reports map[string]*report
}

// drill is something that goes wrong, and what has to come of it.
type drill struct {
	name  string // also the path of its mount
	title string
	run   func(*report)
}

func TestDrills(t *testing.T) {
	machine := describe()
	t.Log(machine)
	for _, s := range stages {
		t.Run(strings.ReplaceAll(s.what, " ", "-"), func(t *testing.T) {
			s.reports = map[string]*report{}
			t.Cleanup(func() {
				for _, node := range s.servers {
					node.Stop()
				}
				if *docs == "" || len(s.reports) < len(s.drills) {
					return
				}
				if err := marks.Replace(filepath.Join("../..", *docs), s.what, s.table(machine)); err != nil {
					t.Error(err)
				}
			})
			for _, what := range s.drills {
				t.Run(what.name, func(t *testing.T) {
					if s.atOnce {
						t.Parallel()
					}
					s.conduct(t, what)
				})
			}
		})
	}
}

// conduct runs a drill, on the stage's Vault, which the first one starts.
func (s *stage) conduct(t *testing.T, what drill) {
	s.started.Do(func() { s.startup = s.start() })
	if s.startup != nil {
		t.Fatal(s.startup)
	}
	d := &report{t: t, drill: what, servers: s.servers}
	defer d.log()
	what.run(d)
	if d.checks == 0 {
		t.Error("nothing was checked")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[what.name] = d
}

// start starts the stage's Vault.
func (s *stage) start() error {
	for number := range s.nodes {
		node, err := newServer(fmt.Sprintf("%s-%d", strings.ReplaceAll(s.what, " ", "-"), number+1))
		if err != nil {
			return err
		}
		s.servers = append(s.servers, node)
		if number == 0 {
			if err := node.initialize(s.audit); err != nil {
				return err
			}
			continue
		}
		first := s.servers[0]
		node.Token, node.unsealKey = first.Token, first.unsealKey
		if _, err := node.must("POST", "sys/storage/raft/join", map[string]any{"leader_api_addr": first.Address}); err != nil {
			return err
		}
		if err := node.unseal(); err != nil {
			return err
		}
	}
	return awaitVoters(s.servers)
}

// table is the stage's reports in Markdown.
func (s *stage) table(machine string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "On: %s.\n\n| Drill | What is done | What readers saw | At Redox | |\n|---|---|---|---|---|\n", machine)
	for _, what := range s.drills {
		d := s.reports[what.name]
		verdict := "PASS"
		if d.t.Failed() {
			verdict = "FAIL"
		}
		fmt.Fprintf(&b, "| `%s`: %s | %s | %s | %s | %s |\n", what.name, what.title, strings.Join(d.did, "; "),
			strings.Join(d.readers, "; "), strings.Join(d.requests, "; "), verdict)
	}
	return b.String()
}

// search looks for secrets in what the servers wrote.
func search() error {
	scanner := leakcheck.New()
	var found []string
	for _, pattern := range []string{"*/vault.log", "*/audit.log"} {
		files, err := filepath.Glob(filepath.Join(directory, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, leak := range scanner.Scan(text) {
				found = append(found, fmt.Sprintf("%s is in %s", leak, strings.TrimPrefix(file, directory+"/")))
			}
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("this was not to be found:\n  %s", strings.Join(found, "\n  "))
	}
	return nil
}

// describe says what the drills run on.
func describe() string {
	vault, _ := exec.Command(vaultBinary, "version").Output()
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
	return fmt.Sprintf("%s with integrated storage, plugin %s; %s/%s, %d processors%s%s; %s", name, pluginVersion,
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), memory, load, time.Now().UTC().Format("2006-01-02"))
}
