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

// parsePKCS8 reads a key of any kind in PKCS#8 (RFC 5958).
func parsePKCS8(der []byte) (*Key, error) {
	return parseDER(der, pkcs8Content(der), x509.ParsePKCS8PrivateKey)
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
