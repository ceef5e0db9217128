// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

//go:build drills

package drills

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// crowdSize is how many readers ask at once.
const crowdSize = 10_000

// crowd is readers with a connection each, all open before anybody asks.
type crowd struct {
	vault       *server
	token       string
	connections []*connection
}

type connection struct {
	net.Conn
	buffer *bufio.Reader
}

// outcome is what one reader of a crowd got.
type outcome struct {
	status int
	token  string
	says   string // the error
	err    error
	came   time.Time
}

// checkFileLimit says when this machine lets no process have enough connections. Go raises the soft limit by itself.
func checkFileLimit() error {
	const need = crowdSize + 1000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < need {
		return fmt.Errorf("a process may open %d files here, but %d readers need %d: raise it (ulimit -Hn)", limit.Max, crowdSize, need)
	}
	return nil
}

// newCrowd opens the connections, and sends one request over each: a server closes those that stay silent.
func newCrowd(d *report, vault *server) *crowd {
	d.must(checkFileLimit())
	token, err := vault.reader()
	d.must(err)
	c := &crowd{vault: vault, token: token, connections: make([]*connection, crowdSize)}
	d.later(c.close)
	failed := c.each(64, func(number int) error {
		dialed, err := net.DialTimeout("tcp", vault.Address[len("http://"):], patience)
		if err != nil {
			return err
		}
		c.connections[number] = &connection{dialed, bufio.NewReaderSize(dialed, 2048)}
		got := c.ask(number, "sys/health")
		return got.err
	})
	d.must(failed)
	return c
}

func (c *crowd) close() {
	for _, connection := range c.connections {
		if connection != nil {
			_ = connection.Close()
		}
	}
}

// each does something for every reader, so many at a time, and gives the first error.
func (c *crowd) each(at int, do func(number int) error) (first error) {
	var all sync.WaitGroup
	var once sync.Once
	slots := make(chan struct{}, at)
	for number := range c.connections {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := do(number); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	all.Wait()
	return first
}

func (c *crowd) send(number int, path string) error {
	connection := c.connections[number]
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(connection, "GET /v1/%s HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: %s\r\n\r\n", path, c.token)
	return err
}

func (c *crowd) receive(number int) (got outcome) {
	defer func() { got.came = time.Now() }()
	response, err := http.ReadResponse(c.connections[number].buffer, nil)
	if err != nil {
		got.err = err
		return got
	}
	defer response.Body.Close()
	got.status = response.StatusCode
	var answer struct {
		Data struct {
			AccessToken string `json:"access_token"`
		} `json:"data"`
		Errors []string `json:"errors"`
	}
	text, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	got.token, got.says, got.err = answer.Data.AccessToken, firstError(answer.Errors), err
	return got
}

func (c *crowd) ask(number int, path string) outcome {
	if err := c.send(number, path); err != nil {
		return outcome{err: err}
	}
	return c.receive(number)
}

// rush is one time that all readers ask at once, while the local Redox holds its answers.
type rush struct {
	outcomes []outcome
	early    int           // readers that were answered before Redox had answered
	sending  time.Duration // from the first request to the last
	all      time.Duration // from Redox's answers to the last reader's
}

// heldFor is how long Redox holds its answers after all have asked, so that Vault and the plugin get to them. It is far
// less than the time after which the engine gives Redox up.
const heldFor = 5 * time.Second

// rush makes all readers ask; path says what for. Redox answers after all have asked, and when readers have to wait for
// that, it lets them wait.
func (c *crowd) rush(d *report, redox *localRedox, waiting bool, path func(number int) string) rush {
	_, release := redox.HoldTokenRequests()
	defer release()
	r := rush{outcomes: make([]outcome, len(c.connections))}
	began := time.Now()
	d.must(c.each(64, func(number int) error { return c.send(number, path(number)) }))
	r.sending = time.Since(began)
	var received sync.WaitGroup
	received.Go(func() {
		_ = c.each(len(c.connections), func(number int) error {
			r.outcomes[number] = c.receive(number)
			return nil
		})
	})
	if waiting {
		time.Sleep(heldFor)
	}
	released := time.Now()
	release()
	received.Wait()
	r.all = time.Since(released)
	for _, got := range r.outcomes {
		if got.came.Before(released) {
			r.early++
		}
	}
	return r
}

// summary counts a crowd's answers, and the readers of each token.
func summary(outcomes []outcome) (s seen, tokens map[string]int) {
	s.errors, s.says, s.internal, tokens = map[int]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for _, got := range outcomes {
		switch {
		case got.err != nil:
			s.errors[0]++
		case got.status != http.StatusOK:
			s.errors[got.status]++
			s.says[got.says]++
			if got.status == http.StatusInternalServerError {
				s.internal[got.says]++
			}
		default:
			s.ok++
			tokens[got.token]++
		}
	}
	return s, tokens
}
