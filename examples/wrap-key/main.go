// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Command wrap-key encrypts a private key so that only the mount of the plugin that gave the wrapping key can open it:
//
//	vault read -field=public_key redox/wrapping_key >wrapping-key.pem
//	wrap-key key.pem wrapping-key.pem >ciphertext.b64
//	vault write redox/keys/NAME/import ciphertext=@ciphertext.b64
//
// The key's file is PEM or DER (PKCS#8, PKCS#1 or SEC 1, not encrypted) or a JWK. A ciphertext has no kid: what
// "wrap-key -kid key.json" prints is the JWK's, to be given to the import as kid=….
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/go-jose/go-jose/v4"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

func main() {
	text, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "wrap-key:", err)
		os.Exit(1)
	}
	fmt.Println(text)
}

// run gives what is to be printed.
func run(arguments []string) (string, error) {
	if len(arguments) != 2 {
		return "", errors.New("usage: wrap-key KEY-FILE WRAPPING-KEY-FILE, or wrap-key -kid JWK-FILE")
	}
	if arguments[0] == "-kid" {
		jwk, err := readJWK(arguments[1])
		if err != nil {
			return "", err
		}
		if jwk == nil || jwk.KeyID == "" {
			return "", fmt.Errorf("%s is no JWK with a kid", arguments[1])
		}
		return jwk.KeyID, nil
	}
	der, err := readPrivateKey(arguments[0])
	if err != nil {
		return "", err
	}
	wrappingKey, err := readWrappingKey(arguments[1])
	if err != nil {
		return "", err
	}
	ciphertext, err := wrap(der, wrappingKey)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(ciphertext), nil
}

// wrap encrypts a new AES key with the wrapping key, and the private key with the AES key.
func wrap(der []byte, wrappingKey *rsa.PublicKey) ([]byte, error) {
	aesKey := make([]byte, 32)
	_, _ = rand.Read(aesKey) // never fails
	encryptedKey, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, wrappingKey, aesKey, nil)
	if err != nil {
		return nil, err
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, err
	}
	wrapped, err := kwp.Wrap(der)
	return append(encryptedKey, wrapped...), err
}

// readPrivateKey gives the key as PKCS#8 DER.
func readPrivateKey(file string) ([]byte, error) {
	jwk, err := readJWK(file)
	if err != nil {
		return nil, err
	}
	if jwk != nil {
		if jwk.IsPublic() {
			return nil, fmt.Errorf("%s is a public JWK", file)
		}
		return x509.MarshalPKCS8PrivateKey(jwk.Key)
	}
	der, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for rest := der; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "EC PARAMETERS" { // which openssl writes before an EC key
			der = block.Bytes
			break
		}
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return der, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return x509.MarshalPKCS8PrivateKey(key)
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return x509.MarshalPKCS8PrivateKey(key)
	}
	return nil, fmt.Errorf("%s is no private key in a form that is known here, or it is encrypted", file)
}

// readJWK gives nil for a file that is not JSON.
func readJWK(file string) (*jose.JSONWebKey, error) {
	text, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, err
	}
	jwk := &jose.JSONWebKey{}
	if jwk.UnmarshalJSON(text) != nil {
		return nil, fmt.Errorf("%s is JSON, but no JWK", file)
	}
	return jwk, nil
}

func readWrappingKey(file string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil {
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if key, ok := key.(*rsa.PublicKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("%s is not what vault read -field=public_key redox/wrapping_key gives", file)
}
