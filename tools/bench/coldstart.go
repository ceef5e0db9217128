// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"vault-plugin-secrets-redox/internal/testvault"
)

// A cold start is that many roles are read at once which have no token in memory, as after a restart. What matters is
// whether those notice who have one.

// coldPart is the part of docs/internals/benchmarks.md that has the figures.
const coldPart = "a cold start"

// ungatedPlugin is the engine with a gate that lets all signatures through at once.
const ungatedPlugin = "ungated"

// coldMounts are the two builds that are compared.
var coldMounts = []struct{ name, binary string }{{"cold-gated", redoxPlugin}, {"cold-ungated", ungatedPlugin}}

// coldStart is one size of it.
type coldStart struct {
	roles int
	key   string
}

func (c coldStart) role(n int) string { return fmt.Sprintf("%s-%05d", c.key, n) }

// coldFigures is what was measured of one size with one build. Times of reads are those of a reader in a process of its own,
// of one role that has a token.
type coldFigures struct {
	quiet, during, crowd []time.Duration // of reads: alone, while cold roles are read, while as many warm ones are
	total                []time.Duration // until all cold roles were served, by round
	failed               map[int]int     // by status
}

// measureColdStarts measures all sizes with both builds, in turn.
func measureColdStarts(ctx context.Context, v *vault, s settings, r *report) error {
	sizes := []coldStart{{1000, "rs384"}, {1000, "es384"}}
	if s.coldRoles > 1000 {
		sizes = append(sizes, coldStart{s.coldRoles, "rs384"}, coldStart{s.coldRoles, "es384"})
	}
	for _, m := range coldMounts {
		if err := v.mount(m.binary, redoxVersion, m.name); err != nil {
			return err
		}
		redox, err := startSandbox(ctx, s.sandbox, 5*time.Minute)
		if err != nil {
			return err
		}
		defer redox.Stop()
		if err := configure(v, redox, m.name); err != nil {
			return err
		}
		// Only signatures are to be compared: a local Redox has no limit.
		if _, err := v.do(http.MethodPost, m.name+"/config", map[string]any{"request_limit": 0}); err != nil {
			return err
		}
		log.Printf("cold start: %d roles for each kind of key at %s/", sizes[len(sizes)-1].roles, m.name)
		for _, size := range sizes[len(sizes)-2:] {
			if err := makeRoles(v, s, m.name, size); err != nil {
				return err
			}
		}
	}
	r.cold = map[coldStart]map[string]*coldFigures{}
	for _, size := range sizes {
		r.cold[size] = map[string]*coldFigures{}
		for round := range s.rounds {
			log.Printf("cold start: %d roles, %s, round %d of %d", size.roles, size.key, round+1, s.rounds)
			for _, m := range coldMounts {
				f := r.cold[size][m.name]
				if f == nil {
					f = &coldFigures{failed: map[int]int{}}
					r.cold[size][m.name] = f
				}
				if err := f.measure(ctx, v, m.name, size); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// makeRoles makes the roles of a size, and one that is warm.
func makeRoles(v *vault, s settings, mount string, size coldStart) error {
	paths := make([]string, 0, size.roles)
	for n := range size.roles {
		paths = append(paths, mount+"/roles/"+size.role(n))
	}
	failed, _ := crowd(v, http.MethodPost, paths, s.clients, map[string]any{"key": size.key, "client_id": "client-" + size.key})
	if len(failed) > 0 {
		return fmt.Errorf("roles can't be made: %v", failed)
	}
	return nil
}

// measure does one round.
func (f *coldFigures) measure(ctx context.Context, v *vault, mount string, size coldStart) error {
	// A plugin that is started anew has no tokens.
	if _, err := v.do(http.MethodPut, "sys/plugins/reload/backend", map[string]any{"mounts": []string{mount + "/"}}); err != nil {
		return err
	}
	paths := make([]string, 0, size.roles)
	for n := range size.roles {
		paths = append(paths, mount+"/token/"+size.role(n))
	}
	warm := mount + "/token"
	if _, err := v.do(http.MethodGet, warm, nil); err != nil {
		return err
	}
	quiet, err := whileReading(ctx, v, warm, func() { time.Sleep(3 * time.Second) })
	if err != nil {
		return err
	}
	var failed map[int]int
	var total time.Duration
	during, err := whileReading(ctx, v, warm, func() { failed, total = crowd(v, http.MethodGet, paths, size.roles, nil) })
	if err != nil {
		return err
	}
	warmCrowd, err := whileReading(ctx, v, warm, func() { crowd(v, http.MethodGet, paths, size.roles, nil) })
	if err != nil {
		return err
	}
	f.quiet, f.during, f.crowd = append(f.quiet, quiet...), append(f.during, during...), append(f.crowd, warmCrowd...)
	f.total = append(f.total, total)
	for status, n := range failed {
		f.failed[status] += n
	}
	return nil
}

// crowd makes all requests, so many at a time, and returns how many failed by status (0: no answer), and how long it took.
func crowd(v *vault, method string, paths []string, atOnce int, body any) (failed map[int]int, took time.Duration) {
	const mostConnections = 1000
	atOnce = min(atOnce, mostConnections, len(paths))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	encoded, _ := json.Marshal(body)
	next := make(chan string, len(paths))
	for _, path := range paths {
		next <- path
	}
	close(next)
	failed = map[int]int{}
	var mu sync.Mutex
	var readers sync.WaitGroup
	began := time.Now()
	for range atOnce {
		readers.Go(func() {
			for path := range next {
				if status := request(client, v, method, path, encoded); status < 200 || status > 299 {
					mu.Lock()
					failed[status]++
					mu.Unlock()
				}
			}
		})
	}
	readers.Wait()
	return failed, time.Since(began)
}

// request makes one request and returns the status, 0 when there was no answer.
func request(client *http.Client, v *vault, method, path string, body []byte) int {
	r, err := http.NewRequest(method, v.Address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	r.Header.Set("X-Vault-Token", v.Token)
	response, err := client.Do(r)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

// readings is what the reader in a process of its own is told.
type readings struct{ Address, Token, Path string }

// reading is one of its reads.
type reading struct {
	At   time.Time
	Took time.Duration
	OK   bool
}

const readEach = 5 * time.Millisecond

// whileReading has a process of its own read a path while something is done, and returns how long the reads took.
func whileReading(ctx context.Context, v *vault, path string, do func()) ([]time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	told, err := json.Marshal(readings{v.Address, v.Token, path})
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, self, "-read")
	var output, problems bytes.Buffer
	command.Stdout, command.Stderr = &output, &problems
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	defer func() { // it ends with its input
		_ = input.Close()
		_ = command.Wait()
	}()
	if _, err := input.Write(append(told, '\n')); err != nil {
		return nil, err
	}
	time.Sleep(300 * time.Millisecond) // for its connections
	from := time.Now()
	do()
	until := time.Now()
	_ = input.Close()
	if err := command.Wait(); err != nil {
		return nil, fmt.Errorf("the reader failed: %w: %s", err, problems.String())
	}
	var reads []reading
	if err := json.Unmarshal(output.Bytes(), &reads); err != nil {
		return nil, fmt.Errorf("the reader failed: %w: %s", err, problems.String())
	}
	var took []time.Duration
	for _, read := range reads {
		if !read.OK {
			return nil, errors.New("a read of the warm role failed")
		}
		if !read.At.Before(from) && !read.At.After(until) {
			took = append(took, read.Took)
		}
	}
	if len(took) == 0 {
		return nil, errors.New("the reader read nothing")
	}
	return took, nil
}

// readUntilTold is the reader: it reads one after the other, at most so many a second, until its input ends, and prints how
// long each read took.
func readUntilTold() error {
	var told readings
	decoder := json.NewDecoder(os.Stdin)
	if err := decoder.Decode(&told); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, io.MultiReader(decoder.Buffered(), os.Stdin))
	}()
	v := &vault{&testvault.Server{Address: told.Address, Token: told.Token}}
	client := &http.Client{Timeout: time.Minute}
	var reads []reading
	tick := time.NewTicker(readEach)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return json.NewEncoder(os.Stdout).Encode(reads)
		case <-tick.C:
			began := time.Now()
			status := request(client, v, http.MethodGet, told.Path, nil)
			reads = append(reads, reading{began, time.Since(began), status == http.StatusOK})
		}
	}
}

// percentile99 returns the 99th percentile.
func percentile99(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, len(sorted)*99/100)]
}

