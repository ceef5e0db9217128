// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// The signature algorithms that Redox accepts (REDOX.md, RFC 7518 section 3.1).
const (
	algorithmRS384 = "RS384"
	algorithmES384 = "ES384"
)

var algorithms = []string{algorithmRS384, algorithmES384}

const (
	leastRSABits = 2048
	// mostRSABits bounds what one signature can cost.
	mostRSABits = 8192
	// primalityRounds is how many Miller-Rabin rounds a prime of an imported key must pass.
	primalityRounds = 20
)

// privateKey owns a signing key, or the key that opens wrapped imports. It prints as nothing: formatting it, also with
// %#v, or encoding it as JSON shows no byte of the key. Sealed storage is the only place its bytes go to.
type privateKey struct {
	algorithm string
	key       crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
}

func (*privateKey) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, "[private key]") }
func (*privateKey) MarshalJSON() ([]byte, error) { return []byte(`"[private key]"`), nil }

// generatePrivateKey makes a key for the algorithm. rsaBits counts only for RS384.
func generatePrivateKey(algorithm string, rsaBits int) (*privateKey, error) {
	switch algorithm {
	case algorithmRS384:
		key, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, fmt.Errorf("generating an RSA key failed: %w", err)
		}
		return &privateKey{algorithmRS384, key}, nil
	case algorithmES384:
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generating an EC key failed: %w", err)
		}
		return &privateKey{algorithmES384, key}, nil
	default:
		return nil, fmt.Errorf("no key can be generated for algorithm %q", algorithm)
	}
}

func (k *privateKey) public() crypto.PublicKey { return k.key.Public() }

// sealedPrivateKey is a private key on its way to or from sealed storage: PKCS#8 DER. Encoding it as JSON gives the
// bytes, which is what storing takes; formatting it does not. They are behind a function since fmt looks through
// pointers, and can't call Format in the unexported field of a struct that is printed.
type sealedPrivateKey struct{ der func() []byte }

func sealedDER(der []byte) sealedPrivateKey {
	return sealedPrivateKey{func() []byte { return der }}
}

// bytes gives the DER, nil when there is no private key (any more).
func (s sealedPrivateKey) bytes() []byte {
	if s.der == nil {
		return nil
	}
	return s.der()
}

func (sealedPrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[sealed private key]") }

// MarshalJSON is for storage only: no response holds a sealedPrivateKey.
func (s sealedPrivateKey) MarshalJSON() ([]byte, error) { return json.Marshal(s.bytes()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *sealedPrivateKey) UnmarshalJSON(text []byte) error {
	var der []byte
	err := json.Unmarshal(text, &der)
	*s = sealedDER(der)
	return err
}

// seal gives the form for storage.
func (k *privateKey) seal() (sealedPrivateKey, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		// x509's words could quote the key; nothing of them is passed on.
		return sealedPrivateKey{}, errors.New("the private key can't be encoded as PKCS#8")
	}
	return sealedDER(der), nil
}

// open reads what seal gave. The key was checked when it was made or imported.
func (s sealedPrivateKey) open() (*privateKey, error) {
	if parsed, err := x509.ParsePKCS8PrivateKey(s.bytes()); err == nil {
		if key, err := newPrivateKey(parsed); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the stored private key is unreadable")
}

// newPrivateKey takes a parsed key of a kind that one of the algorithms uses.
func newPrivateKey(key any) (*privateKey, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return &privateKey{algorithmRS384, key}, nil
	case *ecdsa.PrivateKey:
		if key.Curve != elliptic.P384() {
			return nil, refusedKey("the EC key is on curve "+key.Curve.Params().Name, useP384)
		}
		return &privateKey{algorithmES384, key}, nil
	default:
		return nil, refusedKey("the key is neither RSA nor EC", "import an RSA key (RS384) or a P-384 key (ES384)")
	}
}

// assertionClaims is what a client assertion says (RFC 7523 section 3, REDOX.md).
type assertionClaims struct {
	clientID string
	audience string
	kid      string
	jku      string        // left out when empty
	now      time.Time     // by this node's clock
	backdate time.Duration // how far iat lies before now
	lifetime time.Duration // from now to exp
}

// sign makes a client assertion with a jti of its own.
func (k *privateKey) sign(c assertionClaims) (string, error) {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(k.algorithm), jwt.MapClaims{
		"iss": c.clientID,
		"sub": c.clientID,
		"aud": c.audience,
		"iat": c.now.Add(-c.backdate).Unix(),
		"exp": c.now.Add(c.lifetime).Unix(),
		"jti": rand.Text(),
	})
	token.Header["kid"] = c.kid
	if c.jku != "" {
		token.Header["jku"] = c.jku
	}
	assertion, err := token.SignedString(k.key)
	if err != nil {
		return "", fmt.Errorf("signing the client assertion with kid %q failed", c.kid)
	}
	return assertion, nil
}

