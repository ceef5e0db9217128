// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"fmt"
	"strings"

	"vault-plugin-secrets-redox/internal/pemtext"
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

// Parse reads the one private key that somebody brings, in any form that leaves no doubt: PEM (PKCS#8, PKCS#1, SEC 1) or JWK
// (RFC 7517), among public keys and certificates, too, and as editors, shells and secret stores leave it. Of a JWK Set with
// several private keys, kid chooses one; else it is not looked at. It returns the kid of the JWK, empty if there is none. Every
// error is an InputError.
func Parse(input, kid string) (key *Key, ownKID string, err error) {
	if len(input) > MaxInputBytes {
		return nil, "", refuse(fmt.Sprintf("it is longer than %d bytes", MaxInputBytes), AcceptedForms)
	}
	text, err := normalize(input)
	switch {
	case err != nil:
	case text == "":
		err = refuse("it is missing or empty", AcceptedForms)
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		key, ownKID, err = parseJWK(text, kid)
	case strings.Contains(text, pemtext.Begin):
		key, err = parsePEM(text)
	default:
		err = refuseOther(text)
	}
	if err != nil {
		return nil, "", err
	}
	if err := key.checkRSA(); err != nil {
		return nil, "", err
	}
	return key, ownKID, nil
}

// refuseOther says what a text is that is neither PEM nor JSON.
func refuseOther(text string) error {
	if err := refuseBase64(text); err != nil {
		return err
	}
	if strings.HasPrefix(text, "PuTTY-User-Key-File") {
		return refuse("it is in PuTTY's own form", "convert it: puttygen KEYFILE -O private-openssh -o key.pem; ssh-keygen -p -N '' -m PKCS8 -f key.pem")
	}
	if strings.HasPrefix(text, "ssh-") || strings.HasPrefix(text, "ecdsa-sha2-") {
		return refuse("it is a public key of SSH", "give the private key that belongs to it")
	}
	return refuse("it is neither PEM nor a JWK", AcceptedForms)
}
