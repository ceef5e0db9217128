// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFilesOfTheWorld: files as people have met them: sample keys of standards, keys from reports about other programs. All are
// published test keys, and nobody's credentials.
func TestFilesOfTheWorld(t *testing.T) {
	const folder = "testdata/keys"
	for name, test := range map[string]struct {
		kid  string // of a key that is read
		says string // of a refusal
	}{
		"smart-RS384.private.json":                        {kid: "eee9f17a3b598fd86417a980b591fbe6"},
		"inferno-smart_jwks.json":                         {says: "a JWK Set with 2 private keys, whose kids are "},
		"dotnet-identitymodel_2254_empty_arrays.jwk.json": {kid: "*"},
		"dotnet-null_use_only.jwk.json":                   {kid: "*"},
		"minimal-jsrsasign_96_mkjwk.jwk.json":             {kid: "*"},
		"pem-04_literal_backslash_n.pem":                  {},
		"pem-06_one_line_spaces.pem":                      {},
		"pem-08_indented.pem":                             {},
		"pem-12_base64_of_pem.b64":                        {says: "it is base64 of a PEM"},
		"pem-13_utf8_bom.pem":                             {},
		"pem-14_utf16le_bom.pem.base64":                   {says: "UTF-16"},
		"pem-30_key.p12.base64":                           {says: "it is PKCS#12"},
		"pem-31_bag_attributes.pem":                       {},
		"pem-33_cert_then_key.pem":                        {},
		"pem-35_key.der.b64":                              {says: "it is base64 of DER"},
		"pem-41_rsa_e_2pow32_plus_1.pem":                  {says: "public exponent is 4294967297"},
		"pem-43_pkcs1_crt_zero_bouncycastle.pem":          {},
		"pem-44_pkcs1_body_in_pkcs8_label.pem":            {},
		"pem-52_openssl_rsa_pss.pem":                      {says: "RSA-PSS"},
		"pem-60_ec_short_x_padded.jwk.json":               {kid: "*"},
		"pem-70_kid_cyrillic.jwk.json":                    {kid: "*"}, // the import refuses the kid, and names kid=
		"pem-72_duplicate_kid.jwk.json":                   {says: "the JWK has a member twice"},
		"wycheproof-roca_as_RS384.jwk.json":               {says: "CVE-2017-15361"},
	} {
		t.Run(name, func(t *testing.T) {
			text := string(must(os.ReadFile(filepath.Join(folder, name))))
			if strings.HasSuffix(name, ".base64") { // a binary file
				text = string(must(base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))))
			}
			for _, input := range []string{text, strings.ToValidUTF8(text, "\ufffd")} { // as a file, and as the CLI sends it
				key, kid, err := Parse(input, "")
				if test.says != "" {
					checkRefusal(t, err)
					if !strings.Contains(err.Error(), test.says) {
						t.Errorf("refused with: %s", err)
					}
					continue
				}
				if err != nil || key == nil {
					t.Fatal(err)
				}
				if kid != test.kid && test.kid != "*" {
					t.Errorf("the kid is %q", kid)
				}
			}
		})
	}
	if files := must(os.ReadDir(folder)); len(files) != 23 {
		t.Errorf("there are %d files", len(files))
	}
}
