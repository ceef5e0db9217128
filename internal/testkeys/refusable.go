// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
)

// Refusable returns keys that can't be imported, and texts that are none. Making them takes a while.
var Refusable = sync.OnceValue(func() []Case {
	rsaKey, otherRSA, ecKey, otherEC := RSA(), OtherRSA(), EC(), OtherEC()
	weakRSA := must(rsa.GenerateKey(rand.Reader, 1024))
	p256, p521 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	rsaJWK, otherRSAJWK, ecJWK, otherECJWK := JWK(rsaKey), JWK(otherRSA), JWK(ecKey), JWK(otherEC)
	rsaDER, ecDER := must(x509.MarshalPKCS8PrivateKey(rsaKey)), must(x509.MarshalPKCS8PrivateKey(ecKey))
	ecSEC1, rsaPKCS1 := must(x509.MarshalECPrivateKey(ecKey)), x509.MarshalPKCS1PrivateKey(rsaKey)
	rsaText, ecText := PKCS8(rsaKey), PKCS8(ecKey)
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
	one, zero := big.NewInt(1), big.NewInt(0)
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
		return PEM("RSA PRIVATE KEY", must(asn1.Marshal(sequence)))
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
		return Changed(rsaJWK, map[string]any{"n": number(n), "p": number(p), "q": number(q)})
	}
	long := new(big.Int).SetBit(new(big.Int).Lsh(one, 14000), 0, 1)
	rsaWith := func(changes map[string]any) map[string]any { return Changed(rsaJWK, changes) }
	ecWith := func(changes map[string]any) map[string]any { return Changed(ecJWK, changes) }

	return []Case{
		// Keys that Redox does not take, or that are too weak.
		{Name: "RSA 1024", Input: PKCS8(weakRSA), Key: weakRSA, Want: "has 1024 bits; use a key of 2048"},
		{Name: "RSA 1024 as PKCS#1",
			Input: PEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weakRSA)), Key: weakRSA,
			Want: "has 1024 bits"},
		{Name: "RSA 1024 as JWK", Input: JWK(weakRSA), Key: weakRSA, Want: "has 1024 bits"},
		{Name: "P-256", Input: PKCS8(p256), Key: p256, Want: "curve P-256; use a key on curve P-384"},
		{Name: "P-256 as SEC 1", Input: PEM("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256))), Key: p256,
			Want: "curve P-256"},
		{Name: "P-256 as JWK", Input: JWK(p256), Key: p256, Want: "\"crv\" is not P-384"},
		{Name: "P-521", Input: PKCS8(p521), Key: p521, Want: "curve P-521"},
		{Name: "P-521 as JWK", Input: JWK(p521), Key: p521, Want: "\"crv\" is not P-384"},
		{Name: "explicit curve as SEC 1",
			Input: PEM("EC PRIVATE KEY", sec1(ecKey, explicitCurve(), nil)), Key: ecKey,
			Want: "named curve"},
		{Name: "explicit curve after its parameters", Key: ecKey, Want: "named curve",
			Input: PEM("EC PARAMETERS", must(asn1.Marshal(explicitCurve()))) +
				PEM("EC PRIVATE KEY", sec1(ecKey, explicitCurve(), nil))},
		{Name: "Ed25519", Input: PKCS8(must2(ed25519.GenerateKey(rand.Reader))),
			Want: "it is an Ed25519 key; import an RSA key"},
		{Name: "Ed25519 as JWK", Input: JWK(must2(ed25519.GenerateKey(rand.Reader))),
			Want: "\"kty\" is neither RSA nor EC"},
		{Name: "oct", Input: map[string]any{"kty": "oct", "k": otherECJWK["d"]}, Key: otherEC,
			Want: "the JWK is a symmetric key"},
		{Name: "RSA 2047", Input: ofBits(2047, 1024, 1023), Key: rsaKey, Want: "has 2047 bits"},
		{Name: "RSA 8192 of no primes", Input: ofBits(8192, 4096, 4096), Key: rsaKey, Want: "do not belong together"},
		{Name: "RSA 8193", Input: ofBits(8193, 4097, 4097), Key: rsaKey, Want: "has 8193 bits; use a key of 2048 to 8192"},
		{Name: "RSA 2049 of no primes", Input: ofBits(2049, 1025, 1025), Key: rsaKey, Want: "do not belong together"},
		{Name: "prime a bit too long", Input: ofBits(2048, 1024, 1026), Key: rsaKey, Want: "half as long"},
		{Name: "prime a bit too short", Input: ofBits(2048, 1023, 1025), Key: rsaKey, Want: "half as long"},
		{Name: "short prime", Input: rsaMembers(prime(512), prime(1536)), Want: "half as long"},
		{Name: "close primes", Input: rsaMembers(smallest, nextPrime(smallest)), Want: "so close to each other"},
		{Name: "composite prime", Input: rsaMembers(composite, prime(1024)), Want: "do not belong together"},
		{Name: "composite prime, q", Input: rsaMembers(prime(1024), composite), Want: "do not belong together"},
		{Name: "composite prime in PKCS#8", Input: PKCS8(rsaOf(composite, prime(1024))), Want: "do not belong together"},
		{Name: "three primes in JWK",
			Input: rsaWith(map[string]any{"oth": []any{map[string]any{"r": "AQAB", "d": "AQAB", "t": "AQAB"}}}),
			Key:   rsaKey, Want: "exactly two primes"},
		{Name: "three primes in PKCS#1",
			Input: pkcs1(func(f *pkcs1Form) { f.Version, f.P, f.Q, f.Extra = 1, prime(683), prime(683), prime(683) }), Key: rsaKey,
			Want: "exactly two primes"},
		{Name: "three primes in PKCS#1 that says two",
			Input: pkcs1(func(f *pkcs1Form) { f.Extra = otherRSA.Primes[0] }), Key: rsaKey,
			Want: "exactly two primes"},

		// Public keys.
		{Name: "public RSA PEM", Input: PEM("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(rsaKey.Public()))),
			Want: "it is a public key; give the private key"},
		{Name: "public PKCS#1", Input: PEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)),
			Want: "it is a public key"},
		{Name: "certificate", Input: PEM("CERTIFICATE", []byte{0x30, 0}), Want: "it is a certificate, and no private key"},
		{Name: "public RSA JWK", Input: JWK(rsaKey.Public()), Want: "it is a public JWK; give the private JWK"},
		{Name: "public EC JWK", Input: JWK(ecKey.Public()), Want: "it is a public JWK; give the private JWK"},

		// PEM that is something else, or more, or less.
		{Name: "encrypted PKCS#8", Input: PEM("ENCRYPTED PRIVATE KEY", rsaDER), Key: rsaKey,
			Want: "the PEM is encrypted; decrypt it first"},
		{Name: "encrypted PKCS#1", Input: withHeaders(map[string]string{"Proc-Type": procType, "DEK-Info": dekInfo}), Key: rsaKey,
			Want: "the PEM is encrypted; decrypt it first"},
		{Name: "encrypted PKCS#1 without Proc-Type", Input: withHeaders(map[string]string{"DEK-Info": dekInfo}), Key: rsaKey,
			Want: "the PEM is encrypted"},
		{Name: "encrypted PKCS#1 without DEK-Info", Input: withHeaders(map[string]string{"Proc-Type": procType}), Key: rsaKey,
			Want: "the PEM is encrypted"},
		{Name: "OpenSSH", Input: PEM("OPENSSH PRIVATE KEY", ecDER), Key: ecKey, Want: "ssh-keygen"},
		{Name: "DSA", Input: PEM("DSA PRIVATE KEY", ecDER), Key: ecKey, Want: "neither RSA nor EC"},
		{Name: "certificate request", Input: PEM("CERTIFICATE REQUEST", ecDER), Key: ecKey,
			Want: "it is a certificate request, and no private key"},
		{Name: "cut PEM", Input: rsaText[:len(rsaText)/2], Key: rsaKey, Want: "cut off; export the key again"},
		{Name: "PEM without its last line", Input: ecText[:strings.Index(ecText, "-----END")], Key: ecKey,
			Want: "cut off"},
		{Name: "PEM of nothing", Input: PEM("PRIVATE KEY", nil), Want: "malformed"},
		{Name: "cut DER", Input: PEM("PRIVATE KEY", rsaDER[:len(rsaDER)-10]), Key: rsaKey, Want: "malformed"},
		{Name: "cut PKCS#1", Input: PEM("RSA PRIVATE KEY", rsaPKCS1[:len(rsaPKCS1)-10]), Key: rsaKey,
			Want: "malformed"},
		{Name: "two keys", Input: ecText + PKCS8(otherEC), Key: ecKey, Want: "it holds 2 private keys; give one of them alone"},
		{Name: "a broken key before another", Input: strings.Replace(rsaText, "\nM", "\n!", 1) + ecText, Key: ecKey,
			Want: "it holds 2 private keys"},
		{Name: "parameters alone", Input: PEM("EC PARAMETERS", must(asn1.Marshal(oidP384))),
			Want: "no private key"},
		{Name: "data after DER", Input: PEM("PRIVATE KEY", append(bytes.Clone(rsaDER), 0)), Key: rsaKey,
			Want: "trailing data within the key's encoding"},
		{Name: "data after SEC 1", Input: PEM("EC PRIVATE KEY", append(bytes.Clone(ecSEC1), 5, 0)), Key: ecKey,
			Want: "trailing data within the key's encoding"},
		{Name: "data after SEC 1 inside PKCS#8",
			Input: PEM("PRIVATE KEY", pkcs8EC(append(bytes.Clone(ecSEC1), 5, 0), asn1.RawValue{})),
			Key:   ecKey, Want: "trailing data within the key's encoding"},
		{Name: "public point of another key",
			Input: PEM("EC PRIVATE KEY", sec1(ecKey, oidP384, otherPoint)), Key: ecKey,
			Want: "do not belong together"},
		{Name: "public point of another key in PKCS#8",
			Input: PEM("PRIVATE KEY", pkcs8EC(sec1(ecKey, oidP384, otherPoint), asn1.RawValue{})),
			Key:   ecKey, Want: "do not belong together"},
		{Name: "PKCS#1 with d of another key", Input: pkcs1(func(f *pkcs1Form) { f.D = otherRSA.D }), Key: otherRSA,
			Want: "inconsistent"},
		{Name: "PKCS#1 with qInv of another key",
			Input: pkcs1(func(f *pkcs1Form) { f.Qinv = otherRSA.Precomputed.Qinv }), Key: rsaKey,
			Want: "inconsistent"},
		// x509 would compute with these for many seconds.
		{Name: "PKCS#1 with a huge prime",
			Input: pkcs1(func(f *pkcs1Form) { f.P, f.Dp, f.Dq, f.Qinv = long, nil, nil, nil }), Key: rsaKey,
			Want: "half as long"},
		{Name: "PKCS#1 with a huge modulus",
			Input: pkcs1(func(f *pkcs1Form) { f.N, f.Dp, f.Dq, f.Qinv = long, nil, nil, nil }), Key: rsaKey,
			Want: "has 14001 bits"},

		{Name: "another label at the end", Input: strings.Replace(ecText, "END PRIVATE", "END EC PRIVATE", 1), Key: ecKey,
			Want: "malformed or cut off"},
		{Name: "RSA-PSS", Input: PEM("PRIVATE KEY", pkcs8Of("1.2.840.113549.1.1.10", rsaPKCS1)), Key: rsaKey, Want: "RSA-PSS"},
		{Name: "X25519", Input: PEM("PRIVATE KEY", pkcs8Of("1.3.101.110", []byte{4, 32})), Want: "X25519"},
		{Name: "P-256 called by its curve", Input: PKCS8(p256), Key: p256, Want: "P-256"},
		{Name: "PKCS#1 with e 3", Input: pkcs1(func(f *pkcs1Form) { f.E = 3 }), Key: rsaKey, Want: "public exponent is 3, which is too small"},
		{Name: "PKCS#8 with e 2^32+1", Input: PEM("PRIVATE KEY", pkcs8Of("1.2.840.113549.1.1.1",
			pemBytes(pkcs1(func(f *pkcs1Form) { f.E = 1<<32 + 1 })))), Key: rsaKey, Want: "public exponent is 4294967297, which has more than 31 bits"},
		{Name: "ROCA", Input: PKCS8(ROCA()), Key: ROCA(), Want: "CVE-2017-15361"},
		{Name: "ROCA as JWK", Input: JWK(ROCA()), Key: ROCA(), Want: "CVE-2017-15361"},
		{Name: "BouncyCastle's zeros with d of another key",
			Input: pkcs1(func(f *pkcs1Form) { f.D = otherRSA.D; f.P, f.Q, f.Dp, f.Dq, f.Qinv = zero, zero, zero, zero, zero }), Key: otherRSA,
			Want: "do not belong together"},

		// Other forms, with the command that makes them fit: TestImportCommands runs those.
		{Name: "UTF-16", Input: utf16Text(ecText, true), Key: ecKey, Want: "it is text in UTF-16, as PowerShell writes it; convert it: iconv -f UTF-16"},
		{Name: "UTF-16 that JSON has changed", Input: strings.ToValidUTF8(utf16Text(ecText, true), "\ufffd"), Key: ecKey, Want: "UTF-16"},
		{Name: "DER", Input: string(rsaDER), Key: rsaKey, Want: "it is DER, which is no text; convert it: openssl pkey -inform DER -in KEYFILE"},
		{Name: "DER that JSON has changed", Input: strings.ToValidUTF8(string(ecDER), "\ufffd"), Key: ecKey, Want: "it is DER, which is no text"},
		{Name: "PKCS#1 in DER", Input: string(rsaPKCS1), Key: rsaKey, Want: "it is DER"},
		{Name: "base64 of PEM", Input: base64.StdEncoding.EncodeToString([]byte(ecText)), Key: ecKey,
			Want: "it is base64 of a PEM, as in the data of a Kubernetes Secret; decode it: base64 -d KEYFILE > key.pem"},
		{Name: "base64 of PEM in lines", Input: inLines(base64.StdEncoding.EncodeToString([]byte(rsaText))), Key: rsaKey, Want: "it is base64 of a PEM"},
		{Name: "base64 of DER", Input: base64.StdEncoding.EncodeToString(rsaDER), Key: rsaKey, Want: "it is base64 of DER; convert it: base64 -d KEYFILE > key.der; openssl pkey"},
		{Name: "base64url of DER", Input: base64.RawURLEncoding.EncodeToString(ecDER), Key: ecKey, Want: "it is base64 of DER"},
		{Name: "base64 of a JWK", Input: base64.StdEncoding.EncodeToString([]byte(ecJWKText)), Key: ecKey, Want: "it is base64 of JSON"},
		{Name: "a Java keystore", Input: "\xfe\xed\xfe\xed\x00\x00\x00\x02" + string(ecDER), Key: ecKey, Want: "a Java keystore, which is no text; convert it: keytool"},
		{Name: "a Java keystore that JSON has changed", Input: "\ufffd\ufffd\ufffd\ufffd\x00\x00\x00\x02" + strings.ToValidUTF8(string(ecDER), "\ufffd"), Key: ecKey,
			Want: "a Java keystore, which is no text; convert it: keytool"},
		{Name: "other binary data", Input: "\x1f\x8b\x08\x01" + string(ecDER), Key: ecKey, Want: "it is binary, and no form of a key that is known here"},
		{Name: "PuTTY", Input: "PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\n", Want: "it is in PuTTY's own form; convert it: puttygen"},
		{Name: "a public key of SSH", Input: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB somebody", Want: "it is a public key of SSH"},

		// JSON that is no JWK.
		{Name: "JWK Set with two private keys", Input: map[string]any{"keys": []any{
			ecWith(map[string]any{"kid": "one"}), rsaWith(map[string]any{"kid": "two"}), JWK(otherEC.Public())}}, Key: ecKey,
			Want: "a JWK Set with 2 private keys, whose kids are \"one\", \"two\"; choose one with kid=KID"},
		{Name: "JWK Set with public keys", Input: map[string]any{"keys": []any{JWK(ecKey.Public()), JWK(rsaKey.Public())}},
			Want: "it is a JWK Set without a private key"},
		{Name: "empty JWK Set", Input: map[string]any{"keys": []any{}}, Want: "no member \"kty\""},
		{Name: "JWK Set of something else", Input: map[string]any{"keys": "none"}, Want: "JWK Set is malformed"},
		{Name: "a member twice", Input: strings.Replace(ecJWKText, "{", `{"crv":"P-384",`, 1), Key: ecKey, Want: "the JWK has a member twice"},
		{Name: "a member twice in a set", Input: `{"keys":[` + strings.Replace(ecJWKText, "{", `{"kid":"a","kid":"b",`, 1) + `]}`, Key: ecKey,
			Want: "the JWK has a member twice"},
		{Name: "kid that is a private member", Input: ecWith(map[string]any{"kid": ecJWK["d"]}), Key: ecKey,
			Want: "\"kid\" holds one of the key's private members"},
		{Name: "RSA by n, e and d of another key", Input: rsaWith(map[string]any{"d": otherRSAJWK["d"], "p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}),
			Key: otherRSA, Want: "do not belong together"},
		{Name: "RSA by n, e and a huge d", Input: rsaWith(map[string]any{"d": base64urlUInt(long), "p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}),
			Key: rsaKey, Want: "do not belong together"},
		{Name: "cut JSON", Input: ecJWKText[:len(ecJWKText)-2], Key: ecKey,
			Want: "the JWK is malformed or cut off JSON"},
		{Name: "text after JSON", Input: ecJWKText + " and more", Key: ecKey, Want: "trailing data after the JWK"},
		{Name: "two JWKs", Input: ecJWKText + ecJWKText, Key: ecKey, Want: "trailing data after the JWK"},
		{Name: "brace too many", Input: ecJWKText + "}", Key: ecKey, Want: "trailing data after the JWK"},
		{Name: "nested object", Input: map[string]any{"private_key": ecJWK}, Key: ecKey, Want: "no member \"kty\""},
		{Name: "empty object", Input: map[string]any{}, Want: "no member \"kty\""},
		{Name: "kty in another case", Input: ecWith(map[string]any{"kty": nil, "KTY": "EC"}), Key: ecKey,
			Want: "no member \"kty\""},
		{Name: "kty not a string", Input: ecWith(map[string]any{"kty": 1}), Key: ecKey,
			Want: "\"kty\" is not a string"},
		{Name: "kid not a string", Input: ecWith(map[string]any{"kid": map[string]any{"d": ecJWK["d"]}}), Key: ecKey,
			Want: "\"kid\" is not a string"},

		// JWKs for another purpose.
		{Name: "alg RS256", Input: rsaWith(map[string]any{"alg": "RS256"}), Key: rsaKey, Want: "\"alg\" is not RS384"},
		{Name: "alg PS384", Input: rsaWith(map[string]any{"alg": "PS384"}), Key: rsaKey, Want: "\"alg\" is not RS384"},
		{Name: "alg of the other kind", Input: ecWith(map[string]any{"alg": "RS384"}), Key: ecKey,
			Want: "\"alg\" is not ES384"},
		{Name: "alg not a string", Input: ecWith(map[string]any{"alg": []any{"ES384"}}), Key: ecKey,
			Want: "\"alg\" is not a string"},
		{Name: "use enc", Input: ecWith(map[string]any{"use": "enc"}), Key: ecKey, Want: "\"use\" is not \"sig\""},
		{Name: "use not a string", Input: ecWith(map[string]any{"use": true}), Key: ecKey,
			Want: "\"use\" is not a string"},
		{Name: "key_ops verify", Input: ecWith(map[string]any{"key_ops": []any{"verify"}}), Key: ecKey,
			Want: "\"key_ops\" do not hold \"sign\""},
		{Name: "key_ops not an array", Input: ecWith(map[string]any{"key_ops": "sign"}), Key: ecKey,
			Want: "\"key_ops\" do not hold \"sign\""},

		// Members that are missing, malformed or another key's.
		{Name: "RSA without q", Input: rsaWith(map[string]any{"q": nil}), Key: rsaKey,
			Want: "\"q\" is missing or not base64url"},
		{Name: "RSA without n", Input: rsaWith(map[string]any{"n": nil}), Key: rsaKey,
			Want: "\"n\" is missing or not base64url"},
		{Name: "RSA without dq", Input: rsaWith(map[string]any{"dq": nil}), Key: rsaKey,
			Want: "\"dq\" is missing or not base64url"},
		{Name: "RSA with dp of the CRT members", Input: rsaWith(map[string]any{"dq": nil, "qi": nil}), Key: rsaKey,
			Want: "\"dq\" is missing or not base64url"},
		{Name: "RSA with dq of the CRT members", Input: rsaWith(map[string]any{"dp": nil, "qi": nil}), Key: rsaKey,
			Want: "\"dp\" is missing or not base64url"},
		{Name: "RSA with qi of the CRT members", Input: rsaWith(map[string]any{"dp": nil, "dq": nil}), Key: rsaKey,
			Want: "\"dp\" is missing or not base64url"},
		{Name: "RSA with d null", Input: rsaWith(map[string]any{"d": json.RawMessage("null")}), Key: rsaKey,
			Want: "it is a public JWK"},
		{Name: "RSA with d empty", Input: rsaWith(map[string]any{"d": ""}), Key: rsaKey,
			Want: "it is a public JWK"},
		{Name: "RSA with d of another key", Input: rsaWith(map[string]any{"d": otherRSAJWK["d"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with n of another key", Input: rsaWith(map[string]any{"n": otherRSAJWK["n"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with p of another key", Input: rsaWith(map[string]any{"p": otherRSAJWK["p"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with dp of another key", Input: rsaWith(map[string]any{"dp": otherRSAJWK["dp"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with dq of another key", Input: rsaWith(map[string]any{"dq": otherRSAJWK["dq"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with qi of another key", Input: rsaWith(map[string]any{"qi": otherRSAJWK["qi"]}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with d not below n", Input: rsaWith(map[string]any{"d": base64urlUInt(longD)}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with an even modulus",
			Input: rsaWith(map[string]any{"n": base64urlUInt(new(big.Int).Add(rsaKey.N, one))}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with p 1 and q n", Input: rsaWith(map[string]any{"p": "AQ", "q": rsaJWK["n"]}), Key: rsaKey,
			Want: "half as long"},
		{Name: "RSA with p n and q 1", Input: rsaWith(map[string]any{"q": "AQ", "p": rsaJWK["n"]}), Key: rsaKey,
			Want: "half as long"},
		{Name: "RSA with p 0", Input: rsaWith(map[string]any{"p": "AA"}), Key: rsaKey, Want: "half as long"},
		{Name: "RSA with p twice", Input: rsaWith(map[string]any{"q": rsaJWK["p"]}), Key: rsaKey,
			Want: "so close to each other"},
		{Name: "RSA with e 1", Input: rsaWith(map[string]any{"e": "AQ"}), Key: rsaKey, Want: "public exponent is 1, which is too small or even; use a key with exponent 65537"},
		{Name: "RSA with an even e", Input: rsaWith(map[string]any{"e": "AQAA"}), Key: rsaKey,
			Want: "public exponent is 65536, which is too small or even"},
		{Name: "RSA with another e of 31 bits", Input: rsaWith(map[string]any{"e": base64urlUInt(big.NewInt(1<<31 - 1))}), Key: rsaKey,
			Want: "do not belong together"},
		{Name: "RSA with an e of 32 bits", Input: rsaWith(map[string]any{"e": base64urlUInt(big.NewInt(1<<31 + 1))}), Key: rsaKey,
			Want: "public exponent is 2147483649, which has more than 31 bits"},
		{Name: "RSA with a huge e", Input: rsaWith(map[string]any{"e": rsaJWK["d"]}), Key: rsaKey,
			Want: "which has more than 31 bits; use a key with exponent 65537"},
		{Name: "RSA with a huge prime", Input: rsaWith(map[string]any{"p": base64urlUInt(long)}), Key: rsaKey,
			Want: "half as long"},
		{Name: "RSA with a huge modulus", Input: rsaWith(map[string]any{"n": base64urlUInt(long)}), Key: rsaKey,
			Want: "has 14001 bits"},
		{Name: "EC without crv", Input: ecWith(map[string]any{"crv": nil}), Key: ecKey, Want: "\"crv\" is not P-384"},
		{Name: "EC without y", Input: ecWith(map[string]any{"y": nil}), Key: ecKey,
			Want: "\"y\" is missing or not base64url"},
		{Name: "EC with d of another key", Input: ecWith(map[string]any{"d": otherECJWK["d"]}), Key: otherEC,
			Want: "do not belong together"},
		{Name: "EC with x of another key", Input: ecWith(map[string]any{"x": otherECJWK["x"]}), Key: ecKey,
			Want: "do not belong together"},
		{Name: "EC with y of another key", Input: ecWith(map[string]any{"y": otherECJWK["y"]}), Key: ecKey,
			Want: "do not belong together"},
		{Name: "EC with d 0", Input: ecWith(map[string]any{"d": "AA"}), Key: ecKey, Want: "do not belong together"},
		{Name: "EC with d the order",
			Input: ecWith(map[string]any{"d": base64urlUInt(elliptic.P384().Params().N)}), Key: ecKey,
			Want: "do not belong together"},
		{Name: "EC with a huge x", Input: ecWith(map[string]any{"x": base64urlUInt(long)}), Key: ecKey,
			Want: "do not belong together"},
		{Name: "EC with d as a number", Input: ecWith(map[string]any{"d": json.Number("12345")}), Key: ecKey,
			Want: "\"d\" is not a string"},
		{Name: "EC with padding", Input: ecWith(map[string]any{"d": ecJWK["d"].(string) + "="}), Key: ecKey,
			Want: "\"d\" is missing or not base64url"},
		{Name: "EC with standard base64",
			Input: ecWith(map[string]any{"x": "+/" + ecJWK["x"].(string)[2:]}), Key: ecKey,
			Want: "\"x\" is missing or not base64url"},

		// No key at all.
		{Name: "blanks", Input: " \r\n\t", Want: "missing or empty"},
		{Name: "words", Input: "correct horse battery staple", Want: "neither PEM nor a JWK"},
		{Name: "a file's name", Input: "@key.pem", Want: "neither PEM nor a JWK"},
		{Name: "huge", Input: strings.Repeat("A", 1<<20), Want: "longer than 16384 bytes"},
		{Name: "a byte too long", Input: strings.Repeat("\n", 16385-len(ecText)) + ecText, Key: ecKey,
			Want: "longer than 16384 bytes"},
		{Name: "huge JWK", Input: ecWith(map[string]any{"note": strings.Repeat("A", 1<<15)}), Key: ecKey,
			Want: "longer than 16384 bytes"},
	}
})

// must2 returns the second of two values.
func must2[A, B any](_ A, value B, err error) B { return must(value, err) }
