// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"maps"
	"sync"
)

const (
	// emptyDescription stands for the empty error_description, in counters and log.
	emptyDescription = "(empty)"
	// unknownClient counts requests whose client ID is no API key's.
	unknownClient = "(unknown)"
	// otherClients counts the clients past clientsMax.
	otherClients = "(others)"
	clientsMax   = 1 << 17
)

// Counters is what the sandbox has counted since it began or since ResetCounters.
type Counters struct {
	Token       TokenCounters  `json:"token"`
	FHIR        AccessCounters `json:"fhir"`
	Platform    AccessCounters `json:"platform"`
	JWKSFetches FetchCounters  `json:"jwks_fetches"`
}

// TokenCounters counts requests to the token endpoint. Requests is counted when they arrive; each ends as one of
// the others.
type TokenCounters struct {
	Requests  int                       `json:"requests"`
	Issued    int                       `json:"issued"`
	Rejected  map[string]int            `json:"rejected"`  // by error_description, "(empty)" for the empty one
	Faulted   int                       `json:"faulted"`   // answered, or reset, by a fault
	Abandoned int                       `json:"abandoned"` // the client went away before it was answered
	Clients   map[string]ClientCounters `json:"clients"`   // by client ID, "(unknown)" for those of no API key
}

// ClientCounters counts one client's token requests.
type ClientCounters struct {
	Issued   int `json:"issued"`
	Rejected int `json:"rejected"`
}

// AccessCounters counts requests that need an access token.
type AccessCounters struct {
	Requests int `json:"requests"`
	Rejected int `json:"rejected"` // for want of a live token of the right kind
	Faulted  int `json:"faulted"`
}

// FetchCounters counts reads of JWKS URLs.
type FetchCounters struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// counterBox holds the counters. Their number is bounded: descriptions are those of the rules, clients those of
// API keys, and of these at most clientsMax.
type counterBox struct {
	mu       sync.Mutex
	counters Counters
}

func (b *counterBox) change(edit func(*Counters)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	edit(&b.counters)
}

func (b *counterBox) tokenRequest() { b.change(func(c *Counters) { c.Token.Requests++ }) }

func (b *counterBox) tokenAbandoned() { b.change(func(c *Counters) { c.Token.Abandoned++ }) }

func (b *counterBox) tokenIssued(clientID string) {
	b.change(func(c *Counters) {
		c.Token.Issued++
		c.Token.client(clientID, func(of *ClientCounters) { of.Issued++ })
	})
}

func (b *counterBox) tokenRejected(clientID, description string) {
	if description == "" {
		description = emptyDescription
	}
	if clientID == "" {
		clientID = unknownClient
	}
	b.change(func(c *Counters) {
		c.Token.Rejected[description]++
		c.Token.client(clientID, func(of *ClientCounters) { of.Rejected++ })
	})
}

func (c *TokenCounters) client(clientID string, edit func(*ClientCounters)) {
	if _, known := c.Clients[clientID]; !known && len(c.Clients) >= clientsMax {
		clientID = otherClients
	}
	of := c.Clients[clientID]
	edit(&of)
	c.Clients[clientID] = of
}

// fault counts a request that a fault answered.
func (b *counterBox) fault(where area) {
	b.change(func(c *Counters) {
		switch where {
		case areaToken:
			c.Token.Faulted++
		case areaFHIR:
			c.FHIR.Requests++
			c.FHIR.Faulted++
		case areaPlatform:
			c.Platform.Requests++
			c.Platform.Faulted++
		}
	})
}

// access counts a request that needed an access token, and whether it was let in.
func (b *counterBox) access(where area, allowed bool) {
	b.change(func(c *Counters) {
		of := &c.FHIR
		if where == areaPlatform {
			of = &c.Platform
		}
		of.Requests++
		if !allowed {
			of.Rejected++
		}
	})
}

func (b *counterBox) jwksFetch(succeeded bool) {
	b.change(func(c *Counters) {
		if succeeded {
			c.JWKSFetches.Succeeded++
		} else {
			c.JWKSFetches.Failed++
		}
	})
}

// Counters gives a copy of the counters.
func (s *Sandbox) Counters() Counters {
	var c Counters
	s.counters.change(func(current *Counters) {
		c = *current
		c.Token.Rejected = maps.Clone(c.Token.Rejected)
		c.Token.Clients = maps.Clone(c.Token.Clients)
	})
	return c
}

// ResetCounters sets every counter to zero.
func (s *Sandbox) ResetCounters() {
	s.counters.change(func(c *Counters) {
		*c = Counters{Token: TokenCounters{Rejected: map[string]int{}, Clients: map[string]ClientCounters{}}}
	})
}
