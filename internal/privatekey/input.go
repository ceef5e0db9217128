// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"fmt"
	"strings"
)

// MaxInputBytes is the longest input that is parsed: an 8192-bit RSA key takes less than half of it.
const MaxInputBytes = 16 << 10

// AcceptedForms says what Parse takes, as the way out in an error.
const AcceptedForms = "give one unencrypted private key as PEM (PKCS#8, PKCS#1 or SEC 1) or as a JWK"

// Ways out that several refusals name.
const (
	exportAgain  = "export the key again from where it was made"
	useP384      = "use a key on curve P-384, the only one that ES384 signs with"
	useRSAOrP384 = "import an RSA key (RS384) or a P-384 key (ES384)"
)

// InputError is the refusal of a key that somebody brings. Nothing in it comes from the key's private numbers, nor from
// what a parser said of them.
type InputError struct {
	Problem string // what is wrong
	WayOut  string // what to do next
}

// Error implements error.
func (e *InputError) Error() string { return e.Problem + "; " + e.WayOut }

func refuse(problem, wayOut string) error { return &InputError{problem, wayOut} }

// Parse reads a key that somebody brings: PEM (PKCS#8, PKCS#1, SEC 1) or a private JWK (RFC 7517). It returns the kid of
// the JWK, empty if there is none. Every error is an InputError.
func Parse(input string) (key *Key, kid string, err error) {
	if len(input) > MaxInputBytes {
		return nil, "", refuse(fmt.Sprintf("it is longer than %d bytes", MaxInputBytes), AcceptedForms)
	}
	input = strings.TrimSpace(input)
	switch {
	case input == "":
		return nil, "", refuse("it is missing or empty", AcceptedForms)
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
