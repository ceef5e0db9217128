// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// readers read one role's token all the time, as a crowd of applications that don't keep it.
type readers struct {
	path      string
	token     string
	addresses []string // of the nodes; a reader goes on to the next when one gives no token
	redox     *localRedox
	client    *http.Client
	cancel    context.CancelFunc
	all       sync.WaitGroup

	mu       sync.Mutex
	readings []reading
	last     string // the newest access token that somebody got
	lacking  bool   // last was no token that Redox takes when it was looked last
	without  []span // times in which it was none
}

// reading is one answer that a reader got.
type reading struct {
	sent, came time.Time
	status     int // 0: no answer
	token      string
	kid        string
	warned     bool   // the answer warned that the token is about to end
	refused    bool   // Redox did not take the token though the engine said that it lives
	says       string // the error
}

type span struct{ from, to time.Time }

const (
	readerCount = 20
	readPause   = 100 * time.Millisecond
	// samplePause is how often it is looked whether an application that keeps the last token could work.
	samplePause = 20 * time.Millisecond
)

// read starts the readers of a mount's first role.
func read(d *report, m *mount, nodes ...*server) *readers {
	if len(nodes) == 0 {
		nodes = []*server{m.vault}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &readers{path: m.token(0), redox: m.redox, cancel: cancel,
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: readerCount}}}
	if len(nodes) > 1 {
		r.client.Timeout = 2 * time.Second // then the next node is asked, as a load balancer does
	}
	for _, node := range nodes {
		r.addresses = append(r.addresses, node.Address)
	}
	token, err := nodes[0].reader()
	d.must(err)
	r.token = token
	for number := range readerCount {
		r.all.Go(func() {
			node := 0
			// Spread over the pause, so that reads come all the time.
			for wait := readPause * time.Duration(number) / readerCount; rest(ctx, wait); wait = readPause {
				if got := r.once(ctx, r.addresses[node]); ctx.Err() == nil {
					r.note(got)
					if got.status != http.StatusOK {
						node = (node + 1) % len(r.addresses)
					}
				}
			}
		})
	}
	r.all.Go(func() {
		for rest(ctx, samplePause) {
			r.sample()
		}
	})
	d.later(r.stop)
	d.must(await("the first token", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.last != ""
	}))
	return r
}

