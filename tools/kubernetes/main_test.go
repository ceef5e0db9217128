// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

const examples = "../../examples/kubernetes"

func TestExamples(t *testing.T) {
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.checkFolder(os.DirFS(examples)); err != nil {
		t.Error(err)
	}
}

// TestMistakesAreFound makes one mistake in a manifest, as somebody may who changes it.
func TestMistakesAreFound(t *testing.T) {
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ file, old, new, complaint string }{
		"no such field of ours":    {"external-secrets.yaml", "refreshInterval: 15s", "refreshIntervall: 15s", "refreshIntervall"},
		"no such field deep down":  {"external-secrets.yaml", "engineVersion: v2", "engine: v2", "engine"},
		"a field is missing":       {"external-secrets.yaml", "  path: redox/token/team-a\n", "", "spec.path"},
		"no such value":            {"external-secrets.yaml", "resultType: Data", "resultType: data", "resultType"},
		"wrong type":               {"external-secrets.yaml", "mountPath: kubernetes", "mountPath: 1", "mountPath"},
		"no such version":          {"external-secrets.yaml", "external-secrets.io/v1alpha1\nkind", "external-secrets.io/v1\nkind", "no kind"},
		"twice the same field":     {"external-secrets.yaml", "  method: GET\n", "  method: GET\n  method: GET\n", "method"},
		"no such Deployment field": {"agent-injector.yaml", "serviceAccountName:", "serviceAccountname:", "serviceAccountname"},
		"no pods selected":         {"agent-injector.yaml", "matchLabels:\n      app: redox-client", "matchLabels:\n      app: another", "selector"},
		"no such alert field":      {"prometheus-operator.yaml", "alert: RedoxNoMetrics", "alarm: RedoxNoMetrics", "alarm"},
		"no namespace":             {"agent-injector.yaml", "  namespace: team-a\n", "", "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(examples, test.file))
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Replace(string(text), test.old, test.new, 1)
			if broken == string(text) {
				t.Fatalf("%s has no %q", test.file, test.old)
			}
			_, err = c.checkManifest([]byte(broken))
			if err == nil || !strings.Contains(err.Error(), test.complaint) {
				t.Errorf("the complaint is %v", err)
			}
		})
	}
}

// TestPrometheusRuleHasTheAlerts: the rules of the manifest are those of docs/alerts.yml, which is tested with Prometheus.
func TestPrometheusRuleHasTheAlerts(t *testing.T) {
	alerts, err := os.ReadFile("../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(examples, "prometheus-operator.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	var rule monitoring.PrometheusRule
	documents := separator.Split(string(manifest), -1)
	for text, into := range map[string]any{string(alerts): &want, documents[len(documents)-1]: &rule} {
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if len(want.Groups) == 0 || !reflect.DeepEqual(rule.Spec, want) {
		t.Errorf("the manifest has\n%v\ndocs/alerts.yml has\n%v", rule.Spec, want)
	}
}

func TestAnswers(t *testing.T) {
	const good = `{"lease_duration": 0, "renewable": false, "data": {"access_token": "a", "ttl": 225, "rotation_period": 225,
		"last_vault_rotation": "2026-01-02T03:04:05.6Z", "expire_time": "2026-01-02T03:09:05.6Z"}}`
	if err := checkAnswer([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string][2]string{
		"ttl is text":        {`"ttl": 225`, `"ttl": "225"`},
		"ttl is broken":      {`"ttl": 225`, `"ttl": 22.5`},
		"ttl is 0":           {`"ttl": 225`, `"ttl": 0`},
		"no period":          {`"rotation_period": 225,`, ``},
		"a number as time":   {`"2026-01-02T03:04:05.6Z", "expire`, `1767323045, "expire`},
		"a time without T":   {`2026-01-02T03:04`, `2026-01-02 03:04`},
		"renewable":          {`"renewable": false`, `"renewable": true`},
		"no token":           {`"access_token": "a",`, ``},
		"token is an object": {`"access_token": "a"`, `"access_token": {}`},
		"data in data":       {`"ttl": 225`, `"ttl": 225, "data": {}`},
		"a lease":            {`"lease_duration": 0`, `"lease_duration": 225`},
		"no JSON":            {`{"lease_duration"`, `"lease_duration"`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, replace[0], replace[1], 1)
			if bad == good {
				t.Fatal("nothing was replaced")
			}
			if checkAnswer([]byte(bad)) == nil {
				t.Error("it is taken for good")
			}
		})
	}
}
