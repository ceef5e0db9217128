// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/sandbox"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// TestImportOfFiles: files as people have them, given to the real CLI, which sends a file as a JSON string: also bytes that
// such a string can't hold.
func TestImportOfFiles(t *testing.T) {
	t.Parallel()
	needOpenSSL(t)
	e := newEngine(t, sandbox.Options{})
	directory := t.TempDir()
	for name, key := range map[string]any{"ec": testkeys.EC(), "rsa": testkeys.RSA()} {
		writeFile(t, filepath.Join(directory, name+".pem"), testkeys.PKCS8(key))
	}
	addKey(t, "ec.pem", testkeys.EC())
	addKey(t, "rsa.pem", testkeys.RSA())
	set := map[string]any{"keys": []any{
		testkeys.Changed(testkeys.JWK(testkeys.EC()), map[string]any{"kid": "one"}),
		testkeys.Changed(testkeys.JWK(testkeys.RSA()), map[string]any{"kid": "two"}),
	}}
	for name, value := range map[string]any{"set.json": set, "key.json": testkeys.JWK(testkeys.EC())} {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(directory, name), string(text))
	}
	e.bash(directory, `
sed 's/$/\r/' ec.pem >windows.pem
awk '{printf "%s\\n", $0}' rsa.pem >escaped.pem
printf '\357\273\277' | cat - ec.pem >bom.pem
tr '\n' ' ' <rsa.pem >line.pem
printf '\377\376' >utf16.pem; iconv -f UTF-8 -t UTF-16LE ec.pem >>utf16.pem
openssl pkcs8 -topk8 -nocrypt -in rsa.pem -outform DER -out key.der
base64 <ec.pem >key.b64
openssl req -x509 -new -key ec.pem -subj /CN=test -days 1 -out cert.pem
cat cert.pem ec.pem >both.pem
openssl pkcs12 -export -inkey ec.pem -in cert.pem -passout pass:secret -out key.p12
`)
	for file, refusal := range map[string]string{
		"windows.pem": "", "escaped.pem": "", "bom.pem": "", "line.pem": "", "both.pem": "", "key.json": "",
		"utf16.pem": "iconv -f UTF-16 -t UTF-8 KEYFILE", "key.der": "openssl pkey -inform DER -in KEYFILE", "key.b64": "base64 -d KEYFILE",
		"key.p12": "openssl pkcs12 -in KEYFILE", "cert.pem": "it is a certificate", "set.json": "choose one with kid=KID",
	} {
		at := e.at("keys/" + strings.ReplaceAll(file, ".", "-"))
		r := e.try("write", at+"/import", "private_key=@"+filepath.Join(directory, file), "deletion_allowed=true")
		if refusal == "" && r.code != 0 || refusal != "" && (r.code == 0 || !strings.Contains(r.stderr, refusal)) {
			t.Errorf("%s: %d: %s%s", file, r.code, r.stdout, r.stderr)
		}
		if refusal == "" {
			if lines := strings.Count(r.stdout, "\n"); lines > 40 {
				t.Errorf("the answer to %s takes %d lines", file, lines)
			}
			e.must("delete", at)
		}
	}
	e.must("write", e.at("keys/chosen/import"), "private_key=@"+filepath.Join(directory, "set.json"), "kid=two")
	if data := e.data("read", e.at("keys/chosen")); data["kid"] != "two" || data["algorithm"] != "RS384" {
		t.Errorf("chosen is %v", data)
	}
	r := e.try("write", e.at("keys/other/import"), "@"+filepath.Join(directory, "key.json"))
	if r.code == 0 || !strings.Contains(r.stderr, "private_key=@key.json") {
		t.Errorf("a JWK as fields: %d: %s", r.code, r.stderr)
	}
}
