// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package leakcheck

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
)

// AddStored makes the scanner know the private keys of an entry as the engine stores it: of a signing key with its
// versions, or of the wrapping key. It gives their number, 0 when all are destroyed. Its errors hold nothing of the entry.
func (s *Scanner) AddStored(name, entry string) (count int, err error) {
	type sealed struct {
		PrivateKey []byte `json:"private_key"`
	}
	var stored struct {
		sealed
		Versions []sealed `json:"versions"`
	}
	if json.Unmarshal([]byte(entry), &stored) != nil {
		return 0, fmt.Errorf("the stored key %s is not as expected", name)
	}
	for _, each := range append(stored.Versions, stored.sealed) {
		if len(each.PrivateKey) == 0 {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(each.PrivateKey)
		if err != nil {
			return 0, fmt.Errorf("the stored key %s is not as expected", name)
		}
		if err := s.AddKey(name, key); err != nil {
			return 0, err
		}
		count++
	}
	return count, nil
}
