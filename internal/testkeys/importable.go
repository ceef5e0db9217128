// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
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
	ecText := PKCS8(ecKey)
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
	}
}
