// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package sandbox

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	assertionAge = 5 * time.Minute
	clockSkew    = 10 * time.Second
)

// algorithms are the ones Redox takes, and no other: neither none nor an HMAC keyed with a public key.
var algorithms = []jose.SignatureAlgorithm{jose.RS384, jose.ES384}

// assertion is a client assertion (RFC 7523 section 3) as far as it could be read.
type assertion struct {
	algorithm string
	kid       string
	clientID  string
	expires   time.Time
	jwtID     string
}

// checkAssertion checks a client assertion against every rule for its header and claims. It gives what was read of
// it, also when it is rejected, and the API key it is for.
func (s *Sandbox) checkAssertion(ctx context.Context, x *exchange, text string) (assertion, APIKey, *rejection) {
	var a assertion
	header, claims, broken := parseAssertion(text)
	if broken != nil {
		return a, APIKey{}, broken
	}
	if broken := a.readHeader(header); broken != nil {
		return a, APIKey{}, broken
	}
	if broken := a.readClient(claims); broken != nil {
		return a, APIKey{}, broken
	}
	k, ok := s.apiKeys.get(a.clientID)
	if !ok {
		return a, k, &rejection{ruleClientUnknown, "there is no API key with this client ID"}
	}
	if broken := checkJku(header, k); broken != nil {
		return a, k, broken
	}
	if broken := s.checkSignature(ctx, text, a, k); broken != nil {
		return a, k, broken
	}
	if broken := checkAudience(claims, s.TokenURL()); broken != nil {
		return a, k, broken
	}
	if broken := a.readTimes(claims, x.now); broken != nil {
		return a, k, broken
	}
	var found bool
	if a.jwtID, found = claims.text("jti"); !found || a.jwtID == "" {
		return a, k, &rejection{ruleJtiMissing, "jti is missing, empty or not a string"}
	}
	// Marked last: an assertion that was rejected for another reason did not use its jti. The time it is kept is
	// counted on the sandbox's own clock, which a fault does not move.
	own := s.options.Now()
	if !s.nonces.add(a.clientID+"\x00"+a.jwtID, struct{}{}, own, own.Add(a.expires.Sub(x.now))) {
		return a, k, &rejection{ruleJtiReplayed, "the jti was used before in an assertion that is still live"}
	}
	return a, k, nil
}

// members are a JOSE header or a claims set, each value still encoded.
type members map[string]json.RawMessage

// text gives a member that is a string.
func (m members) text(name string) (value string, ok bool) {
	raw, has := m[name]
	if !has || len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
		return "", false
	}
	return value, true
}

