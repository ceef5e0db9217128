// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// answerFault answers as the faults say, in place of the endpoint.
func (s *Sandbox) answerFault(w http.ResponseWriter, a *answer, x *exchange) {
	f := x.fault
	switch {
	case f.Reset:
		x.say("fault: the connection was reset")
		reset(w)
	case f.Redirect != "":
		a.status = http.StatusTemporaryRedirect
		if f.Status >= 300 && f.Status < 400 {
			a.status = f.Status
		}
		a.header.Set("Location", f.Redirect)
	default:
		if f.Status != 0 {
			a.status = f.Status
		}
		kind := f.ContentType
		if kind == "" {
			kind = "text/html"
		}
		a.header.Set("Content-Type", kind)
		if f.Body != "" {
			a.body.WriteString(f.Body)
		} else {
			fmt.Fprintf(&a.body, "the sandbox answers %d, as it was told to\n", a.status)
		}
	}
	x.say("fault: answered %d", a.status)
}

// deliver sends an answer to the client, in the way the faults say.
func (s *Sandbox) deliver(w http.ResponseWriter, r *http.Request, x *exchange, a *answer) {
	f := x.fault
	for name, values := range a.header {
		w.Header()[name] = values
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	w.Header().Set("Date", x.now.UTC().Format(http.TimeFormat))
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.FormatInt(f.HugeBody+int64(a.body.Len()), 10))
	}
	w.WriteHeader(a.status)
	if !writeSpaces(w, f.HugeBody) {
		return
	}
	body := a.body.Bytes()
	switch {
	case f.ResetMidBody:
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		// Closed, not reset: a reset could overtake the half that was sent.
		panic(http.ErrAbortHandler)
	case f.SlowBody > 0:
		for i := range body {
			if !pause(r.Context(), time.Duration(f.SlowBody)) {
				return
			}
			_, _ = w.Write(body[i : i+1])
			_ = http.NewResponseController(w).Flush()
		}
	default:
		_, _ = w.Write(body)
	}
}

// writeSpaces writes count spaces and says whether the client took them.
func writeSpaces(w http.ResponseWriter, count int64) bool {
	spaces := bytes.Repeat([]byte(" "), 32<<10)
	for count > 0 {
		n := min(count, int64(len(spaces)))
		if _, err := w.Write(spaces[:n]); err != nil {
			return false
		}
		count -= n
	}
	return true
}

// reset ends the request's connection with a TCP RST. It doesn't return.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		under := conn
		if secured, ok := conn.(*tls.Conn); ok {
			under = secured.NetConn() // closing the TLS connection would say goodbye first
		}
		if tcp, ok := under.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = under.Close()
	}
	panic(http.ErrAbortHandler)
}