// openKeys keeps the keys in use parsed: parsing an RSA key costs a good part of a signature. A key is found by its
// stored bytes, so what is found is never out of date; forget is there so that no key outlives its deletion in memory.
type openKeys struct {
	mu      sync.Mutex
	changes uint64 // counts forget
	byName  map[string][]openKey
}

type openKey struct {
	sealed sealedPrivateKey
	key    *privateKey
}

// generation is to be taken before a key is read from storage, and given to open.
func (o *openKeys) generation() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changes
}

// open parses a version of the named signing key, or finds it parsed. It is kept unless keys have changed since
// generation.
func (o *openKeys) open(name string, sealed sealedPrivateKey, generation uint64) (*privateKey, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, known := range o.byName[name] {
		if bytes.Equal(known.sealed.bytes(), sealed.bytes()) {
			return known.key, nil
		}
	}
	key, err := sealed.open()
	if err != nil {
		return nil, unreadableEntry(keysStoragePrefix + name)
	}
	if generation == o.changes {
		if o.byName == nil {
			o.byName = map[string][]openKey{}
		}
		o.byName[name] = append(o.byName[name], openKey{sealed, key})
	}
	return key, nil
}

// forget drops the named key's versions.
func (o *openKeys) forget(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes++
	delete(o.byName, name)
}

// mostImportBytes bounds what is parsed: an 8192-bit RSA key takes less than half of it.
const mostImportBytes = 16 << 10

const (
	acceptedForms = "give one unencrypted private key as PEM (PKCS#8, PKCS#1 or SEC 1) or as a JWK"
	exportAgain   = "export the key again from where it was made"
	useP384       = "use a key on curve P-384, the only one that ES384 signs with"
)

// refusedKey says why a private key can't be imported. Nothing in it may come from the key's private members.
func refusedKey(problem, wayOut string) error {
	return &userError{field: "private_key", problem: problem, wayOut: wayOut}
}

// parsePrivateKey reads a key that a user brings: PEM (PKCS#8, PKCS#1, SEC 1) or a private JWK (RFC 7517). It gives
// the kid of the JWK, if it has one. Its errors hold nothing of the input, nor what a parser said of it.
func parsePrivateKey(input string) (key *privateKey, kid string, err error) {
	if len(input) > mostImportBytes {
		return nil, "", refusedKey(fmt.Sprintf("it is longer than %d bytes", mostImportBytes), acceptedForms)
	}
	input = strings.TrimSpace(input)
	switch {
	case input == "":
		return nil, "", refusedKey("it is missing or empty", acceptedForms)
	case strings.HasPrefix(input, "{"):
		key, kid, err = parseJWK(input)
	default:
		key, err = parsePEM(input)
	}
	if err != nil {
		return nil, "", err
	}
	if err := key.checkRSA(); err != nil {
		return nil, "", err
	}
	return key, kid, nil
}

