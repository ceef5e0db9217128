// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
)

// Generate returns a new key for RS384 or ES384. rsaBits is the size of the modulus in bits; it counts only for RS384.
func Generate(algorithm string, rsaBits int) (*Key, error) {
	switch algorithm {
	case RS384:
		key, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return nil, fmt.Errorf("generating an RSA key failed: %w", err)
		}
		return &Key{RS384, key}, nil
	case ES384:
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generating an EC key failed: %w", err)
		}
		return &Key{ES384, key}, nil
	default:
		return nil, fmt.Errorf("no key can be generated for algorithm %q", algorithm)
	}
}
