// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
)

// importCase is a private_key as somebody may give it.
type importCase struct {
	name  string
	input any           // a string, or what JSON becomes
	key   crypto.Signer // what is, or would be, a secret in it
	kid   string        // of the JWK
	want  string        // part of the refusal
}

// What x509 writes, for writing it otherwise.
type (
	pkcs8Form struct {
		Version    int
		Algorithm  struct{ Algorithm, Parameters asn1.ObjectIdentifier }
		Key        []byte
		Attributes asn1.RawValue `asn1:"optional"`
	}
	sec1Form struct {
		Version   int
		Key       []byte
		Curve     asn1.RawValue  `asn1:"optional"`
		PublicKey asn1.BitString `asn1:"optional,explicit,tag:1"`
	}
	pkcs1Form struct {
		Version                      int
		N                            *big.Int
		E                            int
		D, P, Q, Dp, Dq, Qinv, Extra *big.Int
	}
)

var (
	oidEC   = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
)

// sec1 writes an EC key with any curve parameters and public point.
func sec1(key *ecdsa.PrivateKey, parameters any, point []byte) []byte {
	curve := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: must(asn1.Marshal(parameters))}
	return must(asn1.Marshal(sec1Form{Version: 1, Key: must(key.Bytes()), Curve: curve,
		PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}}))
}

// pkcs8EC wraps a SEC 1 structure as PKCS#8.
func pkcs8EC(content []byte, attributes asn1.RawValue) []byte {
	form := pkcs8Form{Key: content, Attributes: attributes}
	form.Algorithm.Algorithm, form.Algorithm.Parameters = oidEC, oidP384
	return must(asn1.Marshal(form))
}

// explicitCurve is P-384 with its numbers in place of its name, as openssl's -param_enc explicit writes it.
func explicitCurve() any {
	type field struct {
		Kind asn1.ObjectIdentifier
		P    *big.Int
	}
	type coefficients struct{ A, B []byte }
	params := elliptic.P384().Params()
	base := must(must(ecdsa.ParseRawPrivateKey(elliptic.P384(), big.NewInt(1).FillBytes(make([]byte, 48)))).PublicKey.Bytes())
	return struct {
		Version  int
		Field    field
		Curve    coefficients
		Base     []byte
		Order    *big.Int
		Cofactor int
	}{1, field{asn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1}, params.P},
		coefficients{new(big.Int).Sub(params.P, big.NewInt(3)).Bytes(), params.B.Bytes()}, base, params.N, 1}
}

// rsaOf gives an RSA key for any two factors, prime or not, with a d, dp, dq and qi that fit to them.
func rsaOf(p, q *big.Int) *rsa.PrivateKey {
	one, e := big.NewInt(1), big.NewInt(65537)
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	gcd := new(big.Int).GCD(nil, nil, p1, q1)
	d := new(big.Int).ModInverse(e, new(big.Int).Div(new(big.Int).Mul(p1, q1), gcd))
	if d == nil {
		panic("e has no inverse: give other factors")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: d, Primes: []*big.Int{p, q}}
	crt := &key.Precomputed
	crt.Dp, crt.Dq, crt.Qinv = new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), new(big.Int).ModInverse(q, p)
	return key
}

// rsaMembers writes it as JWK.
func rsaMembers(p, q *big.Int) map[string]any {
	key := rsaOf(p, q)
	members := fields{"kty": "RSA", "e": "AQAB"}
	for name, n := range map[string]*big.Int{
		"n": key.N, "d": key.D, "p": p, "q": q,
		"dp": key.Precomputed.Dp, "dq": key.Precomputed.Dq, "qi": key.Precomputed.Qinv,
	} {
		members[name] = base64urlUInt(n)
	}
	return members
}

// fitting gives numbers made by make until e, 65537, has an inverse for one.
func fitting(make func() *big.Int) *big.Int {
	for {
		n := make()
		less := new(big.Int).Sub(n, big.NewInt(1))
		if new(big.Int).Mod(less, big.NewInt(65537)).Sign() != 0 {
			return n
		}
	}
}

func prime(bits int) *big.Int {
	return fitting(func() *big.Int { return must(rand.Prime(rand.Reader, bits)) })
}

func nextPrime(n *big.Int) *big.Int {
	n = new(big.Int).Set(n)
	return fitting(func() *big.Int {
		for n.Add(n, big.NewInt(2)); !n.ProbablyPrime(20); n.Add(n, big.NewInt(2)) {
		}
		return n
	})
}

// ecKeyWith gives the EC key with the least private scalar that fits.
func ecKeyWith(fits func(point []byte) bool) *ecdsa.PrivateKey {
	for d := int64(1); ; d++ {
		key := must(ecdsa.ParseRawPrivateKey(elliptic.P384(), big.NewInt(d).FillBytes(make([]byte, 48))))
		if fits(must(key.PublicKey.Bytes())) {
			return key
		}
	}
}

// compressedEC writes an EC key with its public point as the parity of y, and x.
func compressedEC(key *ecdsa.PrivateKey) string {
	point := must(key.PublicKey.Bytes())
	return pemText("EC PRIVATE KEY", sec1(key, oidP384, append([]byte{2 + point[96]&1}, point[1:49]...)))
}

