// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
)

// Algorithms of keys in PKCS#8 that can't be used, by their identifiers (RFC 8017, RFC 8410, RFC 5480).
var otherAlgorithms = map[string]error{
	"1.2.840.113549.1.1.10": refuse("it is an RSA-PSS key, which may sign with RSA-PSS only, and RS384 is RSA PKCS#1 v1.5", useRSAOrP384+" that is not bound to RSA-PSS"),
	"1.3.101.110":           refuse("it is an X25519 key", useRSAOrP384),
	"1.3.101.111":           refuse("it is an X448 key", useRSAOrP384),
	"1.3.101.112":           refuse("it is an Ed25519 key", useRSAOrP384),
	"1.3.101.113":           refuse("it is an Ed448 key", useRSAOrP384),
	"1.2.840.10040.4.1":     refuse("it is a DSA key", useRSAOrP384),
}

// curves are the names of curves that ES384 does not sign with, by their identifiers.
var curves = map[string]string{
	"1.2.840.10045.3.1.1": "P-192", "1.3.132.0.33": "P-224", "1.2.840.10045.3.1.7": "P-256", "1.3.132.0.35": "P-521",
	"1.3.132.0.10": "secp256k1", "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1", "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
}

// parsePKCS8 reads a key of any kind in PKCS#8 (RFC 5958).
func parsePKCS8(der []byte) (*Key, error) {
	var outer struct {
		Version   int
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Key []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err == nil {
		if other := otherAlgorithms[outer.Algorithm.ID.String()]; other != nil {
			return nil, other
		}
		if err := checkCurve(outer.Algorithm.Parameters.FullBytes); err != nil {
			return nil, err
		}
		if outer.Algorithm.ID.String() == "1.2.840.113549.1.1.1" && !hasTrailingData(der) && isPKCS1(outer.Key) {
			return parsePKCS1(outer.Key)
		}
	}
	return parseDER(der, pkcs8Content(der), x509.ParsePKCS8PrivateKey)
}

// checkCurve refuses the identifier of a curve that ES384 does not sign with. Anything else passes.
func checkCurve(der []byte) error {
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(der, &curve); err != nil {
		return nil
	}
	if name := curves[curve.String()]; name != "" {
		return refuse("the EC key is on curve "+name, useP384)
	}
	return nil
}

// pkcs1 is an RSA key (RFC 8017 appendix A.1.2).
type pkcs1 struct {
	Version         int
	N, E, D, P, Q   *big.Int
	Dp, Dq, Inverse *big.Int `asn1:"optional"`
}

// isPKCS1 reports whether DER is an RSA key in PKCS#1.
func isPKCS1(der []byte) bool {
	_, err := asn1.Unmarshal(der, &pkcs1{})
	return err == nil
}

// isSEC1 reports whether DER is an EC key in SEC 1 (RFC 5915).
func isSEC1(der []byte) bool {
	var key struct {
		Version int
		Key     []byte
	}
	_, err := asn1.Unmarshal(der, &key)
	return err == nil && key.Version == 1
}

// parsePKCS1 reads an RSA key in PKCS#1. One whose primes are zero, as BouncyCastle writes keys that it has no primes of, gets
// them back.
func parsePKCS1(der []byte) (*Key, error) {
	var numbers pkcs1
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		return nil, refuse("the key is malformed or cut off", exportAgain)
	}
	if err := checkExponent(numbers.E); err != nil {
		return nil, err
	}
	if numbers.Version != 0 || numbers.P.Sign() != 0 || numbers.Q.Sign() != 0 {
		return parseDER(der, der, x509.ParsePKCS1PrivateKey)
	}
	if hasTrailingData(der) {
		return nil, refuse("there is trailing data within the key's encoding", exportAgain)
	}
	return rsaWithoutPrimes(numbers.N, numbers.E, numbers.D)
}

// parseDER reads a key with one of x509's parsers, and checks what they do not look at. content is the PKCS#1 or SEC 1
// structure, which is inside the DER or is all of it.
func parseDER[T any](der, content []byte, parse func(der []byte) (T, error)) (*Key, error) {
	if hasTrailingData(der) || hasTrailingData(content) {
		return nil, refuse("there is trailing data within the key's encoding", exportAgain)
	}
	if err := checkPKCS1(content); err != nil {
		return nil, err
	}
	parsed, err := parse(der)
	if err != nil {
		return nil, refuse("the key is malformed, cut off, inconsistent, or of an unknown kind or curve",
			exportAgain+", an EC key with a named curve")
	}
	if key, ok := any(parsed).(*ecdsa.PrivateKey); ok && !publicPointMatches(key, content) {
		return nil, refuse("the private and the public part of the EC key do not belong together", exportAgain)
	}
	return newKey(parsed)
}

// hasTrailingData reports whether something follows the first ASN.1 value.
func hasTrailingData(der []byte) bool {
	var value asn1.RawValue
	rest, err := asn1.Unmarshal(der, &value)
	return err == nil && len(rest) > 0
}

// pkcs8Content returns the key inside a PKCS#8 structure (RFC 5958 section 2), nil when x509 can't parse it either.
func pkcs8Content(der []byte) []byte {
	var outer struct {
		Version   int
		Algorithm asn1.RawValue
		Key       []byte
	}
	_, _ = asn1.Unmarshal(der, &outer)
	return outer.Key
}

// checkPKCS1 looks at the lengths in an RSA key (RFC 8017 appendix A.1.2) before x509 computes with them. What is not
// an RSA key passes.
func checkPKCS1(der []byte) error {
	var numbers struct {
		Version       int
		N, E, D, P, Q *big.Int
	}
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		return nil
	}
	if numbers.Version != 0 {
		return refuse(notTwoPrimes, useTwoPrimes)
	}
	return checkRSALengths(numbers.N, numbers.P, numbers.Q)
}

// publicPointMatches reports whether the public point in a SEC 1 structure (RFC 5915 section 3), if there is one, is the
// private scalar's: x509 does not look at it.
func publicPointMatches(key *ecdsa.PrivateKey, sec1 []byte) bool {
	var inner struct {
		Version   int
		Key       []byte
		Curve     asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		PublicKey asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(sec1, &inner); err != nil {
		return false
	}
	point := inner.PublicKey.Bytes
	if len(point) == 0 {
		return true
	}
	uncompressed, err := key.PublicKey.Bytes()
	if err != nil {
		return false
	}
	return bytes.Equal(point, uncompressed) || bytes.Equal(point, compressedPoint(uncompressed))
}

// compressedPoint returns the compressed form of an uncompressed point (SEC 1 section 2.3.3): the parity of y, then x.
func compressedPoint(uncompressed []byte) []byte {
	size := (len(uncompressed) - 1) / 2
	parity := uncompressed[len(uncompressed)-1] & 1
	return append([]byte{2 + parity}, uncompressed[1:1+size]...)
}
