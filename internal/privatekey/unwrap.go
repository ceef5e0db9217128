// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto/rsa"
	"hash"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// errUnwrap is all that is said of a ciphertext that does not open: which step failed would help somebody who has
// caught one and tries changed copies of it.
var errUnwrap = refuse("it can't be unwrapped",
	"wrap the key again: read wrapping_key for the public key of this mount, and give hash_function if the AES key was "+
		"encrypted with another hash than SHA256")

// Unwrap opens a key that somebody has wrapped under this one, in the form that Vault's transit engine takes: an
// AES-256 key encrypted with RSA-OAEP (RFC 8017 section 7.1), followed by the private key as PKCS#8 DER wrapped with
// the AES key (AES-KWP, RFC 5649). The hash is that of OAEP and of its mask generation function. The key is checked as
// in Parse, and the memory it was opened in wiped. Every error is an InputError.
func (k *Key) Unwrap(ciphertext []byte, oaepHash hash.Hash) (*Key, error) {
	wrapping, ok := k.signer.(*rsa.PrivateKey)
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
		return nil, refuse("what was wrapped is not PKCS#8 DER",
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