// importable gives every form in which a key can be imported.
func importable() []importCase {
	rsaKey, ecKey := outsideRSA(), outsideEC()
	rsaJWK, ecJWK := jwkMembers(rsaKey), jwkMembers(ecKey)
	evenKey := ecKeyWith(func(point []byte) bool { return point[96]%2 == 0 })
	oddKey := ecKeyWith(func(point []byte) bool { return point[96]%2 == 1 })
	shortKey := ecKeyWith(func(point []byte) bool { return point[1] == 0 }) // x begins with a zero byte
	longKey := ecKeyWith(func(point []byte) bool { return point[1] >= 0x80 && point[49] >= 0x80 })
	ecText := pkcs8Text(ecKey)
	parameters := pemText("EC PARAMETERS", must(asn1.Marshal(oidP384)))
	sec1Text := pemText("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecKey)))
	attribute := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true}
	asText := func(members map[string]any) string { return string(must(json.MarshalIndent(members, "", "  "))) }

	return []importCase{
		{name: "RSA PKCS#8", input: pkcs8Text(rsaKey), key: rsaKey},
		{name: "RSA PKCS#1", input: pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), key: rsaKey},
		{name: "EC PKCS#8", input: pkcs8Text(ecKey), key: ecKey},
		{name: "EC PKCS#8 with attributes",
			input: pemText("PRIVATE KEY", pkcs8EC(must(x509.MarshalECPrivateKey(ecKey)), attribute)), key: ecKey},
		{name: "EC SEC 1", input: sec1Text, key: ecKey},
		{name: "EC SEC 1 after its parameters", input: parameters + sec1Text, key: ecKey},
		{name: "EC SEC 1 with a compressed point, y even", input: compressedEC(evenKey), key: evenKey},
		{name: "EC SEC 1 with a compressed point, y odd", input: compressedEC(oddKey), key: oddKey},
		{name: "EC SEC 1 without a point", input: pemText("EC PRIVATE KEY", sec1(ecKey, oidP384, nil)), key: ecKey},
		{name: "Windows lines and blanks",
			input: "\r\n " + strings.ReplaceAll(pkcs8Text(ecKey), "\n", "\r\n") + " \n", key: ecKey},
		{name: "as long as may be", input: strings.Repeat("\n", 16384-len(ecText)) + ecText, key: ecKey},
		{name: "RSA JWK as text", input: asText(rsaJWK), key: rsaKey},
		{name: "RSA JWK as object", input: rsaJWK, key: rsaKey},
		{name: "RSA JWK without CRT members",
			input: changed(rsaJWK, fields{"dp": nil, "dq": nil, "qi": nil}), key: rsaKey},
		{name: "EC JWK as text", input: asText(ecJWK), key: ecKey},
		{name: "EC JWK as object", input: ecJWK, key: ecKey},
		{name: "EC JWK with a short x", input: jwkMembers(shortKey), key: shortKey},
		{name: "EC JWK with x and y of 384 bits", input: jwkMembers(longKey), key: longKey},
		{name: "JWK with all that may be said", kid: "redox-1", key: ecKey, input: changed(ecJWK, fields{
			"kid": "redox-1", "alg": "ES384", "use": "sig", "key_ops": []any{"sign", "verify"},
			"x5t": "ignored", "nested": fields{"a": 1}})},
		{name: "RSA JWK with kid", kid: "redox-2",
			input: changed(rsaJWK, fields{"kid": "redox-2", "alg": "RS384"}), key: rsaKey},
	}
}

func TestImport(t *testing.T) {
	tests := importable()
	for _, bits := range []int{3072, 4096} {
		key := must(rsa.GenerateKey(rand.Reader, bits))
		tests = append(tests, importCase{name: "RSA " + big.NewInt(int64(bits)).String(), input: pkcs8Text(key), key: key})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newMount(t)
			response, err := m.request(logical.UpdateOperation, "keys/main/import", fields{"private_key": test.input})
			if err != nil || response.IsError() {
				t.Fatalf("%v %v", response, err)
			}
			if warnings := strings.Join(response.Warnings, "\n"); !strings.Contains(warnings, "lived outside Vault") {
				t.Errorf("the answer does not warn of copies: %q", warnings)
			}
			public := publicKey(t, response.Data)
			if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(test.key.Public()) {
				t.Error("another key was imported")
			}
			kid := test.kid
			if kid == "" {
				kid = thumbprint(test.key.Public())
			}
			if response.Data["kid"] != kid || response.Data["deletion_allowed"] != false {
				t.Errorf("answered %v, want kid %s", response.Data, kid)
			}
			first := response.Data["versions"].(map[string]any)["1"].(map[string]any)
			if first["imported"] != true || first["state"] != "active" {
				t.Errorf("the version is %v", first)
			}
			if read := m.read("keys/main"); !reflect.DeepEqual(read, response.Data) {
				t.Errorf("read %v, want %v", read, response.Data)
			}

			m.restart()
			m.write("config", fields{"client_id": "client-1", "key": "main"})
			assertion := m.write("assertion", nil)["client_assertion"].(string)
			header, _ := verified(t, assertion, jose.JSONWebKey{Key: test.key.Public()})
			if header["kid"] != kid {
				t.Errorf("signed with kid %v, want %s", header["kid"], kid)
			}
		})
	}
}

