// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// area is the part of the sandbox a request is for; it begins the request's line in the log.
type area string

const (
	areaToken    area = "token"
	areaFHIR     area = "fhir"
	areaPlatform area = "platform"
	areaAdmin    area = "admin"
	areaOther    area = "other"
)

// exchange is what the sandbox knows of one request while it answers it.
type exchange struct {
	area   area
	method string
	path   string
	now    time.Time // Redox's clock for this request, the clock_offset fault included
	fault  Faults
	status int
	said   string // what happened, for the log
}

type exchangeKey struct{}

// newExchange gives a request's exchange, and the request with the exchange in its context.
func newExchange(r *http.Request, now time.Time) (*exchange, *http.Request) {
	x := &exchange{area: areaOf(r.Method, r.URL.Path), method: r.Method, path: r.URL.Path, now: now}
	return x, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
}

// exchangeOf gives the exchange that ServeHTTP put into the request.
func exchangeOf(r *http.Request) *exchange {
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		panic("sandbox: a request came by another way than ServeHTTP")
	}
	return x
}

// say notes what happened, for the log. What callers sent goes through printable first.
func (x *exchange) say(format string, values ...any) { x.said = fmt.Sprintf(format, values...) }

// readBody reads the request's whole body, so that from here on net/http notices when the client goes away, and
// lifts the server's deadlines, which would cut off answers that a fault or the gate holds back.
func (x *exchange) readBody(w http.ResponseWriter, r *http.Request) (tooLarge bool, err error) {
	limit := int64(otherBodyMax)
	if x.area == areaToken {
		limit = tokenBodyMax
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// A writer without deadlines, such as a test's recorder, has none to lift.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
	return false, nil
}

// answer collects what an endpoint answers, so that faults can be applied to it as a whole.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: http.Header{}, status: http.StatusOK} }

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }

// pause waits for d, and says whether the request is still wanted then.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
