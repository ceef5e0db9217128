// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func pemText(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// Each form of a key gives a ciphertext that opens to it. (That the plugin opens it is seen in test/acceptance.)
func TestWrap(t *testing.T) {
	wrappingKey := must(rsa.GenerateKey(rand.Reader, 4096))
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	ecKey := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	ecDER := must(x509.MarshalECPrivateKey(ecKey))
	directory := t.TempDir()
	files := 0
	file := func(text string) string {
		files++
		name := filepath.Join(directory, fmt.Sprint("file-", files))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	wrappingFile := file(pemText("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(wrappingKey.Public()))))
	jwk := func(key any) string {
		return string(must(json.Marshal(jose.JSONWebKey{Key: key, KeyID: "kid-1"})))
	}
	for name, test := range map[string]struct {
		key  crypto.Signer
		text string
	}{
		"PKCS#8":                       {rsaKey, pemText("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey)))},
		"PKCS#8 DER":                   {ecKey, string(must(x509.MarshalPKCS8PrivateKey(ecKey)))},
		"PKCS#1":                       {rsaKey, pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		"PKCS#1 DER":                   {rsaKey, string(x509.MarshalPKCS1PrivateKey(rsaKey))},
		"SEC 1":                        {ecKey, pemText("EC PRIVATE KEY", ecDER)},
		"SEC 1 after its parameters":   {ecKey, pemText("EC PARAMETERS", []byte{6, 1, 0}) + pemText("EC PRIVATE KEY", ecDER)},
		"SEC 1 DER":                    {ecKey, string(ecDER)},
		"RSA JWK":                      {rsaKey, jwk(rsaKey)},
		"EC JWK with blanks before it": {ecKey, "\n " + jwk(ecKey)},
	} {
		ciphertext, err := run([]string{file(test.text), wrappingFile})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		raw := must(base64.StdEncoding.DecodeString(ciphertext))
		aesKey := must(rsa.DecryptOAEP(sha256.New(), nil, wrappingKey, raw[:512], nil))
		der := must(must(subtle.NewKWP(aesKey)).Unwrap(raw[512:]))
		opened := must(x509.ParsePKCS8PrivateKey(der))
		if !opened.(interface{ Equal(crypto.PrivateKey) bool }).Equal(test.key) || len(aesKey) != 32 {
			t.Errorf("%s: it opens to another key, with an AES key of %d bytes", name, len(aesKey))
		}
	}

	if kid, err := run([]string{"-kid", file(jwk(ecKey))}); kid != "kid-1" || err != nil {
		t.Errorf("the kid is %q, %v", kid, err)
	}

	for name, arguments := range map[string][]string{
		"no private key in a form": {file("nothing"), wrappingFile},
		"is a public JWK":          {file(jwk(ecKey.Public())), wrappingFile},
		"is JSON, but no JWK":      {file("{}"), wrappingFile},
		"is no JWK with a kid":     {"-kid", file(pemText("EC PRIVATE KEY", ecDER))},
		"usage":                    {file("nothing")},
		"is not what vault read":   {file(pemText("EC PRIVATE KEY", ecDER)), file(pemText("EC PRIVATE KEY", ecDER))},
		"no such file":             {filepath.Join(directory, "absent"), wrappingFile},
	} {
		if output, err := run(arguments); err == nil || output != "" || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %q, %v", name, output, err)
		}
	}
}
