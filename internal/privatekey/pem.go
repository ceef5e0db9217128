// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"crypto/x509"
	"fmt"
	"strings"

	"vault-plugin-secrets-redox/internal/pemtext"
)

// privateLabels are the labels of blocks that hold a private key.
var privateLabels = map[string]bool{
	"PRIVATE KEY": true, "RSA PRIVATE KEY": true, "EC PRIVATE KEY": true, "ENCRYPTED PRIVATE KEY": true, "OPENSSH PRIVATE KEY": true,
	"DSA PRIVATE KEY": true, "ANY PRIVATE KEY": true,
}

// parsePEM reads the one private key among the PEM blocks of a text. Certificates, public keys and parameters that are there,
// too, are passed over.
func parsePEM(text string) (*Key, error) {
	blocks, err := pemtext.Blocks(text)
	if err != nil {
		return nil, refuse("the PEM is malformed or cut off", exportAgain)
	}
	var private []pemtext.Block
	others := ""
	for _, block := range blocks {
		switch {
		case privateLabels[block.Label]:
			private = append(private, block)
		case block.Label != "EC PARAMETERS":
			others = block.Label
		}
	}
	switch {
	case len(private) > 1:
		return nil, refuse(fmt.Sprintf("it holds %d private keys", len(private)), "give one of them alone, with all lines from BEGIN to END")
	case len(private) == 0:
		return nil, refusePublic(others)
	}
	label, body := private[0].Label, private[0].Body
	switch {
	case label == "ENCRYPTED PRIVATE KEY", strings.Contains(body, "Proc-Type:"), strings.Contains(body, "DEK-Info:"):
		return nil, refuse("the PEM is encrypted", "decrypt it first: openssl pkey -in KEYFILE -out key.pem")
	case label == "OPENSSH PRIVATE KEY":
		return nil, refuse("it is in OpenSSH's own form", "convert a copy: cp KEYFILE key.pem; ssh-keygen -p -N '' -m PKCS8 -f key.pem")
	case label == "DSA PRIVATE KEY":
		return nil, refuse("the key is neither RSA nor EC", useRSAOrP384)
	}
	der, err := private[0].Bytes()
	if err != nil {
		return nil, refuse("the PEM is malformed or cut off", exportAgain)
	}
	return parseAnyDER(der)
}

// parseAnyDER reads a key in PKCS#8, PKCS#1 or SEC 1, whatever the label says: some programs mix them up.
func parseAnyDER(der []byte) (*Key, error) {
	switch {
	case isPKCS1(der):
		return parsePKCS1(der)
	case isSEC1(der):
		return parseDER(der, der, x509.ParseECPrivateKey)
	default:
		return parsePKCS8(der)
	}
}

// refusePublic says what PEM blocks hold among which there is no private key.
func refusePublic(label string) error {
	const giveKey = "give the private key that belongs to it"
	switch {
	case strings.HasSuffix(label, "CERTIFICATE"):
		return refuse("it is a certificate, and no private key", giveKey)
	case strings.HasSuffix(label, "CERTIFICATE REQUEST"):
		return refuse("it is a certificate request, and no private key", giveKey)
	case strings.HasSuffix(label, "PUBLIC KEY"):
		return refuse("it is a public key", giveKey)
	case label == "":
		return refuse("it holds EC parameters but no private key", AcceptedForms)
	default:
		return refuse("the PEM block is not a private key", AcceptedForms)
	}
}
