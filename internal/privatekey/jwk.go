// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// privateJWK holds the members of a JWK as they came. Names are case-sensitive (RFC 7517 section 4), which
// encoding/json's structs are not.
type privateJWK map[string]json.RawMessage

// has reports whether all the members are there.
func (j privateJWK) has(names ...string) bool {
	for _, name := range names {
		if _, ok := j[name]; !ok {
			return false
		}
	}
	return true
}

// text returns a string member, empty when it is not there.
func (j privateJWK) text(name string) (string, error) {
	raw, ok := j[name]
	if !ok {
		return "", nil
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return "", refuse(fmt.Sprintf("the JWK's member %q is not a string", name), exportAgain)
	}
	return *s, nil
}

// number returns a Base64urlUInt member (RFC 7518 section 2).
func (j privateJWK) number(name string) (*big.Int, error) {
	text, err := j.text(name)
	if err != nil {
		return nil, err
	}
	number, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(number) == 0 {
		return nil, refuse(fmt.Sprintf("the JWK's member %q is missing or not base64url", name), exportAgain)
	}
	return new(big.Int).SetBytes(number), nil
}

// numbers returns several members at once, in the order of the names.
func (j privateJWK) numbers(names ...string) ([]*big.Int, error) {
	numbers := make([]*big.Int, len(names))
	for i, name := range names {
		n, err := j.number(name)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return numbers, nil
}

// parseMembers reads one JSON object. A name that is there twice is refused, as RFC 7515 section 4 lets one do: which of the
// two counts, programs disagree about. Members that are null or empty, as some serializers write those that are absent, are left out.
func parseMembers(text []byte) (privateJWK, error) {
	malformed := refuse("the JWK is malformed or cut off JSON", exportAgain)
	decoder := json.NewDecoder(bytes.NewReader(text))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, malformed
	}
	jwk, seen := privateJWK{}, map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		name, isName := token.(string)
		var value json.RawMessage
		if err != nil || !isName || decoder.Decode(&value) != nil {
			return nil, malformed
		}
		if seen[name] {
			return nil, refuse("the JWK has a member twice", "export the key again, or take one of the two out")
		}
		seen[name] = true
		switch string(bytes.TrimSpace(value)) {
		case "null", `""`, "[]":
		default:
			jwk[name] = value
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, malformed
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, refuse("there is trailing data after the JWK", "give one JWK alone")
	}
	return jwk, nil
}

// findJWK returns the one private JWK of a text, which may be a JWK, a JWK Set (RFC 7517 section 5), or the list of its keys.
// Where there are several, kid chooses.
func findJWK(text, kid string) (privateJWK, error) {
	list := json.RawMessage(text)
	if strings.HasPrefix(text, "{") {
		jwk, err := parseMembers([]byte(text))
		if err != nil || !jwk.has("keys") {
			return jwk, err
		}
		list = jwk["keys"]
	}
	var members []json.RawMessage
	if json.Unmarshal(list, &members) != nil {
		return nil, refuse("the JWK Set is malformed or cut off JSON", exportAgain)
	}
	var private []privateJWK
	for _, one := range members {
		jwk, err := parseMembers(one)
		if err != nil {
			return nil, err
		}
		if jwk.has("d") || jwk.has("k") {
			private = append(private, jwk)
		}
	}
	switch len(private) {
	case 0:
		return nil, refuse("it is a JWK Set without a private key", "give the private JWK that belongs to one of them")
	case 1:
		return private[0], nil
	}
	var kids []string
	var chosen privateJWK
	for _, jwk := range private {
		own, err := jwk.kid()
		if err != nil {
			return nil, err
		}
		if own == kid && kid != "" {
			if chosen != nil {
				return nil, refuse("the JWK Set holds two private keys under this kid", "give one of them alone")
			}
			chosen = jwk
		}
		kids = append(kids, fmt.Sprintf("%q", own))
	}
	if chosen == nil {
		const most = 5
		if len(kids) > most {
			kids = append(kids[:most], "...")
		}
		return nil, refuse(fmt.Sprintf("it is a JWK Set with %d private keys, whose kids are %s", len(private), strings.Join(kids, ", ")),
			"choose one with kid=KID")
	}
	return chosen, nil
}

// kid returns the member of that name, which may be empty. It may be shown, so one that is a private number by mistake is refused.
func (j privateJWK) kid() (string, error) {
	kid, err := j.text("kid")
	if err != nil || kid == "" {
		return "", err
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
		if value, err := j.text(name); err == nil && value != "" && strings.Contains(kid, value) {
			return "", refuse("the JWK's \"kid\" holds one of the key's private members", "give the key its right kid")
		}
	}
	const longest = 512
	if len(kid) > longest {
		return "", refuse(fmt.Sprintf("the JWK's \"kid\" is longer than %d characters", longest), "name the key with kid=KID")
	}
	return kid, nil
}

