// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package redox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// Whatever another server says, what is left of it is one printable line of bounded length, without anything that
// could be a secret; and before it was cut, cleaning it once more finds nothing to do.
func FuzzClean(f *testing.F) {
	for _, text := range []string{
		"", "Public key not found, check client_id", " a\r\n\tb ", "\x1b[31mred\x00", "\u202eevil", "a\xffb",
		strings.Repeat("ä ", 200),
		"eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl", "client 0f8fad5b-d9cb-469f-a165-70867728950e unknown",
		strings.Repeat("0123456789abcdef", 4), "ey12345678.", strings.Repeat("a", 31) + "\u200b" + strings.Repeat("b", 31),
	} {
		f.Add(text, uint16(maxDescriptionRunes))
		f.Add(text, uint16(maxCodeRunes))
	}
	f.Fuzz(func(t *testing.T, text string, most uint16) {
		if most == 0 {
			return
		}
		cleaned := clean(text, int(most))
		if utf8.RuneCountInString(cleaned) > int(most) || !utf8.ValidString(cleaned) {
			t.Errorf("%q has more than %d runes, or such as are none", cleaned, most)
		}
		for _, r := range cleaned {
			if r != ' ' && (!unicode.IsPrint(r) || unicode.IsSpace(r)) {
				t.Errorf("%q has %q in it", cleaned, r)
			}
		}
		if run := secretRun.FindString(cleaned); run != "" {
			t.Errorf("%q has %q in it", cleaned, run)
		}
		whole := clean(text, len(text)+len(removed))
		if again := clean(whole, len(text)+len(removed)); again != whole {
			t.Errorf("%q is cleaned to %q, and that to %q", text, whole, again)
		}
		if begins, cut := strings.CutSuffix(cleaned, "…"); cleaned != whole && (!cut || !strings.HasPrefix(whole, begins)) {
			t.Errorf("%q is cut to %q", whole, cleaned)
		}
	})
}

// A URL that is accepted is asked where it seems to lead, without a password, also once it has been written out again.
func FuzzEndpoint(f *testing.F) {
	for _, text := range []string{
		"https://api.redoxengine.com/v2/auth/token", "http://127.0.0.1:80", "https://user:pass@redox.test", "ftp://redox.test",
		"https://",
		"https://:443", "//redox.test", "https://redox.test:0x1", "https://[::1%25x]/", "https://redox.test/%zz",
		"https://redox.test\\@evil.test",
		"https://redox.test?@evil.test", "https://redox.test#@evil.test", "https:redox.test", "\x00", "HTTPS://redox.test",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		endpoint, err := parseEndpoint(text)
		if err != nil {
			if endpoint != nil {
				t.Error("an error came with a URL")
			}
			if err.Error() != invalidEndpoint().Error() {
				t.Errorf("%q is refused with %q, which is not what is said of all", text, err)
			}
			return
		}
		request, err := http.NewRequest(http.MethodPost, endpoint.String(), nil)
		if err != nil {
			return // send says so
		}
		// net/http leaves out a colon without a port.
		if strings.TrimRight(request.URL.Host, ":") != strings.TrimRight(endpoint.Host, ":") ||
			request.URL.User != nil || request.URL.Scheme != endpoint.Scheme {
			t.Errorf("%q leads to %q", text, request.URL)
		}
	})
}

// The offset is known when the header is a date, and is what has to be added to this node's time to get that, to the
// second.
func FuzzDate(f *testing.F) {
	const now = 1772366400
	for _, date := range []string{
		"", "Sun, 01 Mar 2026 12:00:30 GMT", "Sunday, 01-Mar-26 12:00:30 GMT", "Sun Mar  1 12:00:30 2026",
		"Sun, 01 Mar 0001 12:00:30 GMT",
		"Fri, 31 Dec 9999 23:59:59 GMT", "Sun, 01 Mar 2026 12:00:30 PST", "1772366400", "Sun, 30 Feb 2026 12:00:30 GMT",
	} {
		f.Add(date, int64(now), int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, date string, unix, took int64) {
		if unix < 0 || unix > 1<<33 || took < 0 || took > int64(time.Minute) {
			return
		}
		sent := time.Unix(unix, 0)
		received := sent.Add(time.Duration(took))
		offset, known := clockOffset(date, sent, received)
		stated, err := http.ParseTime(date)
		if known != (err == nil) || !known && offset != 0 {
			t.Fatalf("%q: offset %v, known %v", date, offset, known)
		}
		// time.Duration holds 292 years.
		if !known || stated.Year() < 1800 || stated.Year() > 2200 {
			return
		}
		if offset%time.Second != 0 {
			t.Errorf("%q: offset %v is no whole number of seconds", date, offset)
		}
		if off := sent.Add(time.Duration(took / 2)).Add(offset).Sub(stated); off < -time.Second || off > 2*time.Second {
			t.Errorf("%q: with the offset %v the clock is still off by %v", date, offset, off)
		}
	})
}

// What is read of an API key belongs to that API key, and no JWK of others is lost or altered when its set is written.
func FuzzAPIKeyResponse(f *testing.F) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	for _, members := range []string{
		`"id":"` + id + `"`, `"id":"` + strings.ToUpper(id) + `","jwkSet":{"keys":[{"kid":"a"},{"kid":"b" , "x":1e400}]}`,
		`"id":"` + id + `","jwkSet":{"keys":[null,1,"\u0000",[]]}`,
		`"id":"` + id + `","jwkSet":{}`, `"id":"` + id + `","jwkSet":null,"jwksURL":"https://x"`,
		`"id":"` + id + `","jwksURL":1`, `"id":"other","jwkSet":{"keys":[]}`, `"id":"` + id + `","id":"other"`, `"jwkSet":[]`, ``,
	} {
		f.Add([]byte(`{"payload":{"apikey":{` + members + `}}}`))
	}
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		key, ok := parseAPIKey(body, id)
		if !ok {
			if key != nil {
				t.Error("what can't be read came with an API key")
			}
			return
		}
		if !bytes.Contains(bytes.ToLower(body), []byte(id)) && !bytes.ContainsRune(body, '\\') {
			t.Error("the API key is another's")
		}
		keys := bytes.Join(rawBytes(key.JWKSet), []byte(","))
		again, ok := parseAPIKey(fmt.Appendf(nil, `{"payload":{"apikey":{"id":%q,"jwkSet":{"keys":[%s]}}}}`, id, keys), id)
		if !ok || len(again.JWKSet) != len(key.JWKSet) {
			t.Fatalf("the set %s can't be written and read again", keys)
		}
		for i := range again.JWKSet {
			if !bytes.Equal(again.JWKSet[i], key.JWKSet[i]) {
				t.Errorf("the JWK %s became %s", key.JWKSet[i], again.JWKSet[i])
			}
		}
	})
}

func rawBytes(messages []json.RawMessage) [][]byte {
	all := make([][]byte, len(messages))
	for i, message := range messages {
		all[i] = message
	}
	return all
}
