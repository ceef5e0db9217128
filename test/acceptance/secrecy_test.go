// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"crypto"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"vault-plugin-secrets-redox/internal/leakcheck"
)

// output keeps what commands and requests of the tests printed.
var output = &recorder{scanner: leakcheck.New()}

type recorder struct {
	scanner *leakcheck.Scanner // knows the keys that tests brought along

	mu      sync.Mutex
	records []record
}

type record struct{ name, text string }

// byDesign are the fields that carry a token or an assertion, in tables and in JSON.
var byDesign = regexp.MustCompile(`("?(?:access_token|client_assertion)"?(?:: ?"|\s+))[A-Za-z0-9_.-]+`)

// record keeps what was printed, but for the fields that carry a secret by design.
func (r *recorder) record(name, text string) {
	if strings.Contains(name, "-field=access_token") || strings.Contains(name, "-field=client_assertion") {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record{name, byDesign.ReplaceAllString(text, "$1")})
}

// writer records whatever is written to it.
func (r *recorder) writer(name string) io.Writer { return recordWriter{r, name} }

type recordWriter struct {
	recorder *recorder
	name     string
}

func (w recordWriter) Write(p []byte) (int, error) {
	w.recorder.record(w.name, string(p))
	return len(p), nil
}

// addKey makes the search know a private key that a test brings along.
func addKey(t testing.TB, name string, key crypto.PrivateKey) {
	t.Helper()
	if err := output.scanner.AddKey(name, key); err != nil {
		t.Fatal(err)
	}
}

// searchEverything looks for private keys, tokens and assertions in all that the tests made Vault and the plugin say:
// what the commands printed, the server's log at trace (which has the plugin's), the audit log, and the raw audit log
// but for the fields that carry a secret by design. In the logs it also looks for reports of Go's race detector.
func searchEverything(s *vaultServer) error {
	// The keys are read from storage at last, when nothing else is written to the raw audit log.
	if r := s.run(rootToken, "", "audit", "disable", "raw"); r.code != 0 {
		return errors.New(r.stderr)
	}
	if err := learnKeys(s); err != nil {
		return err
	}
	if !output.scanner.Keys() {
		return errors.New("no private key is known: the search would find nothing")
	}
	var findings []string
	search := func(name string, text []byte) {
		for _, found := range output.scanner.Scan(text) {
			findings = append(findings, fmt.Sprintf("%s holds %s", name, found))
		}
	}
	for _, file := range []string{s.LogFile(), s.auditFile()} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if len(text) == 0 {
			return fmt.Errorf("%s is empty: there is nothing to search", file)
		}
		search(file, text)
		findings = append(findings, races(file, string(text))...)
	}
	raw, err := rawAuditWithoutDesign(s.rawAuditFile())
	if err != nil {
		return err
	}
	search("the raw audit log", raw)
	var printed bytes.Buffer
	for _, r := range output.records {
		printed.WriteString(r.text)
	}
	search("what commands printed", printed.Bytes())
	findings = append(findings, races("what commands printed, and logs", printed.String())...)
	if len(findings) > 0 {
		return fmt.Errorf("this was not to be found:\n  %s", strings.Join(findings, "\n  "))
	}
	return checkRaceDetector()
}

// raceReport and raceReportEnd are around what a program built with the race detector says of a race. What a plugin says
// there gets into Vault's log. No test fails by it: the program goes on.
const (
	raceReport    = "WARNING: DATA RACE"
	raceReportEnd = "=================="
)

// races gives the first race that a log tells of, if it tells of any.
func races(name, log string) []string {
	_, report, found := strings.Cut(log, raceReport)
	if !found {
		return nil
	}
	report, _, _ = strings.Cut(report, raceReportEnd)
	return []string{fmt.Sprintf("%s: %d reports of data races; the first:%s", name, strings.Count(log, raceReport), report)}
}

// checkRaceDetector says if a run that is to find races (see scripts/build) could not have found any.
func checkRaceDetector() error {
	if os.Getenv("RACE") != "1" {
		return nil
	}
	info, err := buildinfo.ReadFile(pluginFile)
	if err != nil {
		return err
	}
	if !slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return errors.New("RACE=1 is set, but the plugin was built without the race detector")
	}
	return nil
}

