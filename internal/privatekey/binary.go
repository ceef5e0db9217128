// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"encoding/base64"
	"strings"

	"vault-plugin-secrets-redox/internal/pemtext"
)

// binaryForms are forms of keys that are no text, by bytes that are in them, most telling first. Bytes above 0x7f may have
// been lost on the way, so there are none but where they are all there is.
var binaryForms = []struct {
	marks  []string // one of these
	what   string
	toText string // command that reads FILE and writes key.pem
}{
	{[]string{"\xfe\xed\xfe\xed", "\ufffd\x00\x00\x00\x02"}, "a Java keystore",
		"keytool -importkeystore -srckeystore FILE -destkeystore key.p12 -deststoretype PKCS12; openssl pkcs12 -in key.p12 -nocerts -noenc -out key.pem"},
	{[]string{"\r\x01\x07\x01", "\r\x01\x07\x06", "\r\x01\x0c\x0a\x01"}, "PKCS#12", "openssl pkcs12 -in FILE -nocerts -noenc -out key.pem"}, // id-data, id-encryptedData, bag types
	{[]string{"\r\x01\x05\r", "\r\x01\x0c\x01"}, "an encrypted key in DER", "openssl pkey -inform DER -in FILE -out key.pem"},               // PBES2, PKCS#12 PBE
	{[]string{"0\x82", "0\x81", "0\ufffd", "0w\x02\x01", "0t\x02\x01"}, "DER", "openssl pkey -inform DER -in FILE -out key.pem"},            // SEQUENCE
}

// refuseBinary says what binary data are, as far as that can be seen, and how to make text of them. file is what they can be
// read from, before a command that makes it.
func refuseBinary(data, file, before string) error {
	for _, form := range binaryForms {
		for _, mark := range form.marks {
			if strings.Contains(data, mark) && (form.what != "DER" || strings.HasPrefix(data, mark)) {
				return refuse("it is "+form.what+", which is no text", "convert it: "+before+strings.ReplaceAll(form.toText, "FILE", file))
			}
		}
	}
	return refuse("it is binary, and no form of a key that is known here", AcceptedForms)
}

// refuseBase64 says what text is that is nothing but base64, nil when it is not.
func refuseBase64(text string) error {
	const shortest = 64
	compact := strings.Join(strings.Fields(text), "")
	if len(compact) < shortest {
		return nil
	}
	decoded, err := base64.StdEncoding.DecodeString(compact)
	if err != nil {
		if decoded, err = base64.RawURLEncoding.DecodeString(compact); err != nil {
			return nil
		}
	}
	inside := strings.TrimSpace(strings.TrimPrefix(string(decoded), "\ufeff"))
	const decode = "base64 -d KEYFILE > "
	switch {
	case strings.Contains(inside, pemtext.Begin):
		return refuse("it is base64 of a PEM, as in the data of a Kubernetes Secret", "decode it: "+decode+"key.pem")
	case strings.HasPrefix(inside, "{"):
		return refuse("it is base64 of JSON, as in the data of a Kubernetes Secret", "decode it: "+decode+"key.json")
	case strings.HasPrefix(inside, "0"):
		err := refuseBinary(string(decoded), "key.der", decode+"key.der; ").(*InputError)
		return refuse("it is base64 of "+strings.TrimSuffix(strings.TrimPrefix(err.Problem, "it is "), ", which is no text"), err.WayOut)
	}
	return nil
}
