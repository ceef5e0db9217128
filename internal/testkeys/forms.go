// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
)

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

// rsaOf returns an RSA key for any two factors, prime or not, with a d, dp, dq and qi that fit to them.
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
	members := map[string]any{"kty": "RSA", "e": "AQAB"}
	for name, n := range map[string]*big.Int{
		"n": key.N, "d": key.D, "p": p, "q": q,
		"dp": key.Precomputed.Dp, "dq": key.Precomputed.Dq, "qi": key.Precomputed.Qinv,
	} {
		members[name] = base64urlUInt(n)
	}
	return members
}

// fitting returns numbers made by make until e, 65537, has an inverse for one.
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

// ecKeyWith returns the EC key with the least private scalar that fits.
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
	return PEM("EC PRIVATE KEY", sec1(key, oidP384, append([]byte{2 + point[96]&1}, point[1:49]...)))
}

// pkcs8Of returns PKCS#8 with an algorithm, by its identifier in dotted form, and a key.
func pkcs8Of(algorithm string, key []byte) []byte {
	var id asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(algorithm, ".") {
		id = append(id, must(strconv.Atoi(arc)))
	}
	return must(asn1.Marshal(struct {
		Version   int
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Key []byte
	}{0, struct {
		ID         asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}{id, asn1.NullRawValue}, key}))
}

// pemBytes returns what a PEM block holds.
func pemBytes(text string) []byte {
	block, _ := pem.Decode([]byte(text))
	return block.Bytes
}

// utf16Text returns a text in UTF-16, little-endian, as Windows writes it.
func utf16Text(text string, mark bool) string {
	var b strings.Builder
	if mark {
		b.WriteString("\xff\xfe")
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		b.WriteByte(byte(unit))
		b.WriteByte(byte(unit >> 8))
	}
	return b.String()
}

// inLines breaks a text into lines of 76 characters.
func inLines(text string) string {
	var lines []string
	for len(text) > 76 {
		lines, text = append(lines, text[:76]), text[76:]
	}
	return strings.Join(append(lines, text), "\n")
}

// ROCA is a key of the kind that CVE-2017-15361 makes: each prime is k*M + 65537^a mod M, with M the product of small primes.
var ROCA = sync.OnceValue(func() *rsa.PrivateKey {
	m, e := big.NewInt(1), big.NewInt(65537)
	for n, candidate := 0, int64(2); n < 126; candidate++ { // of so many for 2048 bits
		if big.NewInt(candidate).ProbablyPrime(10) {
			m.Mul(m, big.NewInt(candidate))
			n++
		}
	}
	next := func() *big.Int {
		for {
			a := must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 250)))
			k := new(big.Int).Lsh(big.NewInt(3), uint(1022-m.BitLen()))
			k.Add(k, must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1022-m.BitLen())))))
			p := new(big.Int).Exp(e, a, m)
			p.Add(p, k.Mul(k, m))
			if p.BitLen() == 1024 && p.ProbablyPrime(20) {
				return p
			}
		}
	}
	return rsaOf(next(), next())
})
