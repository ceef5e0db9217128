// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"unicode"
)

// printableMax is how many characters of anything a caller sent are printed.
const printableMax = 120

// requestLog writes one line a request, in human words.
type requestLog struct {
	mu sync.Mutex
	to io.Writer // nil: silent
}

// write writes an exchange's line. An exchange with nothing said gets its method, path and status.
func (l *requestLog) write(x *exchange) {
	if l.to == nil {
		return
	}
	said := x.said
	if said == "" {
		said = fmt.Sprintf("%s %s: %d %s", printable(x.method), printable(x.path), x.status, http.StatusText(x.status))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A log that can't be written to is no reason to fail a request.
	_, _ = fmt.Fprintf(l.to, "%s %-9s %s\n", x.now.Format("15:04:05"), x.area, said)
}

// printable makes something a caller sent fit for a line of log: no control characters, cut to length, and
// withheld altogether when it could hold a token or a JWT (whose header begins with `{"`, eyJ in base64url).
func printable(text string) string {
	if strings.Contains(text, TokenPrefix) || strings.Contains(text, "eyJ") {
		return "(withheld)"
	}
	var b strings.Builder
	count := 0
	for _, c := range text {
		if count == printableMax {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(c) {
			c = '·'
		}
		b.WriteRune(c)
		count++
	}
	return b.String()
}

// quoted is printable, with something to see for nothing.
func quoted(text string) string {
	if text == "" {
		return "(none)"
	}
	return printable(text)
}
