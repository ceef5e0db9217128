// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"slices"
)

// The wrapping side is written here from RFC 3394, RFC 5649 and the documentation of Vault's transit engine, without
// the library that the engine unwraps with.

// AESWrap is the wrapping process of RFC 3394 section 2.2.1, of whole blocks of 8 bytes.
func AESWrap(aesKey, iv, blocks []byte) []byte {
	cipher := must(aes.NewCipher(aesKey))
	wrapped := slices.Concat(iv, blocks)
	n := len(blocks) / 8
	for j := range 6 {
		for i := 1; i <= n; i++ {
			b := slices.Concat(wrapped[:8], wrapped[8*i:8*i+8])
			cipher.Encrypt(b, b)
			binary.BigEndian.PutUint64(wrapped, binary.BigEndian.Uint64(b)^uint64(n*j+i))
			copy(wrapped[8*i:], b[8:])
		}
	}
	return wrapped
}

// AlternativeIV is the initial value of RFC 5649 section 3.
func AlternativeIV(length int) []byte {
	return binary.BigEndian.AppendUint32([]byte{0xA6, 0x59, 0x59, 0xA6}, uint32(length))
}

// Padded returns data with zeros up to the next multiple of 8 bytes (RFC 5649 section 4.1).
func Padded(data []byte) []byte { return append(bytes.Clone(data), make([]byte, -len(data)&7)...) }

// AESWrapPadded is the extended key wrapping of RFC 5649 section 4.1, for more than 8 bytes.
func AESWrapPadded(aesKey, data []byte) []byte {
	return AESWrap(aesKey, AlternativeIV(len(data)), Padded(data))
}

// Random returns n random bytes.
func Random(n int) []byte {
	random := make([]byte, n)
	_, _ = rand.Read(random)
	return random
}

// OAEP returns an AES key encrypted with RSA-OAEP, without a label.
func OAEP(newHash func() hash.Hash, under *rsa.PublicKey, aesKey []byte) []byte {
	return must(rsa.EncryptOAEP(newHash(), rand.Reader, under, aesKey, nil))
}

// Wrapped returns the ciphertext, in base64, for a private key as DER, under a new AES key.
func Wrapped(newHash func() hash.Hash, under *rsa.PublicKey, der []byte) string {
	aesKey := Random(32)
	return base64.StdEncoding.EncodeToString(slices.Concat(OAEP(newHash, under, aesKey), AESWrapPadded(aesKey, der)))
}
