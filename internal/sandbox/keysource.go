// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// privateMembers are the members of a JWK that hold private or symmetric key material (RFC 7518 section 6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// keySource is where an API key's public keys are, as a request states it.
type keySource struct {
	JWKSURL *string         `json:"jwksURL"`
	JWKSet  json.RawMessage `json:"jwkSet"`
	JWK     json.RawMessage `json:"jwk"` // one key, as an object or as a string that holds one
}

// resolve checks a source and turns a single JWK into a set. An API key has either a JWK set or a JWKS URL, as in
// the dashboard; that one request can't state both is the sandbox's decision. A null counts as not stated.
func (k *keySource) resolve() error {
	switch {
	case k.states() > 1:
		return errors.New("an API key has one source of public keys: give only one of jwksURL and jwkSet")
	case k.JWKSURL != nil:
		return checkJWKSURL(*k.JWKSURL)
	case present(k.JWK):
		if err := k.wrapJWK(); err != nil {
			return err
		}
	}
	if present(k.JWKSet) {
		return checkJWKSet(k.JWKSet)
	}
	return nil
}

// resolveStated is resolve for a request that must state a source.
func (k *keySource) resolveStated() error {
	if k.states() == 0 {
		return errors.New("give one of jwk, jwkSet and jwksURL")
	}
	return k.resolve()
}

// states is how many sources are stated.
func (k *keySource) states() int {
	count := 0
	for _, is := range []bool{k.JWKSURL != nil, present(k.JWKSet), present(k.JWK)} {
		if is {
			count++
		}
	}
	return count
}

// present says whether a member was there and not null.
func present(raw json.RawMessage) bool { return raw != nil && string(raw) != "null" }

// apply changes an API key's source of public keys to k, if k states one. That one source clears the other is
// the sandbox's decision: Redox documents that an API key has one of them.
func (k *keySource) apply(to *APIKey) {
	switch {
	case k.JWKSURL != nil:
		to.JWKSURL, to.JWKSet = *k.JWKSURL, nil
	case present(k.JWKSet):
		to.JWKSURL, to.JWKSet = "", k.JWKSet
	}
}

// wrapJWK turns the single JWK into a JWK set.
func (k *keySource) wrapJWK() error {
	jwk := k.JWK
	var text string
	if json.Unmarshal(jwk, &text) == nil {
		jwk = json.RawMessage(text)
	}
	if !json.Valid(jwk) {
		return errors.New("jwk: not a JSON object; give one public JWK, as an object or as a string")
	}
	set, err := json.Marshal(map[string][]json.RawMessage{"keys": {jwk}})
	if err != nil {
		return errors.New("jwk: not a JSON object; give one public JWK, as an object or as a string")
	}
	k.JWK, k.JWKSet = nil, set
	return nil
}

// checkJWKSet says what is wrong with a JWK set: each key needs kid and kty, kids are unique, and nothing
// private may be in it. No error holds any of the set's values but a kid.
func checkJWKSet(jwkSet json.RawMessage) error {
	keys, err := jwkSetKeys(jwkSet)
	if err != nil {
		return fmt.Errorf("jwkSet: %w", err)
	}
	var kids []string
	for i, jwk := range keys {
		members, _, err := decodeObject(jwk)
		if err != nil {
			return fmt.Errorf("jwkSet: keys[%d] is not a JSON object", i)
		}
		for _, name := range privateMembers {
			if _, has := members[name]; has {
				return fmt.Errorf("jwkSet: keys[%d] holds the private member %q; give public keys only", i, name)
			}
		}
		kid, kty := stringMember(members, "kid"), stringMember(members, "kty")
		if kid == "" || kty == "" {
			return fmt.Errorf("jwkSet: keys[%d] needs kid and kty, both strings that are not empty", i)
		}
		if slices.Contains(kids, kid) {
			return fmt.Errorf("jwkSet: the kid %q names two keys; a kid must be unique within the set", printable(kid))
		}
		kids = append(kids, kid)
	}
	return nil
}

// jwkSetKeys gives the keys of a JWK set (RFC 7517 section 5), each still encoded.
func jwkSetKeys(jwkSet json.RawMessage) ([]json.RawMessage, error) {
	const wayOut = `not a JWK set; give {"keys": [...]}`
	set, _, err := decodeObject(jwkSet)
	if err != nil {
		return nil, errors.New(wayOut)
	}
	var keys []json.RawMessage
	if json.Unmarshal(set["keys"], &keys) != nil || keys == nil {
		return nil, errors.New(wayOut)
	}
	return keys, nil
}

// stringMember gives a member that is a string, else "".
func stringMember(members map[string]json.RawMessage, name string) string {
	var value string
	if json.Unmarshal(members[name], &value) != nil {
		return ""
	}
	return value
}

// checkJWKSURL says what is wrong with a JWKS URL. Redox wants TLS; the sandbox takes http from loopback, too.
func checkJWKSURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("jwksURL: not a URL that can be read; give https://host/path")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("jwksURL: must be https; the sandbox takes http for loopback hosts only")
}

// isLoopback says whether a host name or address is this machine's loopback.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
