// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Sealed is a private key on its way to or from sealed storage, as PKCS#8 DER. Encoding it as JSON writes the bytes,
// which is what storing takes, so no response may hold one; formatting it does not. The zero value holds no key.
//
// The bytes are behind a function since fmt looks through pointers, and can't call Format in the unexported field of a
// struct that is printed.
type Sealed struct{ der func() []byte }

func seal(der []byte) Sealed {
	return Sealed{func() []byte { return der }}
}

// bytes returns the DER, nil when there is no private key.
func (s Sealed) bytes() []byte {
	if s.der == nil {
		return nil
	}
	return s.der()
}

// Format implements fmt.Formatter: whatever the verb, it writes "[sealed private key]".
func (Sealed) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[sealed private key]") }

// MarshalJSON implements json.Marshaler, for storage only: base64 of the DER, or null when there is no key.
func (s Sealed) MarshalJSON() ([]byte, error) { return json.Marshal(s.bytes()) }

// UnmarshalJSON implements json.Unmarshaler. It reads what MarshalJSON wrote, and leaves it to Open to parse the key.
func (s *Sealed) UnmarshalJSON(text []byte) error {
	var der []byte
	err := json.Unmarshal(text, &der)
	*s = seal(der)
	return err
}

// IsZero reports whether there is no private key, as when it was destroyed.
func (s Sealed) IsZero() bool { return len(s.bytes()) == 0 }

// Equal reports whether both hold the same bytes.
func (s Sealed) Equal(other Sealed) bool { return bytes.Equal(s.bytes(), other.bytes()) }

// Seal returns the key in the form for storage.
func (k *Key) Seal() (Sealed, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		// x509's words could quote the key; nothing of them is passed on.
		return Sealed{}, errors.New("the private key can't be encoded as PKCS#8")
	}
	return seal(der), nil
}

// Open returns the key that Seal has sealed. The key is not checked again, as it was when it was made or imported. The
// error holds nothing of what is stored.
func (s Sealed) Open() (*Key, error) {
	if parsed, err := x509.ParsePKCS8PrivateKey(s.bytes()); err == nil {
		if key, err := newKey(parsed); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the stored private key is unreadable")
}
