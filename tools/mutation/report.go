// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// What gremlins calls the ends of a mutant.
const (
	killed    = "KILLED"
	lived     = "LIVED"
	timedOut  = "TIMED OUT"
	notViable = "NOT VIABLE"
)

// mutant is one change of the code, and what the tests made of it.
type mutant struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	Line   int    `json:"line"`
	Column int    `json:"column"`

	File         string `json:"-"`
	Was, Becomes string `json:"-"` // the line before and with the change
}

type result struct {
	target  target
	mutants []mutant
	took    time.Duration
}

func (r *result) count(status string) int {
	n := 0
	for _, m := range r.mutants {
		if m.Status == status {
			n++
		}
	}
	return n
}

// changes are gremlins' replacements: of each operator by kind of mutant.
var changes = map[string]map[string]string{
	"ARITHMETIC_BASE":       {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"},
	"CONDITIONALS_BOUNDARY": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
	"CONDITIONALS_NEGATION": {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"},
	"INCREMENT_DECREMENT":   {"++": "--", "--": "++"},
	"INVERT_LOGICAL":        {"&&": "||", "||": "&&"},
	"INVERT_LOOPCTRL":       {"break": "continue", "continue": "break"},
	"INVERT_NEGATIVES":      {"-": "+"},
	"INVERT_ASSIGNMENTS":    {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "%=": "%="},
	"INVERT_BITWISE":        {"&": "|", "|": "&", "^": "&", "&^": "&", "<<": ">>", ">>": "<<"},
	"INVERT_BWASSIGN":       {"&=": "|=", "|=": "&=", "^=": "&=", "&^=": "&=", "<<=": ">>=", ">>=": "<<="},
	"REMOVE_SELF_ASSIGNMENTS": {"+=": "=", "-=": "=", "*=": "=", "/=": "=", "%=": "=", "&=": "=", "|=": "=", "^=": "=",
		"&^=": "=", "<<=": "=", ">>=": "="},
}

// describeChange gives the mutant's file, and its line before and with the change.
func describeChange(file string, m mutant) (name, was, becomes string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", "", err
	}
	lines := strings.Split(string(text), "\n")
	if m.Line > len(lines) || m.Column > len(lines[m.Line-1]) {
		return "", "", "", fmt.Errorf("%s has no line %d and column %d", file, m.Line, m.Column)
	}
	before, rest := lines[m.Line-1][:m.Column-1], lines[m.Line-1][m.Column-1:]
	longest := ""
	for operator := range changes[m.Type] {
		if strings.HasPrefix(rest, operator) && len(operator) > len(longest) {
			longest = operator
		}
	}
	if longest == "" {
		return "", "", "", fmt.Errorf("%s:%d:%d: no operator of %s is there", file, m.Line, m.Column, m.Type)
	}
	changed := before + changes[m.Type][longest] + strings.TrimPrefix(rest, longest)
	return file, strings.TrimSpace(lines[m.Line-1]), strings.TrimSpace(changed), nil
}

// text tells the score, and lists what no test notices with the reason why that is harmless. It comes with the number of
// those without a reason. Both a killed mutant and one that took too long were noticed; of those that could not be built
// nothing is to be said.
func (r *result) text(reasons reasons) (string, int) {
	var text strings.Builder
	noticed := r.count(killed) + r.count(timedOut)
	fmt.Fprintf(&text, "%d mutants in %s: %d killed, %d timed out, %d lived, %d not viable; score %.1f %%\n", len(r.mutants),
		r.took.Round(time.Second), r.count(killed), r.count(timedOut), r.count(lived), r.count(notViable),
		100*float64(noticed)/float64(noticed+r.count(lived)))
	unexplained := 0
	for _, m := range r.mutants {
		if m.Status != lived {
			continue
		}
		why, ok := reasons[m.key()]
		if !ok {
			why = "UNEXPLAINED"
			unexplained++
		}
		fmt.Fprintf(&text, "%s:%d:%d lived: %s\n  was:     %s\n  became:  %s\n", m.File, m.Line, m.Column, why, m.Was, m.Becomes)
	}
	return text.String(), unexplained
}

// reasons say why mutants are harmless, by file and line as it became: numbers of lines change too often.
type reasons map[string]string

func (m *mutant) key() string { return m.File + ": " + m.Becomes }

// readReasons reads harmless.txt: a line with the mutant, then an indented one with the reason.
func readReasons(file string) (reasons, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	read, key := reasons{}, ""
	for i, line := range strings.Split(string(text), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(line, "#"):
		case line == trimmed && key == "":
			key = line
		case line != trimmed && key != "":
			read[key], key = trimmed, ""
		default:
			return nil, fmt.Errorf("%s:%d: each mutant is followed by one indented line with the reason", file, i+1)
		}
	}
	if key != "" {
		return nil, fmt.Errorf("%s: there is no reason for %s", file, key)
	}
	return read, nil
}

// stale gives the explained mutants that are noticed by now.
func (r reasons) stale(got *result) []string {
	living, files := map[string]bool{}, map[string]bool{}
	for _, m := range got.mutants {
		files[m.File] = true
		if m.Status == lived {
			living[m.key()] = true
		}
	}
	var stale []string
	for key := range r {
		file, _, _ := strings.Cut(key, ": ")
		if files[file] && !living[key] {
			stale = append(stale, key)
		}
	}
	slices.Sort(stale)
	return stale
}
