// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package sandbox is a local Redox: the token endpoint, the Platform API for API keys, and one FHIR resource. It
// checks every rule that Redox documents for its OAuth and answers with the documented errors, so that a client
// can be built, tested and tried without a Redox account. Faults can be set while it runs, counters can be read.
//
// It is a second, independent reading of the rules: it shares no code with any client, and it checks signatures
// with another library (go-jose) than the plugin signs with.
//
// It is no place for real data: it keeps everything in memory, and its own endpoints under /sandbox/ ask for no
// authentication. Start therefore listens on loopback addresses only.
package sandbox

import (
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	tokenPath     = "/v2/auth/token"
	platformPath  = "/platform"
	adminPath     = "/sandbox/"
	tokenBodyMax  = 64 << 10
	otherBodyMax  = 1 << 20
	tokenLifetime = 300 * time.Second // as Redox documents it
)

// Options says how a sandbox behaves. The zero value is ready for use.
type Options struct {
	// Now is Redox's own clock, for the windows of iat and exp, the life of tokens and the Date header. Default
	// time.Now.
	Now func() time.Time
	// Log gets one line a request, in human words; never a token or an assertion. Nil keeps silent.
	Log io.Writer
	// TLS makes Start serve HTTPS with a certificate of a throw-away CA.
	TLS bool
	// Address is where Start listens, a loopback host and a port. Default "127.0.0.1:0", a free port.
	Address string
	// TokenLifetime is how long tokens live. Default 300 s. The token_lifetime fault goes before it.
	TokenLifetime time.Duration
	// JWKSRootCAs is whom the sandbox trusts when it reads an API key's JWKS URL. Default: the system's roots.
	JWKSRootCAs *x509.CertPool
}

// Sandbox is a local Redox as an http.Handler. Make one with New, or, listening, with Start.
type Sandbox struct {
	// BaseURL is where clients reach the sandbox, without a slash at its end. The audience that assertions must
	// name is derived from it. Start sets it; who serves the handler itself sets it before the first request.
	BaseURL string

	options   Options
	routes    http.Handler
	jwks      *http.Client
	apiKeys   *apiKeyStore
	tokens    *expiring[issuedToken]
	nonces    *expiring[struct{}]
	faults    faultBox
	gate      gate
	counters  counterBox
	requests  requestLog
	authority string // the throw-away CA as PEM, empty without TLS
}

// New gives a sandbox that doesn't listen: the caller serves it, after setting BaseURL.
func New(options Options) *Sandbox {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.TokenLifetime <= 0 {
		options.TokenLifetime = tokenLifetime
	}
	s := &Sandbox{
		options:  options,
		jwks:     newJWKSClient(options.JWKSRootCAs),
		apiKeys:  newAPIKeyStore(),
		tokens:   newExpiring[issuedToken](),
		nonces:   newExpiring[struct{}](),
		requests: requestLog{to: options.Log},
	}
	s.ResetCounters()
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, s.handleToken)
	s.addFHIRRoutes(mux)
	s.addPlatformRoutes(mux)
	s.addAdminRoutes(mux)
	s.routes = mux
	return s
}

// TokenURL is the token endpoint, and the audience that assertions must name.
func (s *Sandbox) TokenURL() string { return s.BaseURL + tokenPath }

// PlatformURL is the base of the Platform API.
func (s *Sandbox) PlatformURL() string { return s.BaseURL + platformPath }

// FHIRURL is the FHIR base for a destination and an environment's flag.
func (s *Sandbox) FHIRURL(destination, environmentFlag string) string {
	return s.BaseURL + "/fhir/R4/" + destination + "/" + environmentFlag
}

// ServeHTTP answers one request: it reads the body (bounded), waits at the gate, applies the faults that are set,
// lets the endpoint answer, and writes a line of log. The sandbox's own endpoints see neither gate nor faults.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, r := newExchange(r, s.options.Now())
	defer func() { s.requests.write(x) }()

	if x.area == areaAdmin || x.area == areaOther {
		r.Body = http.MaxBytesReader(w, r.Body, otherBodyMax)
		answer := newAnswer()
		s.routes.ServeHTTP(answer, r)
		x.status = answer.status
		s.deliver(w, r, x, answer)
		return
	}
	if x.area == areaToken {
		s.counters.tokenRequest()
	}
	answer := newAnswer()
	tooLarge, err := x.readBody(w, r)
	if err != nil {
		x.say("the request's body could not be read")
		s.countUnanswered(x)
		panic(http.ErrAbortHandler)
	}
	if !s.gate.wait(r.Context(), x.area) {
		x.say("the client went away while its request was held")
		s.countUnanswered(x)
		panic(http.ErrAbortHandler)
	}
	x.fault = s.faults.take(r.URL.Path)
	x.now = s.options.Now().Add(time.Duration(x.fault.ClockOffset))
	if !pause(r.Context(), time.Duration(x.fault.Latency)) {
		x.say("the client went away while the answer was delayed")
		s.countUnanswered(x)
		panic(http.ErrAbortHandler)
	}
	switch {
	case x.fault.answers():
		s.counters.fault(x.area)
		s.answerFault(w, answer, x)
	case tooLarge && x.area == areaToken:
		s.reject(answer, x, assertion{}, rejection{ruleBodySize, "the body is larger than 64 KiB"})
	case tooLarge:
		platformError(answer, r, http.StatusRequestEntityTooLarge, "the body is larger than 1 MiB")
	default:
		s.routes.ServeHTTP(answer, r)
	}
	x.status = answer.status
	s.deliver(w, r, x, answer)
}

// countUnanswered counts a token request whose client went away before it was answered.
func (s *Sandbox) countUnanswered(x *exchange) {
	if x.area == areaToken {
		s.counters.tokenAbandoned()
	}
}

// areaOf says which part of the sandbox a request is for. Only a POST is a token request; net/http answers 405 to
// the rest.
func areaOf(method, path string) area {
	switch {
	case path == tokenPath && method == http.MethodPost:
		return areaToken
	case strings.HasPrefix(path, "/fhir/"):
		return areaFHIR
	case strings.HasPrefix(path, platformPath+"/"):
		return areaPlatform
	case path == "/", strings.HasPrefix(path, adminPath):
		return areaAdmin
	}
	return areaOther
}