// parseJWK reads the one private JWK of a text (RFC 7517, RFC 7518 section 6) and its kid, which may be empty. Where there are
// several, kid chooses.
func parseJWK(text, chosen string) (key *Key, kid string, err error) {
	jwk, err := findJWK(text, chosen)
	if err != nil {
		return nil, "", err
	}
	kty, err := jwk.text("kty")
	if err != nil {
		return nil, "", err
	}
	switch kty {
	case "RSA":
		key, err = jwk.rsa()
	case "EC":
		key, err = jwk.ec()
	case "":
		err = refuse("the JWK has no member \"kty\"", exportAgain)
	case "oct":
		err = refuse("the JWK is a symmetric key", useRSAOrP384)
	default:
		err = refuse("the JWK's \"kty\" is neither RSA nor EC", useRSAOrP384)
	}
	if err != nil {
		return nil, "", err
	}
	if err := jwk.checkPurpose(key.algorithm); err != nil {
		return nil, "", err
	}
	kid, err = jwk.kid()
	if err != nil {
		return nil, "", err
	}
	return key, kid, nil
}

// checkPurpose refuses a JWK that says it is meant for something else (RFC 7517 sections 4.2 to 4.4).
func (j privateJWK) checkPurpose(algorithm string) error {
	alg, err := j.text("alg")
	if err != nil {
		return err
	}
	if alg != "" && alg != algorithm {
		return refuse(fmt.Sprintf("the JWK's \"alg\" is not %s, which keys of this kind sign with here", algorithm),
			"import a key made for "+algorithm)
	}
	use, err := j.text("use")
	if err != nil {
		return err
	}
	if use != "" && use != "sig" {
		return refuse("the JWK's \"use\" is not \"sig\"", "import a key made for signatures")
	}
	if raw, ok := j["key_ops"]; ok {
		var operations []string
		if json.Unmarshal(raw, &operations) != nil || !slices.Contains(operations, "sign") {
			return refuse("the JWK's \"key_ops\" do not hold \"sign\"", "import a key made for signatures")
		}
	}
	return nil
}

// rsa reads the members of an RSA key (RFC 7518 section 6.3). What the numbers are worth is for checkRSA.
func (j privateJWK) rsa() (*Key, error) {
	if !j.has("d") {
		return nil, refuse("it is a public JWK", "give the private JWK that belongs to it")
	}
	if j.has("oth") {
		return nil, refuse(notTwoPrimes, useTwoPrimes)
	}
	if !j.has("p") && !j.has("q") { // RFC 7518 section 6.3.2 asks for d only
		numbers, err := j.numbers("n", "e", "d")
		if err != nil {
			return nil, err
		}
		if err := checkExponent(numbers[1]); err != nil {
			return nil, err
		}
		return rsaWithoutPrimes(numbers[0], numbers[1], numbers[2])
	}
	numbers, err := j.numbers("n", "e", "d", "p", "q")
	if err != nil {
		return nil, err
	}
	e := numbers[1]
	if err := checkExponent(e); err != nil {
		return nil, err
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: numbers[0], E: int(e.Int64())},
		D:         numbers[2],
		Primes:    numbers[3:],
	}
	if j.has("dp") || j.has("dq") || j.has("qi") { // then all of them (RFC 7518 section 6.3.2)
		if numbers, err = j.numbers("dp", "dq", "qi"); err != nil {
			return nil, err
		}
		key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv = numbers[0], numbers[1], numbers[2]
	}
	return newKey(key) // checkRSA matches the numbers with each other
}

// ec reads the members of a P-384 key (RFC 7518 section 6.2).
func (j privateJWK) ec() (*Key, error) {
	curve, err := j.text("crv")
	if err != nil {
		return nil, err
	}
	if curve != "P-384" {
		return nil, refuse("the JWK's \"crv\" is not P-384", useP384)
	}
	if !j.has("d") {
		return nil, refuse("it is a public JWK", "give the private JWK that belongs to it")
	}
	numbers, err := j.numbers("d", "x", "y")
	if err != nil {
		return nil, err
	}
	const size = 48 // bytes of a coordinate of P-384
	raw := make([][]byte, len(numbers))
	inconsistent := refuse("the members of the EC JWK do not belong together", exportAgain)
	for i, n := range numbers {
		if n.BitLen() > size*8 {
			return nil, inconsistent
		}
		raw[i] = n.FillBytes(make([]byte, size))
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), raw[0])
	if err != nil {
		return nil, inconsistent
	}
	point, err := key.PublicKey.Bytes()
	if err != nil || !bytes.Equal(point, slices.Concat([]byte{4}, raw[1], raw[2])) {
		return nil, inconsistent
	}
	return newKey(key)
}