// time gives a member that is a NumericDate (RFC 7519 section 2): seconds since 1970, fractions allowed.
func (m members) time(name string) (time.Time, bool) {
	raw, has := m[name]
	var seconds *float64
	if !has || json.Unmarshal(raw, &seconds) != nil || seconds == nil {
		return time.Time{}, false
	}
	const year9999 = 253402300799 // past it, time.Time can't be compared meaningfully
	if math.Abs(*seconds) > year9999 {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(*seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// malformed is the rule for a header or claim that is missing or malformed: `Unexpected X claim value`.
var malformed = map[string]rule{
	"kid": ruleKidMalformed, "alg": ruleAlgMissing, "typ": ruleTypMissing, "jku": ruleJkuMalformed,
	"iss": ruleIssMissing, "sub": ruleSubMissing, "aud": ruleAudMissing, "iat": ruleIatMissing,
	"exp": ruleExpMissing, "jti": ruleJtiMissing,
}

// parseAssertion takes a JWT in its compact form apart (RFC 7515 section 7.1).
func parseAssertion(text string) (header, claims members, broken *rejection) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, nil, &rejection{ruleAssertionMalformed, "the assertion is not three parts with dots between them"}
	}
	var decoded [2]members
	for i, name := range []string{"header", "claims set"} {
		// encoding/base64 skips line ends, which have no place in a JWT.
		if strings.ContainsAny(parts[i], "\r\n") {
			return nil, nil, &rejection{ruleAssertionMalformed, "the assertion has line ends in it"}
		}
		data, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil {
			return nil, nil, &rejection{ruleAssertionMalformed, "the assertion's " + name + " is not base64url"}
		}
		object, duplicates, err := decodeObject(data)
		if err != nil {
			return nil, nil, &rejection{ruleAssertionMalformed, "the assertion's " + name + " is not a JSON object"}
		}
		if len(duplicates) > 0 {
			broken, known := malformed[duplicates[0]]
			if !known {
				broken = ruleAssertionMalformed
			}
			return nil, nil, &rejection{broken, "the assertion's " + name + " has " + printable(duplicates[0]) + " twice"}
		}
		decoded[i] = object
	}
	return decoded[0], decoded[1], nil
}

// readHeader checks kid, alg and typ.
func (a *assertion) readHeader(header members) *rejection {
	var isText bool
	raw, has := header["kid"]
	a.kid, isText = header.text("kid")
	switch {
	case !has || string(raw) == `""`:
		return &rejection{ruleKidMissing, "the header has no kid"}
	case !isText:
		return &rejection{ruleKidMalformed, "the header's kid is not a string"}
	}
	if a.algorithm, isText = header.text("alg"); !isText {
		return &rejection{ruleAlgMissing, "the header's alg is missing or not a string"}
	}
	if !slices.Contains(algorithms, jose.SignatureAlgorithm(a.algorithm)) {
		return &rejection{ruleAlgOther, "alg is " + printable(a.algorithm) + "; Redox takes RS384 and ES384"}
	}
	typ, isText := header.text("typ")
	switch {
	case !isText:
		return &rejection{ruleTypMissing, "the header's typ is missing or not a string"}
	case typ != "JWT":
		return &rejection{ruleTypOther, "typ is " + printable(typ) + "; it must be JWT"}
	}
	// RFC 7515 section 4.1.11: extensions that must be understood. There is none that Redox documents.
	if _, has := header["crit"]; has {
		return &rejection{ruleAssertionMalformed, "the header has crit; no extension is known here"}
	}
	return nil
}

// readClient checks that iss and sub are there and the same: the client ID.
func (a *assertion) readClient(claims members) *rejection {
	issuer, isText := claims.text("iss")
	if !isText || issuer == "" {
		return &rejection{ruleIssMissing, "iss is missing, empty or not a string"}
	}
	subject, isText := claims.text("sub")
	if !isText || subject == "" {
		return &rejection{ruleSubMissing, "sub is missing, empty or not a string"}
	}
	a.clientID = issuer
	if subject != issuer {
		return &rejection{ruleSubOther, "sub is " + printable(subject) + ", not the same as iss"}
	}
	return nil
}

// checkJku checks that a jku header is exactly the JWKS URL that the API key has.
func checkJku(header members, k APIKey) *rejection {
	if _, has := header["jku"]; !has {
		return nil
	}
	jku, isText := header.text("jku")
	switch {
	case !isText:
		return &rejection{ruleJkuMalformed, "the header's jku is not a string"}
	case k.JWKSURL == "":
		return &rejection{ruleJkuOther, "the header has a jku, but the API key has no JWKS URL"}
	case jku != k.JWKSURL:
		return &rejection{ruleJkuOther, "jku is " + printable(jku) + ", but the API key's JWKS URL is " + printable(k.JWKSURL)}
	}
	return nil
}

// checkSignature finds the public key that kid names and verifies the signature with it.
func (s *Sandbox) checkSignature(ctx context.Context, text string, a assertion, k APIKey) *rejection {
	keys, broken := s.publicKeys(ctx, k, a.kid)
	if broken != nil {
		return broken
	}
	signed, err := jose.ParseSignedCompact(text, algorithms)
	if err != nil {
		return &rejection{ruleAssertionMalformed, "go-jose can't parse the assertion"}
	}
	why := ""
	for _, key := range keys {
		if why = fits(key, a.algorithm); why != "" {
			continue
		}
		if _, err := signed.Verify(key.Key); err == nil {
			return nil
		}
	}
	if why != "" {
		return &rejection{ruleKidUnknown, why}
	}
	return &rejection{ruleSignature, "the signature is not of the key that kid names"}
}

// checkAudience checks that aud is the token URL: the string, or an array of it alone (RFC 7519 section 4.1.3).
// Redox documents one value; an assertion that names others, too, could be used elsewhere.
func checkAudience(claims members, tokenURL string) *rejection {
	audiences := make([]string, 1)
	if text, isText := claims.text("aud"); isText {
		audiences[0] = text
	} else if raw := claims["aud"]; len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &audiences) != nil {
		return &rejection{ruleAudMissing, "aud is missing, or neither a string nor an array of strings"}
	}
	if len(audiences) != 1 || audiences[0] != tokenURL {
		return &rejection{ruleAudOther, "aud is " + printable(strings.Join(audiences, " ")) + "; it must be " + tokenURL}
	}
	return nil
}

// readTimes checks iat and exp against each other and the clock. The 10 s of skew that Redox allows is between two
// clocks, so it doesn't widen the distance between iat and exp, which come from one; nor is it granted after exp,
// where Redox documents none.
func (a *assertion) readTimes(claims members, now time.Time) *rejection {
	issued, ok := claims.time("iat")
	if !ok {
		return &rejection{ruleIatMissing, "iat is missing or not a number"}
	}
	expires, ok := claims.time("exp")
	if !ok {
		return &rejection{ruleExpMissing, "exp is missing or not a number"}
	}
	a.expires = expires
	switch age, left := now.Sub(issued), expires.Sub(now); {
	case age > assertionAge+clockSkew:
		return &rejection{ruleIatPast, fmt.Sprintf("iat is %s ago; check the clock", seconds(age))}
	case age < -clockSkew:
		return &rejection{ruleIatFuture, fmt.Sprintf("iat is %s in the future; check the clock", seconds(-age))}
	case left <= 0:
		return &rejection{ruleExpPast, fmt.Sprintf("exp was %s ago; check the clock", seconds(-left))}
	case left > assertionAge+clockSkew:
		return &rejection{ruleExpFuture, fmt.Sprintf("exp is %s in the future; check the clock", seconds(left))}
	case expires.Sub(issued) > assertionAge:
		return &rejection{ruleIatBeforeExp, fmt.Sprintf("iat is %s before exp; at most 300s", seconds(expires.Sub(issued)))}
	}
	return nil
}

// seconds writes a duration as whole seconds, for people.
func seconds(d time.Duration) string { return fmt.Sprintf("%.0fs", d.Seconds()) }
