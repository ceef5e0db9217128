// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
)

const pemBegin = "-----BEGIN "

// parsePEM reads exactly one PEM block. "EC PARAMETERS", which openssl writes before an EC key, may precede it.
func parsePEM(input string) (*Key, error) {
	switch begin := strings.Index(input, pemBegin); {
	case begin < 0:
		return nil, refuse("it is neither PEM nor a JWK", AcceptedForms)
	case begin > 0:
		return nil, refuse("there is text before the PEM block", "give the PEM block alone")
	}
	text := []byte(input)
	block, rest := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" {
		text = bytes.TrimSpace(rest)
		if !bytes.HasPrefix(text, []byte(pemBegin)) {
			return nil, refuse("it holds EC parameters but no private key", AcceptedForms)
		}
		block, rest = pem.Decode(text)
	}
	switch {
	case bytes.Count(text, []byte(pemBegin)) > 1: // counted, since pem.Decode passes over blocks that are malformed
		return nil, refuse("it holds more than one PEM block", AcceptedForms)
	case block == nil:
		return nil, refuse("the PEM is malformed or cut off", exportAgain)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, refuse("there is trailing data after the PEM block", "give the PEM block alone")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" || block.Headers["Proc-Type"] != "":
		return nil, refuse("the PEM is encrypted",
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
		return nil, refuse("it is a public key", "give the private key that belongs to it")
	case "OPENSSH PRIVATE KEY":
		return nil, refuse("it is in OpenSSH's own form", "convert it first: ssh-keygen -p -m PKCS8 -f KEYFILE")
	default:
		return nil, refuse("the PEM block is not a private key", AcceptedForms)
	}
}
