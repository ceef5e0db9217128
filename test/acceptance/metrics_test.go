// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testvault"
)

// prometheusTool gives the path of a program of Prometheus.
func prometheusTool(t testing.TB, name string) string {
	t.Helper()
	directory := os.Getenv("PROMETHEUS_DIR")
	if directory == "" {
		t.Fatal("PROMETHEUS_DIR is not set: run scripts/test, or set PROMETHEUS_DIR=$(scripts/get-prometheus)")
	}
	return filepath.Join(directory, name)
}

// prometheus is a Prometheus server process that scrapes one mount.
type prometheus struct {
	t       testing.TB
	address string
}

// startPrometheus runs examples/prometheus as its README says, with this server's address and this mount, and scrapes
// that are closer together.
func startPrometheus(e *engine) *prometheus {
	e.t.Helper()
	directory := e.t.TempDir()
	rules, err := filepath.Abs("../../docs/alerts.yml")
	if err != nil {
		e.t.Fatal(err)
	}
	replacer := strings.NewReplacer(
		"127.0.0.1:8200", strings.TrimPrefix(e.vault.address, "http://"),
		"redox/metrics", e.at("metrics"),
		"redox-prometheus", e.path+"-prometheus",
		"../../docs/alerts.yml", rules,
		"interval: 15s", "interval: 1s",
	)
	for _, name := range []string{"prometheus/prometheus.yml", "policies/prometheus.hcl"} {
		text, err := os.ReadFile(filepath.Join("../../examples", name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(directory, name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(directory, name), []byte(replacer.Replace(string(text))), 0o600)
		}
		if err != nil {
			e.t.Fatal(err)
		}
	}
	home := filepath.Join(directory, "prometheus")
	for _, block := range documentedCommands(e.t, "../examples/prometheus/README.md") {
		e.bash(home, replacer.Replace(block))
	}

	port, err := testvault.FreePort()
	if err != nil {
		e.t.Fatal(err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	command := exec.Command(prometheusTool(e.t, "prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data",
		"--web.listen-address="+listen)
	command.Dir, command.Env = home, environment(home)
	startProcess(e.t, "Prometheus", command)
	return &prometheus{e.t, "http://" + listen}
}

// get asks Prometheus's API. While it starts there is no answer.
func (p *prometheus) get(path string, data any) error {
	response, err := http.Get(p.address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("HTTP %d: %w", response.StatusCode, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("HTTP %d: %s", response.StatusCode, answer.Error)
	}
	return nil
}

// query gives how many series an expression has now.
func (p *prometheus) query(expression string) (series int, err error) {
	var data struct{ Result []json.RawMessage }
	err = p.get("/api/v1/query?query="+url.QueryEscape(expression), &data)
	return len(data.Result), err
}

// TestPrometheus scrapes a mount through Vault's authentication, and asks Prometheus everything that the dashboard and the
// alerts ask.
func TestPrometheus(t *testing.T) {
	verifyOnly(t, "needs Prometheus")
	t.Parallel()
	e := newReadyEngine(t)
	e.must("write", e.at("keys/main"), "rotation_period=720h")
	e.accessToken("token")
	e.accessToken("token")
	e.must("write", "-f", e.at("keys/main/rotate"))
	p := startPrometheus(e)
	await(t, "Prometheus to have scraped the mount twice", func() bool {
		series, err := p.query(`count_over_time(up{job="redox"}[1m]) >= 2 and up == 1`)
		return err == nil && series == 1
	})
	// Trouble, so that the queries that are about it have something to show.
	e.redox.SetFaults(sandbox.Faults{Status: http.StatusBadRequest, Body: `{"error":"invalid_client"}`})
	e.try("write", "-f", e.at("token"))
	e.must("write", "-f", e.at("check"))
	await(t, "Prometheus to know of the trouble", func() bool {
		series, err := p.query(`increase(redox_assertions_rejected_total{error="invalid_client"}[1m]) > 0 ` +
			`and on() increase(redox_mints_total{result="failure"}[1m]) > 0`)
		return err == nil && series == 1
	})
	for _, query := range dashboardQueries(t) {
		if series, err := p.query(query); err != nil || series == 0 {
			t.Errorf("the dashboard's query has %d series: %v\n%s", series, err, query)
		}
	}

	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, Query string }
		}
	}
	await(t, "all alerts to be evaluated", func() bool {
		if err := p.get("/api/v1/rules", &rules); err != nil || len(rules.Groups) == 0 {
			return false
		}
		for _, rule := range rules.Groups[0].Rules {
			if rule.Health == "unknown" {
				return false
			}
		}
		return true
	})
	known := knownMetrics(t)
	for _, rule := range rules.Groups[0].Rules {
		if rule.Health != "ok" {
			t.Errorf("alert %s is %s: %s", rule.Name, rule.Health, rule.LastError)
		}
		for _, metric := range regexp.MustCompile(`redox_\w+`).FindAllString(rule.Query, -1) {
			if !slices.Contains(known, strings.TrimSuffix(metric, "_bucket")) {
				t.Errorf("alert %s asks for %s, which there is not", rule.Name, metric)
			}
		}
	}
}

// dashboardQueries gives the expressions of docs/dashboard.json, with values for Grafana's variables.
func dashboardQueries(t testing.TB) []string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title, Description string
			Targets            []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "../../docs/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, panel := range dashboard.Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("panel %q has no title, description or query", panel.Title)
		}
		for _, target := range panel.Targets {
			queries = append(queries, strings.NewReplacer("$job", ".+", "$__rate_interval", "1m").Replace(target.Expr))
		}
	}
	if len(queries) == 0 {
		t.Fatal("the dashboard asks for nothing")
	}
	return queries
}