// rest waits, and says whether to go on.
func rest(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

func (r *readers) stop() {
	r.cancel()
	r.all.Wait()
	r.client.CloseIdleConnections()
}

func (r *readers) once(ctx context.Context, address string) (got reading) {
	got.sent = time.Now()
	defer func() { got.came = time.Now() }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/"+r.path, nil)
	if err != nil {
		got.says = err.Error()
		return got
	}
	request.Header.Set("X-Vault-Token", r.token)
	response, err := r.client.Do(request)
	if err != nil {
		got.says = "no answer"
		return got
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		got.says = "no whole answer"
		return got
	}
	got.status = response.StatusCode
	var answer struct {
		Data struct {
			AccessToken string    `json:"access_token"`
			KID         string    `json:"kid"`
			ExpireTime  time.Time `json:"expire_time"`
		} `json:"data"`
		Warnings []string `json:"warnings"`
		Errors   []string `json:"errors"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		got.says = "no JSON"
		return got
	}
	got.says = firstError(answer.Errors)
	got.token, got.kid = answer.Data.AccessToken, answer.Data.KID
	got.warned = slices.ContainsFunc(answer.Warnings, func(warning string) bool {
		return strings.HasPrefix(warning, "This token ends in")
	})
	if got.status == http.StatusOK && !r.redox.IsLive(got.token) {
		// It may have ended on its way, but not have been over before it was asked for. expire_time has whole seconds.
		end := answer.Data.ExpireTime
		got.refused = end.After(time.Now()) || end.Add(time.Second).Before(got.sent)
	}
	return got
}

// firstError gives an error's text without what Vault puts around it.
func firstError(errors []string) string {
	if len(errors) == 0 {
		return ""
	}
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(errors[0]), "1 error occurred:\n\t* "))
}

func (r *readers) note(got reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readings = append(r.readings, got)
	if got.status == http.StatusOK {
		r.last = got.token
	}
}

// sample looks whether the last token is good, and adds to the time without one.
func (r *readers) sample() {
	r.mu.Lock()
	defer r.mu.Unlock()
	lacked := r.lacking
	r.lacking = r.last != "" && !r.redox.IsLive(r.last)
	switch now := time.Now(); {
	case r.lacking && lacked:
		r.without[len(r.without)-1].to = now
	case r.lacking:
		r.without = append(r.without, span{now, now})
	}
}

// seen is what readers saw from one moment to another.
type seen struct {
	ok, warned, refused int
	errors              map[int]int    // by status
	says                map[string]int // errors by their text
	internal            map[string]int // those of status 500
	tokens              map[string]bool
	kids                map[string]bool
	slowest             time.Duration
	without             time.Duration // the longest time without a token that Redox takes
	firstError          time.Time
}

func (r *readers) between(from, to time.Time) seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := seen{errors: map[int]int{}, says: map[string]int{}, tokens: map[string]bool{}, kids: map[string]bool{}}
	for _, got := range r.readings {
		if got.sent.Before(from) || got.sent.After(to) {
			continue
		}
		s.slowest = max(s.slowest, got.came.Sub(got.sent))
		if got.status != http.StatusOK {
			s.errors[got.status]++
			s.says[got.says]++
			if s.firstError.IsZero() || got.came.Before(s.firstError) {
				s.firstError = got.came
			}
			continue
		}
		s.ok++
		s.tokens[got.token], s.kids[got.kid] = true, true
		if got.warned {
			s.warned++
		}
		if got.refused {
			s.refused++
		}
	}
	for _, gap := range r.without {
		if gap.to.After(from) && gap.from.Before(to) {
			s.without = max(s.without, gap.to.Sub(gap.from))
		}
	}
	return s
}

// sinceStart is all that readers saw.
func (r *readers) sinceStart() seen { return r.between(time.Time{}, time.Now()) }

// awaitToken waits for the first token that somebody asked for after a moment, and says how long after it that came.
func (r *readers) awaitToken(moment time.Time) (took time.Duration, err error) {
	err = await("a token", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, got := range r.readings {
			if got.status == http.StatusOK && got.sent.After(moment) {
				took = got.came.Sub(moment)
				return true
			}
		}
		return false
	})
	return took, err
}

func (s seen) failed() int {
	count := 0
	for _, n := range s.errors {
		count += n
	}
	return count
}

// only says whether all errors had this status.
func (s seen) only(status int) bool { return s.failed() == s.errors[status] }

// others tells the texts of internal errors, which there should be none of.
func (s seen) others() string {
	text := ""
	for says := range s.internal {
		text += "; 500: " + says
	}
	return text
}

// mostly gives the error that was seen most often.
func (s seen) mostly() string {
	most := ""
	for text, count := range s.says {
		if most == "" || count > s.says[most] || count == s.says[most] && text < most {
			most = text
		}
	}
	return most
}

// counts gives the answers by what they were.
func (s seen) counts() string {
	text := fmt.Sprintf("%d ok", s.ok)
	if s.warned > 0 {
		text += fmt.Sprintf(" (%d with the warning that the token is about to end)", s.warned)
	}
	for _, status := range slices.Sorted(maps.Keys(s.errors)) {
		if status == 0 {
			text += fmt.Sprintf(", %d without an answer", s.errors[status])
		} else {
			text += fmt.Sprintf(", %d × %d", s.errors[status], status)
		}
	}
	return text
}

func (s seen) String() string {
	return fmt.Sprintf("%s; %s without a valid token; slowest read %s", s.counts(), short(s.without), short(s.slowest))
}

// short writes a duration for people.
func short(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
