// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// report is what was measured.
type report struct {
	settings settings

	rates            map[string][]float64 // requests a second, by subject and round
	quiet, refreshed []float64            // 99th percentile in milliseconds, by round

	cold map[coldStart]map[string]*coldFigures

	residentAfterReads, nothingAfterReads, residentWithRoles int64 // bytes
	idle                                                     float64
	size, nothingSize                                        int64 // bytes
}

// median gives the middle value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratios divides round by round: what slowed one round down slowed both.
func ratios(values, yardstick []float64) []float64 {
	out := make([]float64, len(values))
	for i := range values {
		out[i] = values[i] / yardstick[i]
	}
	return out
}

// spread writes a median with the least and the greatest value.
func spread(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", median(values), slices.Min(values), slices.Max(values))
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

func (r *report) markdown() string {
	var text strings.Builder
	write := func(format string, arguments ...any) { fmt.Fprintf(&text, format+"\n", arguments...) }
	write("Measured on %s, %d rounds of %s, %d connections, Vault's audit off.\n", machine(), r.settings.rounds,
		r.settings.duration, r.settings.clients)
	text.WriteString(r.ratesTable())
	write("")
	write("| What | | Goal |")
	write("|---|---|---|")
	write("| 99th percentile of reads while tokens are renewed, to that while none is | %s | at most 1.2 |", spread(ratios(r.refreshed, r.quiet)))
	write("| Memory after %d reads, over the plugin that does nothing | %s - %s = %s | at most 5 MB |", r.settings.reads,
		megabytes(r.residentAfterReads), megabytes(r.nothingAfterReads), megabytes(r.residentAfterReads-r.nothingAfterReads))
	write("| Memory more with %d roles with live tokens | %s | at most 64 MB |", r.settings.roles,
		megabytes(r.residentWithRoles-r.residentAfterReads))
	write("| Part of one processor that these roles cost while nobody reads | %.3f | 0 |", r.idle)
	write("| Stripped binary, over the plugin that does nothing | %s - %s = %s | at most 5 MB |", megabytes(r.size),
		megabytes(r.nothingSize), megabytes(r.size-r.nothingSize))
	return text.String()
}

// ratesPart is the part of a run that compares reads.
const ratesPart = "rates"

// ratesTable compares the kinds of requests.
func (r *report) ratesTable() string {
	var text strings.Builder
	write := func(format string, arguments ...any) { fmt.Fprintf(&text, format+"\n", arguments...) }
	write("| Request | a second (median) | to a plugin that does nothing | to one that keeps the replication state |")
	write("|---|---|---|---|")
	nothing, kept := r.rates[subjects[1].name], r.rates[subjects[2].name]
	for _, what := range subjects {
		rates := r.rates[what.name]
		write("| %s | %.0f | %s | %s |", what.name, median(rates), spread(ratios(rates, nothing)), spread(ratios(rates, kept)))
	}
	return text.String()
}

// machine describes what this runs on.
func machine() string {
	name := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if label, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(label) == "model name" {
				name = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d processors (%s), %s/%s, %s", runtime.NumCPU(), name, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// plot draws the ratios to the plugin that does nothing as bars, with a line from the least to the greatest.
func (r *report) plot() string {
	const width, left, bar, gap = 760, 300, 22, 14
	var text strings.Builder
	height := len(subjects)*(bar+gap) + 60
	fmt.Fprintf(&text, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&text, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	fmt.Fprintf(&text, `<text x="10" y="22" font-size="15">Requests a second, to a plugin that does nothing</text>`+"\n")
	most := 0.0
	all := make([][]float64, len(subjects))
	for i, what := range subjects {
		all[i] = ratios(r.rates[what.name], r.rates[subjects[1].name])
		most = max(most, slices.Max(all[i]))
	}
	x := func(value float64) float64 { return left + value/most*(width-left-70) }
	for i, what := range subjects {
		y := 40 + i*(bar+gap)
		color := "#9aa5b1"
		if strings.HasPrefix(what.path, "redox/") {
			color = "#2f6fde"
		}
		fmt.Fprintf(&text, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+bar*3/4, what.name)
		fmt.Fprintf(&text, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y, x(median(all[i]))-left, bar, color)
		fmt.Fprintf(&text, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`+"\n", x(slices.Min(all[i])), x(slices.Max(all[i])), y+bar/2, y+bar/2)
		fmt.Fprintf(&text, `<text x="%.1f" y="%d">%.2f</text>`+"\n", x(slices.Max(all[i]))+6, y+bar*3/4, median(all[i]))
	}
	text.WriteString("</svg>\n")
	return text.String()
}