// knownMetrics gives the names of the engine's metrics.
func knownMetrics(t testing.TB) []string {
	t.Helper()
	return regexp.MustCompile(`(?m)^redox_\w+`).FindAllString(readFile(t, "../../testdata/metrics.txt"), -1)
}

// TestAlerts: each alert fires in its own trouble, none while all is well, and each has its place in the run book.
func TestAlerts(t *testing.T) {
	verifyOnly(t, "needs Prometheus")
	t.Parallel()
	for _, arguments := range [][]string{
		{"check", "rules", "../../docs/alerts.yml"},
		{"test", "rules", "testdata/alerts_test.yml"},
	} {
		text, err := exec.Command(prometheusTool(t, "promtool"), arguments...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %v: %v\n%s", arguments, err, text)
		}
	}
	page := readFile(t, "../../docs/metrics.md")
	tests := readFile(t, "testdata/alerts_test.yml")
	alerts := regexp.MustCompile(`(?m)^ *- alert: (\w+)$`).FindAllStringSubmatch(readFile(t, "../../docs/alerts.yml"), -1)
	if len(alerts) == 0 {
		t.Fatal("there are no alerts")
	}
	for _, alert := range alerts {
		name := alert[1]
		if !strings.Contains(page, "\n### "+name+"\n") {
			t.Errorf("alert %s is not explained in docs/metrics.md", name)
		}
		if !strings.Contains(tests, "- alertname: "+name+"\n") || !strings.Contains(tests, "{alertname: "+name+", eval_time: ") {
			t.Errorf("alert %s is not tested both to fire and to be quiet", name)
		}
		if !strings.Contains(tests, "runbook: docs/metrics.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("alert %s does not name its place in the run book", name)
		}
	}
}

// TestMetricsAreDocumented: the page has each metric and each label value, and no metric that there is not.
func TestMetricsAreDocumented(t *testing.T) {
	page := readFile(t, "../../docs/metrics.md")
	known := knownMetrics(t)
	for _, name := range known {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	for _, name := range regexp.MustCompile(`redox_\w+`).FindAllString(page, -1) {
		if !slices.Contains(known, name) {
			t.Errorf("docs/metrics.md has %s, which there is not", name)
		}
	}
	for _, label := range regexp.MustCompile(`(?:cause|result)=(\w+)`).FindAllStringSubmatch(readFile(t, "../../testdata/metrics.txt"), -1) {
		if !strings.Contains(page, "`"+label[1]+"`") {
			t.Errorf("docs/metrics.md does not explain %s", label[0])
		}
	}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