func TestImportSettings(t *testing.T) {
	m := newMount(t)
	jwk := changed(jwkMembers(outsideEC()), fields{"kid": "of the JWK"})
	answer := m.write("keys/main/import", fields{"private_key": jwk, "kid": "of the request", "deletion_allowed": true})
	if answer["kid"] != "of the request" || answer["deletion_allowed"] != true {
		t.Errorf("answered %v", answer)
	}
	m.remove("keys/main")
	if answer := m.write("keys/main/import", fields{"private_key": jwk, "kid": ""}); answer["kid"] != "of the JWK" {
		t.Errorf("answered %v", answer)
	}
}

// An import never replaces a key: it adds a pending version, and only one.
func TestImportOntoAnExistingKey(t *testing.T) {
	m := newMount(t)
	m.createEC("main")
	before := m.read("keys/main")
	answer := m.write("keys/main/import", fields{"private_key": pkcs8Text(outsideEC()), "kid": "imported"})
	if answer["kid"] != before["kid"] || answer["pending_kid"] != "imported" {
		t.Errorf("active is %v, pending %v", answer["kid"], answer["pending_kid"])
	}
	again := fields{"private_key": pkcs8Text(outsideEC()), "kid": "again"}
	m.refusedWith(logical.UpdateOperation, "keys/main/import", again, "name: ", "pending version", "activate", "abandon")
}

