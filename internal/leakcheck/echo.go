// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package leakcheck

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// EchoServer answers every request with the secret that it came with, an assertion or a bearer token, in one of the
// ways that Echoes names. It has a token endpoint and a Platform API at any path.
type EchoServer struct {
	URL string

	mu      sync.Mutex
	way     string
	secrets []string
}

// StartEcho starts a server that ends with the test.
func StartEcho(t testing.TB) *EchoServer {
	e := &EchoServer{}
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	e.URL = server.URL
	return e
}

// Use makes it answer in another way.
func (e *EchoServer) Use(way string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.way = way
}

// Received gives the secrets that requests came with.
func (e *EchoServer) Received() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.secrets...)
}

func (e *EchoServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secret := r.PostFormValue("client_assertion")
	if secret == "" {
		secret = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	e.mu.Lock()
	e.secrets = append(e.secrets, secret)
	way := e.way
	e.mu.Unlock()
	Echoes[way](w, secret)
}

// Echoes are ways in which a server, or a proxy before it, shows a secret that it was sent. None is a usable answer.
var Echoes = map[string]func(w http.ResponseWriter, secret string){
	"the description":           described(http.StatusBadRequest, "can't use %s, sorry"),
	"the description, a 401":    described(http.StatusUnauthorized, "Public key not found for %s"),
	"the description, a 503":    described(http.StatusServiceUnavailable, "try %s later"),
	"the description, as form":  described(http.StatusBadRequest, "body: grant_type=client_credentials&client_assertion=%s&scope="),
	"the description, as JSON":  described(http.StatusBadRequest, `{\"client_assertion\":\"%s\"}`),
	"the error code":            text(http.StatusBadRequest, "application/json", `{"error":"%s"}`),
	"the error's address":       text(http.StatusBadRequest, "application/json", `{"error":"invalid_request","error_uri":"https://a.test/?%s"}`),
	"plain text":                text(http.StatusBadRequest, "text/plain", "%s"),
	"plain text, a 403":         text(http.StatusForbidden, "text/plain", "%s"),
	"plain text, a 404":         text(http.StatusNotFound, "text/plain", "%s"),
	"plain text, a 429":         text(http.StatusTooManyRequests, "text/plain", "%s"),
	"plain text, a 504":         text(http.StatusGatewayTimeout, "text/plain", "%s"),
	"a web page":                text(http.StatusForbidden, "text/html", "<html>%s</html>"),
	"a web page, a 200":         text(http.StatusOK, "text/html", "<html>%s</html>"),
	"another JSON":              text(http.StatusOK, "application/json", `{"client_assertion":"%s"}`),
	"a JSON string":             text(http.StatusOK, "application/json", `"%s"`),
	"broken JSON":               text(http.StatusOK, "application/json", `{"access_token":"%[1]s","scope":%[1]s`),
	"another type of token":     text(http.StatusOK, "application/json", `{"access_token":"%[1]s","token_type":"%[1]s"}`),
	"another lifetime":          text(http.StatusOK, "application/json", `{"access_token":"%[1]s","expires_in":"%[1]s"}`),
	"an unusable token":         text(http.StatusOK, "application/json", `{"access_token":"of two words: %s"}`),
	"an error that is a 200":    text(http.StatusOK, "application/json", `{"error":"%[1]s","error_description":"%[1]s"}`),
	"a body that is too large":  text(http.StatusOK, "application/json", `{"access_token":"%s","padding":"`+strings.Repeat("x", 70<<10)+`"}`),
	"a large description":       described(http.StatusBadRequest, strings.Repeat("%[1]s ", 100)),
	"the status line":           line("HTTP/1.1 400 %s\r\nContent-Length: 0\r\n\r\n"),
	"no HTTP":                   line("%s\r\n\r\n"),
	"a status that is none":     line("HTTP/1.1 %s\r\n\r\n"),
	"a version that is none":    line("HTTP/%s 200 OK\r\n\r\n"),
	"a header without a colon":  line("HTTP/1.1 200 OK\r\n%s\r\n\r\n"),
	"a length that is none":     line("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n"),
	"an encoding that is none":  line("HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n"),
	"a chunk that is none":      line("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n"),
	"a body that is too short":  line("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{\"access_token\":\"%s\""),
	"a trailer that is none":    line("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n%s\r\n\r\n"),
	"a redirect":                headers(http.StatusFound, "Location", "https://elsewhere.test/?access_token=%s"),
	"a redirect to nowhere":     headers(http.StatusTemporaryRedirect, "Location", "%s"),
	"a redirect that is broken": headers(http.StatusPermanentRedirect, "Location", "http://%%zz%s"),
	"headers":                   headers(http.StatusUnauthorized, "WWW-Authenticate", `Bearer error="%s"`),
	"headers for the browser":   headers(http.StatusBadGateway, "Set-Cookie", "assertion=%s"),
	"when to come back":         headers(http.StatusTooManyRequests, "Retry-After", "%s"),
	"the time":                  headers(http.StatusBadRequest, "Date", "%s"),
	"the description, in base64": func(w http.ResponseWriter, secret string) {
		described(http.StatusBadRequest, "%s")(w, base64.StdEncoding.EncodeToString([]byte(secret)))
	},
	"the description, without its beginning": func(w http.ResponseWriter, secret string) {
		described(http.StatusBadRequest, "%s")(w, secret[strings.Index(secret, ".")+1:])
	},
	"the description, its signature": func(w http.ResponseWriter, secret string) {
		described(http.StatusBadRequest, "%s")(w, secret[strings.LastIndex(secret, ".")+1:])
	},
}

func text(status int, contentType, format string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, secret string) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		fmt.Fprintf(w, format, secret)
	}
}

func described(status int, format string) func(http.ResponseWriter, string) {
	return text(status, "application/json", `{"error":"invalid_request","error_description":"`+format+`"}`)
}

func headers(status int, name, format string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, secret string) {
		w.Header().Set(name, fmt.Sprintf(format, secret))
		w.WriteHeader(status)
	}
}

// line answers with what need not be HTTP, and closes the connection.
func line(format string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, secret string) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(connection, format, secret)
		_ = connection.Close()
	}
}
