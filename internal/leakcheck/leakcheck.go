// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package leakcheck finds secrets in what a program has written: private keys in any usual form, access tokens of the
// local Redox, and client assertions. It is for tests.
package leakcheck

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"sync"

	"vault-plugin-secrets-redox/internal/sandbox"
)

const (
	// pieceSize is how many bytes of a private number in a row count as a leak. A multiple of 3, so that base64 of a
	// piece stands alone; and so long that none appears by chance.
	pieceSize = 18
	// digitsSize is the same for decimal digits, as %v prints a number.
	digitsSize = 40
	// wordSize is how many bytes the words have that a goroutine dump shows of arguments. It shows at most ten elements
	// of an array, so this is also how many single bytes of one count.
	wordSize = 8
)

// patterns are secrets that are known by their form.
var patterns = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"a PEM private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)},
	{"a private JWK", regexp.MustCompile(`"(?:d|dp|dq|qi)\\*":\\*"[A-Za-z0-9_-]{20,}`)},
	{"an access token", regexp.MustCompile(sandbox.TokenPrefix + `[A-Za-z0-9_-]{20,}`)},
	{"a client assertion", regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}`)},
}

// Scanner knows the private keys of a test, and other secrets. Its methods may be called at the same time.
type Scanner struct {
	mu     sync.Mutex
	pieces map[beginning]map[string]string // what must not appear, and what it is
}

// beginning is the first bytes of a piece. Looking pieces up by it takes one pass over the data, however many there are.
type beginning [8]byte

// New gives a scanner that finds only what is known by its form.
func New() *Scanner { return &Scanner{pieces: map[beginning]map[string]string{}} }

// AddKey makes the scanner know an RSA or EC private key. It looks for pieces of each private number: raw, in hex, in
// base64 of both alphabets and at any offset (so also inside PEM, DER and JWK), in decimal, as Go prints bytes, and as a
// goroutine dump shows words and bytes.
func (s *Scanner) AddKey(name string, key crypto.PrivateKey) error {
	numbers := map[string]*big.Int{}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		numbers["d"] = key.D
		for i, prime := range key.Primes {
			numbers[fmt.Sprintf("prime %d", i+1)] = prime
		}
		numbers["dp"], numbers["dq"], numbers["qi"] = key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			return err
		}
		numbers["d"] = new(big.Int).SetBytes(scalar)
	default:
		return fmt.Errorf("%s: a %T is not known here", name, key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for number, value := range numbers {
		if value != nil {
			s.addNumber(fmt.Sprintf("%s of key %s", number, name), value)
		}
	}
	return nil
}

// addNumber adds every piece of a private number in every form. The caller holds the lock.
func (s *Scanner) addNumber(what string, number *big.Int) {
	raw := number.Bytes()
	for start := 0; start+pieceSize+2 <= len(raw); start += pieceSize {
		piece := raw[start : start+pieceSize]
		s.add(string(piece), what+", raw")
		s.add(hex.EncodeToString(piece), what+", hex")
		s.add(fmt.Sprintf("%X", piece), what+", hex")
		printed := fmt.Sprint(piece)
		s.add(printed[1:len(printed)-1], what+", printed bytes")
		for offset := range 3 { // how base64 groups depends on what comes before
			shifted := raw[start+offset : start+offset+pieceSize-3]
			s.add(base64.RawStdEncoding.EncodeToString(shifted), what+", base64")
			s.add(base64.RawURLEncoding.EncodeToString(shifted), what+", base64url")
		}
	}
	for start := 0; start+wordSize <= len(raw); start += wordSize {
		shown := strings.TrimPrefix(fmt.Sprintf("%#v", raw[start:start+wordSize]), "[]byte{")
		s.add(strings.TrimSuffix(shown, "}"), what+", bytes of a dump")
	}
	for _, word := range number.Bits() {
		if bits.Len(uint(word)) > 8*(wordSize-1) { // a shorter one could be there by chance
			s.add(fmt.Sprintf("%#x", uint(word)), what+", a word of a dump")
		}
	}
	digits := number.String()
	for start := 0; start+digitsSize <= len(digits); start += digitsSize {
		s.add(digits[start:start+digitsSize], what+", decimal")
	}
}

// AddAssertion makes the scanner know an assertion, but for its header, which is no secret.
func (s *Scanner) AddAssertion(name, assertion string) {
	_, signed, _ := strings.Cut(assertion, ".")
	s.AddText(name, signed)
}

// AddText makes the scanner know a secret that is text, such as a token of a form that is not known here. It looks for
// pieces of it as they are.
func (s *Scanner) AddText(name, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for start := 0; start+pieceSize <= len(secret); start += pieceSize {
		s.add(secret[start:start+pieceSize], name)
	}
}

func (s *Scanner) add(piece, what string) {
	start := beginning([]byte(piece))
	if s.pieces[start] == nil {
		s.pieces[start] = map[string]string{}
	}
	s.pieces[start][piece] = what
}

// Keys says whether any key is known, so that a test can see that it looks for something.
func (s *Scanner) Keys() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pieces) > 0
}

// joinLines takes out what PEM puts between its lines: line breaks as they are, and as JSON escapes them, however often
// it was encoded.
func joinLines(data []byte) []byte {
	joined := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		end := i
		for end < len(data) && data[end] == '\\' {
			end++
		}
		switch {
		case data[i] == '\n', data[i] == '\r':
		case end > i && end < len(data) && (data[end] == 'n' || data[end] == 'r'):
			i = end
		default:
			joined = append(joined, data[i])
		}
	}
	return joined
}

// Scan says which secrets are in the data, each once, sorted.
func (s *Scanner) Scan(data []byte) []string {
	found := map[string]bool{}
	for _, p := range patterns {
		if p.pattern.Match(data) {
			found[p.name] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range [][]byte{data, joinLines(data)} {
		for len(text) >= len(beginning{}) {
			for piece, what := range s.pieces[beginning(text)] {
				if bytes.HasPrefix(text, []byte(piece)) {
					found[what] = true
				}
			}
			text = text[1:]
		}
	}
	return slices.Sorted(maps.Keys(found))
}