// refusable gives keys that can't be imported, and texts that are none. Making them takes a while.
var refusable = sync.OnceValue(func() []importCase {
	rsaKey, otherRSA, ecKey, otherEC := outsideRSA(), otherOutsideRSA(), outsideEC(), otherOutsideEC()
	weakRSA := must(rsa.GenerateKey(rand.Reader, 1024))
	p256, p521 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	rsaJWK, otherRSAJWK, ecJWK, otherECJWK := jwkMembers(rsaKey), jwkMembers(otherRSA), jwkMembers(ecKey), jwkMembers(otherEC)
	rsaDER, ecDER := must(x509.MarshalPKCS8PrivateKey(rsaKey)), must(x509.MarshalPKCS8PrivateKey(ecKey))
	ecSEC1, rsaPKCS1 := must(x509.MarshalECPrivateKey(ecKey)), x509.MarshalPKCS1PrivateKey(rsaKey)
	rsaText, ecText := pkcs8Text(rsaKey), pkcs8Text(ecKey)
	ecJWKText := string(must(json.Marshal(ecJWK)))
	otherPoint := must(otherEC.PublicKey.Bytes())
	p, q := rsaKey.Primes[0], rsaKey.Primes[1]
	smallest := prime(1024)
	composite := fitting(func() *big.Int {
		for { // until it is so large that n has 2048 bits
			if n := new(big.Int).Mul(prime(512), prime(512)); n.Bit(1022) == 1 {
				return n
			}
		}
	})
	one := big.NewInt(1)
	longD := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	longD.Add(longD, rsaKey.D) // works as well as d
	pkcs1 := func(change func(*pkcs1Form)) string {
		crt := rsaKey.Precomputed
		form := pkcs1Form{0, rsaKey.N, rsaKey.E, rsaKey.D, p, q, crt.Dp, crt.Dq, crt.Qinv, nil}
		change(&form)
		// A nil number is left out.
		values := []any{form.Version, form.N, form.E}
		for _, n := range []*big.Int{form.D, form.P, form.Q, form.Dp, form.Dq, form.Qinv} {
			if n != nil {
				values = append(values, n)
			}
		}
		if form.Extra != nil {
			values = append(values, []struct{ Prime, Exponent, Coefficient *big.Int }{{form.Extra, one, one}})
		}
		var content []byte
		for _, value := range values {
			content = append(content, must(asn1.Marshal(value))...)
		}
		sequence := asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content}
		return pemText("RSA PRIVATE KEY", must(asn1.Marshal(sequence)))
	}
	withHeaders := func(headers map[string]string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: rsaPKCS1, Headers: headers}))
	}
	const procType, dekInfo = "4,ENCRYPTED", "AES-256-CBC,00112233445566778899AABBCCDDEEFF"
	// Numbers of so many bits, divisible by 3 so that they are quickly found to be no primes.
	ofBits := func(n, p, q uint) map[string]any {
		number := func(bits uint) string {
			n := new(big.Int).Lsh(one, bits-1)
			n.Add(n, big.NewInt(2))
			n.Sub(n, new(big.Int).Mod(n, big.NewInt(3)))
			return base64urlUInt(n.SetBit(n, int(bits-1), 1))
		}
		return changed(rsaJWK, fields{"n": number(n), "p": number(p), "q": number(q)})
	}
	long := new(big.Int).SetBit(new(big.Int).Lsh(one, 14000), 0, 1)
	rsaWith := func(changes map[string]any) map[string]any { return changed(rsaJWK, changes) }
	ecWith := func(changes map[string]any) map[string]any { return changed(ecJWK, changes) }

	return []importCase{
		// Keys that Redox does not take, or that are too weak.
		{name: "RSA 1024", input: pkcs8Text(weakRSA), key: weakRSA, want: "has 1024 bits; use a key of 2048"},
		{name: "RSA 1024 as PKCS#1",
			input: pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weakRSA)), key: weakRSA,
			want: "has 1024 bits"},
		{name: "RSA 1024 as JWK", input: jwkMembers(weakRSA), key: weakRSA, want: "has 1024 bits"},
		{name: "P-256", input: pkcs8Text(p256), key: p256, want: "curve P-256; use a key on curve P-384"},
		{name: "P-256 as SEC 1", input: pemText("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256))), key: p256,
			want: "curve P-256"},
		{name: "P-256 as JWK", input: jwkMembers(p256), key: p256, want: "\"crv\" is not P-384"},
		{name: "P-521", input: pkcs8Text(p521), key: p521, want: "curve P-521"},
		{name: "P-521 as JWK", input: jwkMembers(p521), key: p521, want: "\"crv\" is not P-384"},
		{name: "explicit curve as SEC 1",
			input: pemText("EC PRIVATE KEY", sec1(ecKey, explicitCurve(), nil)), key: ecKey,
			want: "named curve"},
		{name: "explicit curve after its parameters", key: ecKey, want: "named curve",
			input: pemText("EC PARAMETERS", must(asn1.Marshal(explicitCurve()))) +
				pemText("EC PRIVATE KEY", sec1(ecKey, explicitCurve(), nil))},
		{name: "Ed25519", input: pkcs8Text(must2(ed25519.GenerateKey(rand.Reader))),
			want: "neither RSA nor EC; import an RSA key"},
		{name: "Ed25519 as JWK", input: jwkMembers(must2(ed25519.GenerateKey(rand.Reader))),
			want: "\"kty\" is neither RSA nor EC"},
		{name: "oct", input: fields{"kty": "oct", "k": otherECJWK["d"]}, key: otherEC,
			want: "\"kty\" is neither RSA nor EC"},
		{name: "RSA 2047", input: ofBits(2047, 1024, 1023), key: rsaKey, want: "has 2047 bits"},
		{name: "RSA 8192 of no primes", input: ofBits(8192, 4096, 4096), key: rsaKey, want: "do not belong together"},
		{name: "RSA 8193", input: ofBits(8193, 4097, 4097), key: rsaKey, want: "has 8193 bits; use a key of 2048 to 8192"},
		{name: "RSA 2049 of no primes", input: ofBits(2049, 1025, 1025), key: rsaKey, want: "do not belong together"},
		{name: "prime a bit too long", input: ofBits(2048, 1024, 1026), key: rsaKey, want: "half as long"},
		{name: "prime a bit too short", input: ofBits(2048, 1023, 1025), key: rsaKey, want: "half as long"},
		{name: "short prime", input: rsaMembers(prime(512), prime(1536)), want: "half as long"},
		{name: "close primes", input: rsaMembers(smallest, nextPrime(smallest)), want: "do not belong together"},
		{name: "composite prime", input: rsaMembers(composite, prime(1024)), want: "do not belong together"},
		{name: "composite prime, q", input: rsaMembers(prime(1024), composite), want: "do not belong together"},
		{name: "composite prime in PKCS#8", input: pkcs8Text(rsaOf(composite, prime(1024))), want: "do not belong together"},
		{name: "three primes in JWK",
			input: rsaWith(fields{"oth": []any{fields{"r": "AQAB", "d": "AQAB", "t": "AQAB"}}}),
			key:   rsaKey, want: "exactly two primes"},
		{name: "three primes in PKCS#1",
			input: pkcs1(func(f *pkcs1Form) { f.Version, f.P, f.Q, f.Extra = 1, prime(683), prime(683), prime(683) }), key: rsaKey,
			want: "exactly two primes"},
		{name: "three primes in PKCS#1 that says two",
			input: pkcs1(func(f *pkcs1Form) { f.Extra = otherRSA.Primes[0] }), key: rsaKey,
			want: "exactly two primes"},

		// Public keys.
		{name: "public RSA PEM", input: pemText("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(rsaKey.Public()))),
			want: "it is a public key; give the private key"},
		{name: "public PKCS#1", input: pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)),
			want: "it is a public key"},
		{name: "certificate", input: pemText("CERTIFICATE", []byte{0x30, 0}), want: "it is a public key"},
		{name: "public RSA JWK", input: jwkMembers(rsaKey.Public()), want: "it is a public JWK; give the private JWK"},
		{name: "public EC JWK", input: jwkMembers(ecKey.Public()), want: "it is a public JWK; give the private JWK"},

		// PEM that is something else, or more, or less.
		{name: "encrypted PKCS#8", input: pemText("ENCRYPTED PRIVATE KEY", rsaDER), key: rsaKey,
			want: "the PEM is encrypted; decrypt it first"},
		{name: "encrypted PKCS#1", input: withHeaders(map[string]string{"Proc-Type": procType, "DEK-Info": dekInfo}), key: rsaKey,
			want: "the PEM is encrypted; decrypt it first"},
		{name: "encrypted PKCS#1 without Proc-Type", input: withHeaders(map[string]string{"DEK-Info": dekInfo}), key: rsaKey,
			want: "the PEM is encrypted"},
		{name: "encrypted PKCS#1 without DEK-Info", input: withHeaders(map[string]string{"Proc-Type": procType}), key: rsaKey,
			want: "the PEM is encrypted"},
		{name: "OpenSSH", input: pemText("OPENSSH PRIVATE KEY", ecDER), key: ecKey, want: "ssh-keygen"},
		{name: "DSA", input: pemText("DSA PRIVATE KEY", ecDER), key: ecKey, want: "not a private key; give one"},
		{name: "certificate request", input: pemText("CERTIFICATE REQUEST", ecDER), key: ecKey,
			want: "not a private key"},
		{name: "cut PEM", input: rsaText[:len(rsaText)/2], key: rsaKey, want: "cut off; export the key again"},
		{name: "PEM without its last line", input: ecText[:strings.Index(ecText, "-----END")], key: ecKey,
			want: "cut off"},
		{name: "PEM on one line", input: strings.ReplaceAll(ecText, "\n", " "), key: ecKey, want: "malformed"},
		{name: "PEM of nothing", input: pemText("PRIVATE KEY", nil), want: "malformed"},
		{name: "cut DER", input: pemText("PRIVATE KEY", rsaDER[:len(rsaDER)-10]), key: rsaKey, want: "malformed"},
		{name: "cut PKCS#1", input: pemText("RSA PRIVATE KEY", rsaPKCS1[:len(rsaPKCS1)-10]), key: rsaKey,
			want: "malformed"},
		{name: "PKCS#1 called PKCS#8", input: pemText("PRIVATE KEY", rsaPKCS1), key: rsaKey, want: "malformed"},
		{name: "PKCS#8 called SEC 1", input: pemText("EC PRIVATE KEY", ecDER), key: ecKey, want: "malformed"},
		{name: "text after PEM", input: ecText + "and more", key: ecKey, want: "trailing data after the PEM block"},
		{name: "text before PEM", input: "Bag Attributes\n" + ecText, key: ecKey,
			want: "text before the PEM block; give the PEM block alone"},
		{name: "two keys", input: ecText + pkcs8Text(otherEC), key: ecKey, want: "more than one PEM block"},
		{name: "key and certificate", input: ecText + pemText("CERTIFICATE", []byte{0x30, 0}), key: ecKey,
			want: "more than one PEM block"},
		{name: "a broken key before another", input: strings.Replace(rsaText, "\nM", "\n!", 1) + ecText, key: ecKey,
			want: "more than one PEM block"},
		{name: "parameters alone", input: pemText("EC PARAMETERS", must(asn1.Marshal(oidP384))),
			want: "no private key"},
		{name: "parameters, text, key",
			input: pemText("EC PARAMETERS", must(asn1.Marshal(oidP384))) + "text\n" + ecText, key: ecKey,
			want: "no private key"},
		{name: "data after DER", input: pemText("PRIVATE KEY", append(bytes.Clone(rsaDER), 0)), key: rsaKey,
			want: "trailing data within the key's encoding"},
		{name: "data after SEC 1", input: pemText("EC PRIVATE KEY", append(bytes.Clone(ecSEC1), 5, 0)), key: ecKey,
			want: "trailing data within the key's encoding"},
		{name: "data after SEC 1 inside PKCS#8",
			input: pemText("PRIVATE KEY", pkcs8EC(append(bytes.Clone(ecSEC1), 5, 0), asn1.RawValue{})),
			key:   ecKey, want: "trailing data within the key's encoding"},
		{name: "public point of another key",
			input: pemText("EC PRIVATE KEY", sec1(ecKey, oidP384, otherPoint)), key: ecKey,
			want: "do not belong together"},
		{name: "public point of another key in PKCS#8",
			input: pemText("PRIVATE KEY", pkcs8EC(sec1(ecKey, oidP384, otherPoint), asn1.RawValue{})),
			key:   ecKey, want: "do not belong together"},
		{name: "PKCS#1 with d of another key", input: pkcs1(func(f *pkcs1Form) { f.D = otherRSA.D }), key: otherRSA,
			want: "inconsistent"},
		{name: "PKCS#1 with qInv of another key",
			input: pkcs1(func(f *pkcs1Form) { f.Qinv = otherRSA.Precomputed.Qinv }), key: rsaKey,
			want: "inconsistent"},
		// x509 would compute with these for many seconds.
		{name: "PKCS#1 with a huge prime",
			input: pkcs1(func(f *pkcs1Form) { f.P, f.Dp, f.Dq, f.Qinv = long, nil, nil, nil }), key: rsaKey,
			want: "half as long"},
		{name: "PKCS#1 with a huge modulus",
			input: pkcs1(func(f *pkcs1Form) { f.N, f.Dp, f.Dq, f.Qinv = long, nil, nil, nil }), key: rsaKey,
			want: "has 14001 bits"},

		// JSON that is no JWK.
		{name: "JWK Set", input: fields{"keys": []any{ecJWK}}, key: ecKey,
			want: "it is a JWK Set; give the one JWK"},
		{name: "cut JSON", input: ecJWKText[:len(ecJWKText)-2], key: ecKey,
			want: "the JWK is malformed or cut off JSON"},
		{name: "text after JSON", input: ecJWKText + " and more", key: ecKey, want: "trailing data after the JWK"},
		{name: "two JWKs", input: ecJWKText + ecJWKText, key: ecKey, want: "trailing data after the JWK"},
		{name: "brace too many", input: ecJWKText + "}", key: ecKey, want: "trailing data after the JWK"},
		{name: "JSON string", input: string(must(json.Marshal(ecJWKText))), key: ecKey, want: "neither PEM nor a JWK"},
		{name: "JSON array as text", input: "[" + ecJWKText + "]", key: ecKey, want: "neither PEM nor a JWK"},
		{name: "nested object", input: fields{"private_key": ecJWK}, key: ecKey, want: "no member \"kty\""},
		{name: "empty object", input: fields{}, want: "no member \"kty\""},
		{name: "kty in another case", input: ecWith(fields{"kty": nil, "KTY": "EC"}), key: ecKey,
			want: "no member \"kty\""},
		{name: "kty not a string", input: ecWith(fields{"kty": 1}), key: ecKey,
			want: "\"kty\" is not a string"},
		{name: "kid not a string", input: ecWith(fields{"kid": fields{"d": ecJWK["d"]}}), key: ecKey,
			want: "\"kid\" is not a string"},

		// JWKs for another purpose.
		{name: "alg RS256", input: rsaWith(fields{"alg": "RS256"}), key: rsaKey, want: "\"alg\" is not RS384"},
		{name: "alg PS384", input: rsaWith(fields{"alg": "PS384"}), key: rsaKey, want: "\"alg\" is not RS384"},
		{name: "alg of the other kind", input: ecWith(fields{"alg": "RS384"}), key: ecKey,
			want: "\"alg\" is not ES384"},
		{name: "alg not a string", input: ecWith(fields{"alg": []any{"ES384"}}), key: ecKey,
			want: "\"alg\" is not a string"},
		{name: "use enc", input: ecWith(fields{"use": "enc"}), key: ecKey, want: "\"use\" is not \"sig\""},
		{name: "use not a string", input: ecWith(fields{"use": true}), key: ecKey,
			want: "\"use\" is not a string"},
		{name: "key_ops verify", input: ecWith(fields{"key_ops": []any{"verify"}}), key: ecKey,
			want: "\"key_ops\" do not hold \"sign\""},
		{name: "key_ops not an array", input: ecWith(fields{"key_ops": "sign"}), key: ecKey,
			want: "\"key_ops\" do not hold \"sign\""},

		// Members that are missing, malformed or another key's.
		{name: "RSA with n, e and d only",
			input: rsaWith(fields{"p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}), key: rsaKey,
			want: "lacks the RSA key's primes, its members \"p\" and \"q\"; export the key with all"},
		{name: "RSA without q", input: rsaWith(fields{"q": nil}), key: rsaKey,
			want: "lacks the RSA key's primes"},
		{name: "RSA without n", input: rsaWith(fields{"n": nil}), key: rsaKey,
			want: "\"n\" is missing or not base64url"},
		{name: "RSA without dq", input: rsaWith(fields{"dq": nil}), key: rsaKey,
			want: "\"dq\" is missing or not base64url"},
		{name: "RSA with dp of the CRT members", input: rsaWith(fields{"dq": nil, "qi": nil}), key: rsaKey,
			want: "\"dq\" is missing or not base64url"},
		{name: "RSA with dq of the CRT members", input: rsaWith(fields{"dp": nil, "qi": nil}), key: rsaKey,
			want: "\"dp\" is missing or not base64url"},
		{name: "RSA with qi of the CRT members", input: rsaWith(fields{"dp": nil, "dq": nil}), key: rsaKey,
			want: "\"dp\" is missing or not base64url"},
		{name: "RSA with d null", input: rsaWith(fields{"d": json.RawMessage("null")}), key: rsaKey,
			want: "\"d\" is not a string"},
		{name: "RSA with d empty", input: rsaWith(fields{"d": ""}), key: rsaKey,
			want: "\"d\" is missing or not base64url"},
		{name: "RSA with d of another key", input: rsaWith(fields{"d": otherRSAJWK["d"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with n of another key", input: rsaWith(fields{"n": otherRSAJWK["n"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with p of another key", input: rsaWith(fields{"p": otherRSAJWK["p"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with dp of another key", input: rsaWith(fields{"dp": otherRSAJWK["dp"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with dq of another key", input: rsaWith(fields{"dq": otherRSAJWK["dq"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with qi of another key", input: rsaWith(fields{"qi": otherRSAJWK["qi"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with d not below n", input: rsaWith(fields{"d": base64urlUInt(longD)}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with an even modulus",
			input: rsaWith(fields{"n": base64urlUInt(new(big.Int).Add(rsaKey.N, one))}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with p 1 and q n", input: rsaWith(fields{"p": "AQ", "q": rsaJWK["n"]}), key: rsaKey,
			want: "half as long"},
		{name: "RSA with p n and q 1", input: rsaWith(fields{"q": "AQ", "p": rsaJWK["n"]}), key: rsaKey,
			want: "half as long"},
		{name: "RSA with p 0", input: rsaWith(fields{"p": "AA"}), key: rsaKey, want: "half as long"},
		{name: "RSA with p twice", input: rsaWith(fields{"q": rsaJWK["p"]}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with e 1", input: rsaWith(fields{"e": "AQ"}), key: rsaKey, want: "do not belong together"},
		{name: "RSA with an even e", input: rsaWith(fields{"e": "AQAA"}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with another e of 31 bits", input: rsaWith(fields{"e": base64urlUInt(big.NewInt(1<<31 - 1))}), key: rsaKey,
			want: "do not belong together"},
		{name: "RSA with an e of 32 bits", input: rsaWith(fields{"e": base64urlUInt(big.NewInt(1<<31 + 1))}), key: rsaKey,
			want: "more than 31 bits"},
		{name: "RSA with a huge e", input: rsaWith(fields{"e": rsaJWK["d"]}), key: rsaKey,
			want: "public exponent has more than 31 bits; use a key with exponent 65537"},
		{name: "RSA with a huge prime", input: rsaWith(fields{"p": base64urlUInt(long)}), key: rsaKey,
			want: "half as long"},
		{name: "RSA with a huge modulus", input: rsaWith(fields{"n": base64urlUInt(long)}), key: rsaKey,
			want: "has 14001 bits"},
		{name: "EC without crv", input: ecWith(fields{"crv": nil}), key: ecKey, want: "\"crv\" is not P-384"},
		{name: "EC without y", input: ecWith(fields{"y": nil}), key: ecKey,
			want: "\"y\" is missing or not base64url"},
		{name: "EC with d of another key", input: ecWith(fields{"d": otherECJWK["d"]}), key: otherEC,
			want: "do not belong together"},
		{name: "EC with x of another key", input: ecWith(fields{"x": otherECJWK["x"]}), key: ecKey,
			want: "do not belong together"},
		{name: "EC with y of another key", input: ecWith(fields{"y": otherECJWK["y"]}), key: ecKey,
			want: "do not belong together"},
		{name: "EC with d 0", input: ecWith(fields{"d": "AA"}), key: ecKey, want: "do not belong together"},
		{name: "EC with d the order",
			input: ecWith(fields{"d": base64urlUInt(elliptic.P384().Params().N)}), key: ecKey,
			want: "do not belong together"},
		{name: "EC with a huge x", input: ecWith(fields{"x": base64urlUInt(long)}), key: ecKey,
			want: "do not belong together"},
		{name: "EC with d as a number", input: ecWith(fields{"d": json.Number("12345")}), key: ecKey,
			want: "\"d\" is not a string"},
		{name: "EC with padding", input: ecWith(fields{"d": ecJWK["d"].(string) + "="}), key: ecKey,
			want: "\"d\" is missing or not base64url"},
		{name: "EC with standard base64",
			input: ecWith(fields{"x": "+/" + ecJWK["x"].(string)[2:]}), key: ecKey,
			want: "\"x\" is missing or not base64url"},

		// No key at all.
		{name: "empty", input: "", want: "missing or empty, and so is ciphertext; give one unencrypted private key"},
		{name: "blanks", input: " \r\n\t", want: "missing or empty"},
		{name: "null", input: nil, want: "neither a string nor a JSON object; give one unencrypted private key"},
		{name: "words", input: "correct horse battery staple", want: "neither PEM nor a JWK"},
		{name: "a file's name", input: "@key.pem", want: "neither PEM nor a JWK"},
		{name: "huge", input: strings.Repeat("A", 1<<20), want: "longer than 16384 bytes"},
		{name: "a byte too long", input: strings.Repeat("\n", 16385-len(ecText)) + ecText, key: ecKey,
			want: "longer than 16384 bytes"},
		{name: "huge JWK", input: ecWith(fields{"note": strings.Repeat("A", 1<<15)}), key: ecKey,
			want: "longer than 16384 bytes"},
		{name: "a list of keys", input: []any{ecJWK}, key: ecKey, want: "neither a string nor a JSON object"},
		{name: "a list of texts", input: []string{ecText}, key: ecKey, want: "neither a string nor a JSON object"},
		{name: "a number", input: json.Number("12345"), want: "neither a string nor a JSON object"},
		{name: "true", input: true, want: "neither a string nor a JSON object"},
	}
})

// must2 gives the second of two values.
func must2[A, B any](_ A, value B, err error) B { return must(value, err) }

// Each refusal names the field and the reason, leaves storage as it was, and repeats nothing of the key.
func TestImportRefusals(t *testing.T) {
	for _, test := range refusable() {
		t.Run(test.name, func(t *testing.T) {
			m := newMount(t)
			if test.key != nil {
				if err := m.scanner.AddKey("refused", test.key); err != nil {
					t.Fatal(err)
				}
			}
			m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{"private_key": test.input},
				"private_key: ", "; ", test.want)
			if answers := m.output.String() + m.log.String(); len(answers) > 400 {
				t.Errorf("the refusal is so long that it may repeat the input: %.500s", answers)
			}
		})
	}
}

func TestImportRefusesOtherFields(t *testing.T) {
	text, members := pkcs8Text(outsideEC()), jwkMembers(outsideEC())
	for name, test := range map[string]struct {
		input fields
		want  []string
	}{
		"nothing":        {nil, []string{"private_key: it is missing or empty, and so is ciphertext; give one"}},
		"kid":            {fields{"private_key": text, "kid": "a\nb"}, []string{"kid: ", "printable ASCII"}},
		"kid of the JWK": {fields{"private_key": changed(members, fields{"kid": "a\nb"})}, []string{"kid: ", "printable ASCII"}},
		"long kid":       {fields{"private_key": text, "kid": strings.Repeat("k", 513)}, []string{"kid: ", "512"}},
		"field of keys/main": {fields{"private_key": text, "algorithm": "ES384"},
			[]string{"algorithm: unknown field", "ciphertext, deletion_allowed, hash_function, kid, private_key"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			if err := m.scanner.AddKey("refused", outsideEC()); err != nil {
				t.Fatal(err)
			}
			m.refusedWith(logical.UpdateOperation, "keys/main/import", test.input, test.want...)
		})
	}
}

// A key that ends up where it does not belong is refused without a word of it, whichever endpoint it went to.
func TestPrivateKeyInTheWrongPlace(t *testing.T) {
	text, members := pkcs8Text(outsideEC()), jwkMembers(outsideEC())
	jwk := string(must(json.Marshal(members)))
	requests := []struct {
		operation logical.Operation
		path      string
	}{
		{logical.UpdateOperation, "keys/new"},
		{logical.UpdateOperation, "keys/main"},
		{logical.UpdateOperation, "config"},
		{logical.UpdateOperation, "roles/new"},
		{logical.UpdateOperation, "token"},
		{logical.UpdateOperation, "assertion"},
		{logical.UpdateOperation, "check"},
		{logical.ReadOperation, "keys/main"},
		{logical.ReadOperation, "jwks"},
		{logical.ReadOperation, "token"},
		{logical.ReadOperation, "info"},
		{logical.ListOperation, "keys"},
		{logical.DeleteOperation, "keys/main"},
	}
	for _, request := range requests {
		t.Run(string(request.operation)+" "+request.path, func(t *testing.T) {
			m := newReadyMount(t)
			if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
				t.Fatal(err)
			}
			for _, value := range []any{text, jwk, members, []any{members}, true} {
				m.refusedWith(request.operation, request.path, fields{"private_key": value},
					"private_key: unknown field")
			}
			// As a field's name: the CLI splits its arguments at the first "=".
			for _, data := range []fields{{text: ""}, {jwk: "="}, {"d" + members["d"].(string): ""}} {
				m.refusedWith(request.operation, request.path, data, "unknown, and its name is not repeated", "field=value")
			}
		})
	}

	// As the value of another field.
	m := newReadyMount(t)
	if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
		t.Fatal(err)
	}
	for path, names := range map[string][]string{
		"keys/main":       {"algorithm", "rsa_bits", "kid", "deletion_allowed"},
		"keys/new":        {"algorithm", "rsa_bits", "kid", "deletion_allowed"},
		"keys/new/import": {"kid", "deletion_allowed", "ciphertext", "hash_function"},
		"config":          {"client_id", "key", "scope", "base_url", "audience", "jku", "ca_pem", "assertion_ttl", "max_retries"},
		"roles/new":       {"client_id", "key", "scope", "jku", "min_ttl", "leased"},
	} {
		for _, field := range names {
			for _, value := range []any{text, members, []any{members}} {
				data := fields{field: value}
				if path == "keys/new/import" {
					data["private_key"] = text
				}
				m.refusedWith(logical.UpdateOperation, path, data, field+": ")
			}
		}
	}
	for _, data := range []fields{{text: ""}, {jwk: "="}} {
		m.refusedWith(logical.UpdateOperation, "keys/new/import", data, "unknown, and its name is not repeated")
	}
}

// Vault asks for existence before it looks at policies, and logs the error: it must not be the framework's, which
// quotes values.
func TestExistenceCheckIgnoresTheInput(t *testing.T) {
	m := newReadyMount(t)
	if err := m.scanner.AddKey("misplaced", outsideEC()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"config", "keys/main", "keys/new", "keys/new/import", "roles/new"} {
		for _, value := range []any{jwkMembers(outsideEC()), []any{jwkMembers(outsideEC())}} {
			_, _, err := m.HandleExistenceCheck(context.Background(), &logical.Request{
				Operation: logical.UpdateOperation, Path: path, Storage: m.storage,
				Data: fields{"private_key": value, "kid": value, "client_id": value}})
			if err != nil {
				m.record(nil, err)
				t.Errorf("the existence check of %s looked at the input", path)
			}
		}
	}
}