// checkRSA refuses RSA keys that are too weak, or not what they claim to be. (The EC parsers have matched the private
// scalar with the curve and the public point.)
func (k *privateKey) checkRSA() error {
	key, ok := k.key.(*rsa.PrivateKey)
	if !ok {
		return nil
	}
	if len(key.Primes) != 2 {
		return refusedKey(notTwoPrimes, "use a key with two primes")
	}
	if err := checkRSALengths(key.N, key.Primes[0], key.Primes[1]); err != nil {
		return err
	}
	for _, prime := range key.Primes {
		if !prime.ProbablyPrime(primalityRounds) {
			return refusedKey(inconsistentRSA, exportAgain)
		}
	}
	if key.Validate() != nil {
		return refusedKey(inconsistentRSA, exportAgain)
	}
	return nil
}

const (
	notTwoPrimes    = "the RSA key is not made of exactly two primes"
	inconsistentRSA = "the numbers of the RSA key do not belong together"
)

// checkRSALengths comes before anything is computed with the numbers of an RSA key: with numbers as long as the input
// may be, that would take minutes. It also refuses a key with a short prime, which can be found.
func checkRSALengths(n, p, q *big.Int) error {
	bits := n.BitLen()
	if bits < leastRSABits || bits > mostRSABits {
		return refusedKey(fmt.Sprintf("the RSA key has %d bits", bits),
			fmt.Sprintf("use a key of %d to %d bits", leastRSABits, mostRSABits))
	}
	for _, prime := range []*big.Int{p, q} {
		if prime.BitLen() < bits/2 || prime.BitLen() > bits/2+1 {
			return refusedKey("the primes of the RSA key are not each half as long as its modulus", exportAgain)
		}
	}
	return nil
}

// errUnwrap is all that is said of a ciphertext that does not open: which step failed would help somebody who has
// caught one and tries changed copies of it.
var errUnwrap = refusedKey("it can't be unwrapped",
	"wrap the key again: read wrapping_key for the public key of this mount, and give hash_function if the AES key was "+
		"encrypted with another hash than SHA256")

// unwrap opens a key that a user has wrapped in the form that Vault's transit engine takes: an AES-256 key encrypted
// with RSA-OAEP under this key, then the PKCS#8 DER of the private key wrapped with that AES key (AES-KWP, RFC 5649).
// The key is checked as in parsePrivateKey, and the memory it was opened in wiped.
func (k *privateKey) unwrap(ciphertext []byte, oaepHash hash.Hash) (*privateKey, error) {
	wrapping, ok := k.key.(*rsa.PrivateKey)
	if !ok || len(ciphertext) < wrapping.Size() {
		return nil, errUnwrap
	}
	aesKey, err := rsa.DecryptOAEP(oaepHash, nil, wrapping, ciphertext[:wrapping.Size()], nil)
	defer clear(aesKey)
	if err != nil || len(aesKey) != 32 { // NewKWP would take 16, too
		return nil, errUnwrap
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, errUnwrap
	}
	der, err := kwp.Unwrap(ciphertext[wrapping.Size():])
	defer clear(der)
	if err != nil {
		return nil, errUnwrap
	}
	if pkcs8Content(der) == nil {
		return nil, refusedKey("what was wrapped is not PKCS#8 DER",
			"wrap what this writes: openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der")
	}
	key, err := parsePKCS8(der)
	if err != nil {
		return nil, err
	}
	if err := key.checkRSA(); err != nil {
		return nil, err
	}
	return key, nil
}

const pemBegin = "-----BEGIN "