// medianOf returns the middle one.
func medianOf(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// coldTable writes what was measured.
func (r *report) coldTable() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Measured on %s, %d rounds.\n\n", machine(), r.settings.rounds)
	text.WriteString("| Cold roles | Build | 99th percentile of reads: quiet | in a crowd of warm roles | **in the cold start** | to quiet | to the warm crowd | longest read | all served in | to ungated | failed |\n")
	text.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	sizes := make([]coldStart, 0, len(r.cold))
	for size := range r.cold {
		sizes = append(sizes, size)
	}
	slices.SortFunc(sizes, func(a, b coldStart) int {
		if a.roles != b.roles {
			return a.roles - b.roles
		}
		return -strings.Compare(a.key, b.key)
	})
	for _, size := range sizes {
		ungated := medianOf(r.cold[size]["cold-ungated"].total)
		for _, m := range coldMounts {
			f := r.cold[size][m.name]
			quiet, during, crowded := percentile99(f.quiet), percentile99(f.during), percentile99(f.crowd)
			failed := "none"
			if len(f.failed) > 0 {
				failed = fmt.Sprint(f.failed)
			}
			fmt.Fprintf(&text, "| %d, %s | %s | %s | %s | **%s** | %.1f | %.1f | %s | %s | %.2f | %s |\n", size.roles, strings.ToUpper(size.key),
				strings.TrimPrefix(m.name, "cold-"), rounded(quiet), rounded(crowded), rounded(during), during.Seconds()/quiet.Seconds(),
				during.Seconds()/crowded.Seconds(), rounded(slices.Max(f.during)), rounded(medianOf(f.total)), medianOf(f.total).Seconds()/ungated.Seconds(), failed)
		}
	}
	return text.String()
}

func rounded(d time.Duration) string {
	if d < 100*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}