// learnKeys reads the private keys of every mount of the plugin from Vault's storage.
func learnKeys(s *vaultServer) error {
	var mounts map[string]struct{ Type, UUID string }
	if err := s.json(&mounts, "secrets", "list", "-detailed", "-format=json"); err != nil {
		return err
	}
	for path, mount := range mounts {
		if mount.Type != pluginName {
			continue
		}
		storage := "sys/raw/logical/" + mount.UUID
		if err := learnWrappingKey(s, path, storage+"/wrapping_key"); err != nil {
			return err
		}
		prefix := storage + "/keys"
		var names []string
		if s.json(&names, "list", "-format=json", prefix) != nil {
			continue // no key there
		}
		for _, name := range names {
			var entry struct{ Data struct{ Value string } }
			if err := s.json(&entry, "read", "-format=json", prefix+"/"+name); err != nil {
				return err
			}
			if _, err := output.scanner.AddStored(path+name, entry.Data.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// learnWrappingKey reads a mount's wrapping key, if it has one.
func learnWrappingKey(s *vaultServer, mount, path string) error {
	var entry struct{ Data struct{ Value string } }
	if s.json(&entry, "read", "-format=json", path) != nil {
		return nil // most mounts have none
	}
	count, err := output.scanner.AddStored(mount+"wrapping_key", entry.Data.Value)
	if err == nil && count == 0 {
		err = fmt.Errorf("the stored wrapping key of %s has no private key", mount)
	}
	return err
}

// json runs a vault command whose output is not recorded, and decodes it.
func (s *vaultServer) json(into any, arguments ...string) error {
	r := s.runUnrecorded(s.rootToken, "", arguments...)
	if r.code != 0 {
		return errors.New(r.stderr)
	}
	return json.Unmarshal([]byte(r.stdout), into)
}

// rawAuditWithoutDesign gives the raw audit log without what carries secrets by design: the data of requests, which is
// what callers sent, and the tokens and assertions in the responses of the paths that give them out.
func rawAuditWithoutDesign(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var kept bytes.Buffer
	masked := 0
	mask := func(entry map[string]any, part, field string) {
		data, _ := entry[part].(map[string]any)
		if _, there := data[field]; there {
			delete(data, field)
			masked++
		}
	}
	for line := range bytes.Lines(text) {
		var entry map[string]any
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("a line of the raw audit log is no JSON: %w", err)
		}
		request, _ := entry["request"].(map[string]any)
		response, _ := entry["response"].(map[string]any)
		path, _ := request["path"].(string)
		mask(entry, "request", "data")
		switch {
		case strings.Contains(path, "/token") || path == "sys/wrapping/unwrap":
			mask(response, "data", "access_token")
		case strings.Contains(path, "/assertion"):
			mask(response, "data", "client_assertion")
		}
		rest, err := json.Marshal(entry)
		if err != nil {
			return nil, err
		}
		kept.Write(rest)
	}
	if masked == 0 {
		return nil, errors.New("the raw audit log has nothing to mask: it is not the one to search")
	}
	return kept.Bytes(), nil
}

// TestSearchFindsWhatItIsFor plants secrets where a careless plugin would leave them, each in a copy of real output.
func TestSearchFindsWhatItIsFor(t *testing.T) {
	e := newReadyEngine(t)
	key, text := newPKCS8(t, "RS384")
	addKey(t, "planted", key)
	log, err := os.ReadFile(e.vault.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	if found := output.scanner.Scan(log); len(found) > 0 {
		t.Fatalf("the log holds %v", found)
	}
	for name, planted := range map[string]string{
		"a key":        fmt.Sprintf("[TRACE] imported: key=%+v", key),
		"a PEM":        fmt.Sprintf("[TRACE] imported: key=%q", text),
		"a token":      "[TRACE] minted: token=" + e.accessToken("token"),
		"an assertion": "[TRACE] signed: " + strings.TrimSpace(e.must("write", "-f", "-field=client_assertion", e.at("assertion"))),
	} {
		if found := output.scanner.Scan(append(bytes.Clone(log), planted...)); len(found) == 0 {
			t.Errorf("%s in the log is not found", name)
		}
	}
}