// parsePEM reads exactly one PEM block. "EC PARAMETERS", which openssl writes before an EC key, may precede it.
func parsePEM(input string) (*privateKey, error) {
	switch begin := strings.Index(input, pemBegin); {
	case begin < 0:
		return nil, refusedKey("it is neither PEM nor a JWK", acceptedForms)
	case begin > 0:
		return nil, refusedKey("there is text before the PEM block", "give the PEM block alone")
	}
	text := []byte(input)
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" {
		text = bytes.TrimSpace(rest)
		if !bytes.HasPrefix(text, []byte(pemBegin)) {
			return nil, refusedKey("it holds EC parameters but no private key", acceptedForms)
		}
		block, rest = pem.Decode(text)
	}
	switch {
	case bytes.Count(text, []byte(pemBegin)) > 1: // counted, since pem.Decode passes over blocks that are malformed
		return nil, refusedKey("it holds more than one PEM block", acceptedForms)
	case block == nil:
		return nil, refusedKey("the PEM is malformed or cut off", exportAgain)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, refusedKey("there is trailing data after the PEM block", "give the PEM block alone")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" || block.Headers["Proc-Type"] != "":
		return nil, refusedKey("the PEM is encrypted",
			"decrypt it first, for example with: openssl pkey -in encrypted.pem -out key.pem")
	}

	switch block.Type {
	case "PRIVATE KEY":
		return parsePKCS8(block.Bytes)
	case "RSA PRIVATE KEY":
		return parseDER(block.Bytes, block.Bytes, x509.ParsePKCS1PrivateKey)
	case "EC PRIVATE KEY":
		return parseDER(block.Bytes, block.Bytes, x509.ParseECPrivateKey)
	case "PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE":
		return nil, refusedKey("it is a public key", "give the private key that belongs to it")
	case "OPENSSH PRIVATE KEY":
		return nil, refusedKey("it is in OpenSSH's own form", "convert it first: ssh-keygen -p -m PKCS8 -f KEYFILE")
	default:
		return nil, refusedKey("the PEM block is not a private key", acceptedForms)
	}
}

func parsePKCS8(der []byte) (*privateKey, error) {
	return parseDER(der, pkcs8Content(der), x509.ParsePKCS8PrivateKey)
}

// parseDER reads a key with one of x509's parsers, and checks what they do not look at. content is the PKCS#1 or SEC 1
// structure, which is inside the DER or is all of it.
func parseDER[T any](der, content []byte, parse func(der []byte) (T, error)) (*privateKey, error) {
	if hasTrailingData(der) || hasTrailingData(content) {
		return nil, refusedKey("there is trailing data within the key's encoding", exportAgain)
	}
	if err := checkPKCS1(content); err != nil {
		return nil, err
	}
	parsed, err := parse(der)
	if err != nil {
		return nil, refusedKey("the key is malformed, cut off, inconsistent, or of an unknown kind or curve",
			exportAgain+", an EC key with a named curve")
	}
	if key, ok := any(parsed).(*ecdsa.PrivateKey); ok && !publicPointMatches(key, content) {
		return nil, refusedKey("the private and the public part of the EC key do not belong together", exportAgain)
	}
	return newPrivateKey(parsed)
}

// hasTrailingData says whether something follows the first ASN.1 value.
func hasTrailingData(der []byte) bool {
	var value asn1.RawValue
	rest, err := asn1.Unmarshal(der, &value)
	return err == nil && len(rest) > 0
}

// pkcs8Content gives the key inside a PKCS#8 structure (RFC 5958 section 2), nil when x509 can't parse it either.
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
		return refusedKey(notTwoPrimes, "use a key with two primes")
	}
	return checkRSALengths(numbers.N, numbers.P, numbers.Q)
}

// publicPointMatches says whether the public point in a SEC 1 structure (RFC 5915 section 3), if there is one, is the
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

// compressedPoint gives the compressed form of an uncompressed point (SEC 1 section 2.3.3): the parity of y, then x.
func compressedPoint(uncompressed []byte) []byte {
	size := (len(uncompressed) - 1) / 2
	parity := uncompressed[len(uncompressed)-1] & 1
	return append([]byte{2 + parity}, uncompressed[1:1+size]...)
}

// privateJWK holds the members of a JWK as they came. Names are case-sensitive (RFC 7517 section 4), which
// encoding/json's structs are not.
type privateJWK map[string]json.RawMessage

