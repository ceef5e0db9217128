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

// parseJWK reads one private JWK (RFC 7517, RFC 7518 section 6) and its kid, which may be empty.
func parseJWK(input string) (key *Key, kid string, err error) {
	decoder := json.NewDecoder(strings.NewReader(input))
	var jwk privateJWK
	if decoder.Decode(&jwk) != nil {
		return nil, "", refuse("the JWK is malformed or cut off JSON", exportAgain)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, "", refuse("there is trailing data after the JWK", "give one JWK alone")
	}
	if jwk.has("keys") {
		return nil, "", refuse("it is a JWK Set", "give the one JWK in its \"keys\" that is to be imported")
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
	default:
		err = refuse("the JWK's \"kty\" is neither RSA nor EC", useRSAOrP384)
	}
	if err != nil {
		return nil, "", err
	}
	if err := jwk.checkPurpose(key.algorithm); err != nil {
		return nil, "", err
	}
	kid, err = jwk.text("kid")
	return key, kid, err
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
	if !j.has("p", "q") {
		return nil, refuse("the JWK lacks the RSA key's primes, its members \"p\" and \"q\"",
			"export the key with all the members of RFC 7518 section 6.3.2")
	}
	numbers, err := j.numbers("n", "e", "d", "p", "q")
	if err != nil {
		return nil, err
	}
	e := numbers[1]
	if e.BitLen() > 31 { // what crypto/rsa takes
		return nil, refuse("the RSA key's public exponent has more than 31 bits", "use a key with exponent 65537")
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
