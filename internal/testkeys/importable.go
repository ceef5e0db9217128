// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"strings"
)

// Case is a private_key as somebody may give it.
type Case struct {
	Name  string
	Input any           // a string, or what JSON becomes
	Key   crypto.Signer // what is, or would be, a secret in it
	KID   string        // of the JWK
	Want  string        // part of the refusal
}

// Importable returns every form in which a key can be imported.
func Importable() []Case {
	rsaKey, ecKey := RSA(), EC()
	rsaJWK, ecJWK := JWK(rsaKey), JWK(ecKey)
	evenKey := ecKeyWith(func(point []byte) bool { return point[96]%2 == 0 })
	oddKey := ecKeyWith(func(point []byte) bool { return point[96]%2 == 1 })
	shortKey := ecKeyWith(func(point []byte) bool { return point[1] == 0 }) // x begins with a zero byte
	longKey := ecKeyWith(func(point []byte) bool { return point[1] >= 0x80 && point[49] >= 0x80 })
	rsaText, ecText := PKCS8(rsaKey), PKCS8(ecKey)
	parameters := PEM("EC PARAMETERS", must(asn1.Marshal(oidP384)))
	sec1Text := PEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey)))
	attribute := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true}
	asText := func(members map[string]any) string { return string(must(json.MarshalIndent(members, "", "  "))) }

	return []Case{
		{Name: "RSA PKCS#8", Input: PKCS8(rsaKey), Key: rsaKey},
		{Name: "RSA PKCS#1", Input: PEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), Key: rsaKey},
		{Name: "EC PKCS#8", Input: PKCS8(ecKey), Key: ecKey},
		{Name: "EC PKCS#8 with attributes",
			Input: PEM("PRIVATE KEY", pkcs8EC(must(x509.MarshalECPrivateKey(ecKey)), attribute)), Key: ecKey},
		{Name: "EC SEC 1", Input: sec1Text, Key: ecKey},
		{Name: "EC SEC 1 after its parameters", Input: parameters + sec1Text, Key: ecKey},
		{Name: "EC SEC 1 with a compressed point, y even", Input: compressedEC(evenKey), Key: evenKey},
		{Name: "EC SEC 1 with a compressed point, y odd", Input: compressedEC(oddKey), Key: oddKey},
		{Name: "EC SEC 1 without a point", Input: PEM("EC PRIVATE KEY", sec1(ecKey, oidP384, nil)), Key: ecKey},
		{Name: "Windows lines and blanks",
			Input: "\r\n " + strings.ReplaceAll(PKCS8(ecKey), "\n", "\r\n") + " \n", Key: ecKey},
		{Name: "as long as may be", Input: strings.Repeat("\n", 16384-len(ecText)) + ecText, Key: ecKey},
		{Name: "RSA JWK as text", Input: asText(rsaJWK), Key: rsaKey},
		{Name: "RSA JWK as object", Input: rsaJWK, Key: rsaKey},
		{Name: "RSA JWK without CRT members",
			Input: Changed(rsaJWK, map[string]any{"dp": nil, "dq": nil, "qi": nil}), Key: rsaKey},
		{Name: "EC JWK as text", Input: asText(ecJWK), Key: ecKey},
		{Name: "EC JWK as object", Input: ecJWK, Key: ecKey},
		{Name: "EC JWK with a short x", Input: JWK(shortKey), Key: shortKey},
		{Name: "EC JWK with x and y of 384 bits", Input: JWK(longKey), Key: longKey},
		{Name: "JWK with all that may be said", KID: "redox-1", Key: ecKey, Input: Changed(ecJWK, map[string]any{
			"kid": "redox-1", "alg": "ES384", "use": "sig", "key_ops": []any{"sign", "verify"},
			"x5t": "ignored", "nested": map[string]any{"a": 1}})},
		{Name: "RSA JWK with kid", KID: "redox-2",
			Input: Changed(rsaJWK, map[string]any{"kid": "redox-2", "alg": "RS384"}), Key: rsaKey},

		// As editors, shells, secret stores and other programs leave it.
		{Name: "a byte order mark", Input: "\ufeff" + ecText, Key: ecKey},
		{Name: "a byte order mark before a JWK", Input: "\ufeff" + asText(ecJWK), Key: ecKey},
		{Name: "old Macintosh lines", Input: strings.ReplaceAll(rsaText, "\n", "\r"), Key: rsaKey},
		{Name: "escaped line ends", Input: strings.ReplaceAll(ecText, "\n", `\n`), Key: ecKey},
		{Name: "escaped Windows line ends", Input: strings.ReplaceAll(rsaText, "\n", `\r\n`), Key: rsaKey},
		{Name: "escaped line ends in quotes", Input: `"` + strings.ReplaceAll(ecText, "\n", `\n`) + `"`, Key: ecKey},
		{Name: "line ends turned into blanks", Input: strings.ReplaceAll(ecText, "\n", " "), Key: ecKey},
		{Name: "no line ends", Input: strings.ReplaceAll(rsaText, "\n", ""), Key: rsaKey},
		{Name: "indented", Input: "    " + strings.ReplaceAll(ecText, "\n", "\n    "), Key: ecKey},
		{Name: "indented with tabs, in single quotes", Input: "'\t" + strings.ReplaceAll(rsaText, "\n", "\n\t") + "'", Key: rsaKey},
		{Name: "blank lines between", Input: strings.ReplaceAll(ecText, "\n", "\n\n"), Key: ecKey},
		{Name: "text before and after", Input: "Bag Attributes\n    friendlyName: key\nKey Attributes: <No Attributes>\n" + ecText + "and more", Key: ecKey},
		{Name: "a certificate before", Input: PEM("CERTIFICATE", []byte{0x30, 0}) + rsaText, Key: rsaKey},
		{Name: "certificates after", Input: ecText + PEM("CERTIFICATE", []byte{0x30, 0}) + PEM("TRUSTED CERTIFICATE", []byte{0x30, 0}), Key: ecKey},
		{Name: "its public key after", Input: ecText + PEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(ecKey.Public()))), Key: ecKey},
		{Name: "parameters, text, key", Input: parameters + "text\n" + sec1Text, Key: ecKey},
		{Name: "PKCS#1 called PKCS#8", Input: PEM("PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), Key: rsaKey},
		{Name: "PKCS#8 called PKCS#1", Input: PEM("RSA PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey))), Key: rsaKey},
		{Name: "PKCS#8 called SEC 1", Input: PEM("EC PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ecKey))), Key: ecKey},
		{Name: "SEC 1 called PKCS#8", Input: PEM("PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey))), Key: ecKey},
		{Name: "BouncyCastle's zeros for the primes", Input: PEM("RSA PRIVATE KEY", withoutPrimes(rsaKey)), Key: rsaKey},
		{Name: "BouncyCastle's zeros in PKCS#8", Input: PEM("PRIVATE KEY", pkcs8Of("1.2.840.113549.1.1.1", withoutPrimes(rsaKey))), Key: rsaKey},
		{Name: "RSA JWK by n, e and d", Input: Changed(rsaJWK, noPrimes), Key: rsaKey},
		{Name: "RSA JWK by n, e and d, the others null", Input: Changed(rsaJWK, map[string]any{"p": json.RawMessage("null"), "q": json.RawMessage("null"),
			"dp": json.RawMessage("null"), "dq": json.RawMessage("null"), "qi": json.RawMessage("null")}), Key: rsaKey},
		{Name: "JWK as .NET writes it, with empty lists", Input: Changed(rsaJWK, map[string]any{
			"key_ops": []any{}, "oth": []any{}, "x5c": []any{}, "use": json.RawMessage("null"), "alg": "", "kid": ""}), Key: rsaKey},
		{Name: "EC JWK with null members", Input: Changed(ecJWK, map[string]any{
			"use": json.RawMessage("null"), "key_ops": json.RawMessage("null"), "alg": json.RawMessage("null"), "kid": json.RawMessage("null")}), Key: ecKey},
		{Name: "JWK as a JSON string", Input: string(must(json.Marshal(asText(ecJWK)))), Key: ecKey},
		{Name: "JWK in single quotes", Input: "'" + asText(ecJWK) + "'", Key: ecKey},
		{Name: "JWK Set with its public half", KID: "set-1", Key: ecKey, Input: map[string]any{"keys": []any{
			Changed(JWK(ecKey.Public()), map[string]any{"kid": "set-1"}), Changed(ecJWK, map[string]any{"kid": "set-1"})}}},
		{Name: "JWK Set with one key", Input: map[string]any{"keys": []any{rsaJWK}}, Key: rsaKey},
		{Name: "list of one JWK", Input: "[" + asText(ecJWK) + "]", Key: ecKey},
	}
}

// noPrimes takes the members away that RFC 7518 section 6.3.2 does not ask for.
var noPrimes = map[string]any{"p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}

// withoutPrimes is PKCS#1 as BouncyCastle writes a key that it has no primes of.
func withoutPrimes(key *rsa.PrivateKey) []byte {
	zero := new(big.Int)
	return must(asn1.Marshal(struct {
		Version                  int
		N                        *big.Int
		E                        int
		D, P, Q, Dp, Dq, Inverse *big.Int
	}{0, key.N, key.E, key.D, zero, zero, zero, zero, zero}))
}