// has says whether all the members are there.
func (j privateJWK) has(names ...string) bool {
	for _, name := range names {
		if _, ok := j[name]; !ok {
			return false
		}
	}
	return true
}

// text gives a string member, empty when it is not there.
func (j privateJWK) text(name string) (string, error) {
	raw, ok := j[name]
	if !ok {
		return "", nil
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return "", refusedKey(fmt.Sprintf("the JWK's member %q is not a string", name), exportAgain)
	}
	return *s, nil
}

// number gives a Base64urlUInt member (RFC 7518 section 2).
func (j privateJWK) number(name string) (*big.Int, error) {
	text, err := j.text(name)
	if err != nil {
		return nil, err
	}
	number, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(number) == 0 {
		return nil, refusedKey(fmt.Sprintf("the JWK's member %q is missing or not base64url", name), exportAgain)
	}
	return new(big.Int).SetBytes(number), nil
}

// numbers gives several members at once, in the order of the names.
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
func parseJWK(input string) (key *privateKey, kid string, err error) {
	decoder := json.NewDecoder(strings.NewReader(input))
	var jwk privateJWK
	if decoder.Decode(&jwk) != nil {
		return nil, "", refusedKey("the JWK is malformed or cut off JSON", exportAgain)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, "", refusedKey("there is trailing data after the JWK", "give one JWK alone")
	}
	if jwk.has("keys") {
		return nil, "", refusedKey("it is a JWK Set", "give the one JWK in its \"keys\" that is to be imported")
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
		err = refusedKey("the JWK has no member \"kty\"", exportAgain)
	default:
		err = refusedKey("the JWK's \"kty\" is neither RSA nor EC", "import an RSA key (RS384) or a P-384 key (ES384)")
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
		return refusedKey(fmt.Sprintf("the JWK's \"alg\" is not %s, which keys of this kind sign with here", algorithm),
			"import a key made for "+algorithm)
	}
	use, err := j.text("use")
	if err != nil {
		return err
	}
	if use != "" && use != "sig" {
		return refusedKey("the JWK's \"use\" is not \"sig\"", "import a key made for signatures")
	}
	if raw, ok := j["key_ops"]; ok {
		var operations []string
		if json.Unmarshal(raw, &operations) != nil || !slices.Contains(operations, "sign") {
			return refusedKey("the JWK's \"key_ops\" do not hold \"sign\"", "import a key made for signatures")
		}
	}
	return nil
}

func (j privateJWK) rsa() (*privateKey, error) {
	if !j.has("d") {
		return nil, refusedKey("it is a public JWK", "give the private JWK that belongs to it")
	}
	if j.has("oth") {
		return nil, refusedKey(notTwoPrimes, "use a key with two primes")
	}
	if !j.has("p", "q") {
		return nil, refusedKey("the JWK lacks the RSA key's primes, its members \"p\" and \"q\"",
			"export the key with all the members of RFC 7518 section 6.3.2")
	}
	numbers, err := j.numbers("n", "e", "d", "p", "q")
	if err != nil {
		return nil, err
	}
	e := numbers[1]
	if e.BitLen() > 31 { // what crypto/rsa takes
		return nil, refusedKey("the RSA key's public exponent has more than 31 bits", "use a key with exponent 65537")
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
	return newPrivateKey(key) // checkRSA matches the numbers with each other
}

func (j privateJWK) ec() (*privateKey, error) {
	curve, err := j.text("crv")
	if err != nil {
		return nil, err
	}
	if curve != "P-384" {
		return nil, refusedKey("the JWK's \"crv\" is not P-384", useP384)
	}
	if !j.has("d") {
		return nil, refusedKey("it is a public JWK", "give the private JWK that belongs to it")
	}
	numbers, err := j.numbers("d", "x", "y")
	if err != nil {
		return nil, err
	}
	const size = 48 // bytes of a coordinate of P-384
	raw := make([][]byte, len(numbers))
	inconsistent := refusedKey("the members of the EC JWK do not belong together", exportAgain)
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
	return newPrivateKey(key)
}
