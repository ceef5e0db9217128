// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/testkeys"
)

// TestImportCommands: a key in a form that is refused is imported after the command that the refusal prints.
func TestImportCommands(t *testing.T) {
	const password = "-passin pass:secret"
	for _, test := range []struct {
		name string
		make string // command that makes "file" of key.in, a PKCS#8 PEM
		add  string // what somebody types when asked
		key  crypto.Signer
	}{
		{"PKCS#12", "openssl req -x509 -new -key key.in -subj /CN=x -days 1 -out cert.pem; " +
			"openssl pkcs12 -export -inkey key.in -in cert.pem -passout pass:secret -out file", password, testkeys.RSA()},
		{"PKCS#12 in old algorithms", "openssl req -x509 -new -key key.in -subj /CN=x -days 1 -out cert.pem; " +
			"openssl pkcs12 -export -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -inkey key.in -in cert.pem -passout pass:secret -out file", password, testkeys.EC()},
		{"PKCS#8 in DER", "openssl pkcs8 -topk8 -nocrypt -in key.in -outform DER -out file", "", testkeys.EC()},
		{"PKCS#1 in DER", "openssl rsa -in key.in -traditional -outform DER -out file", "", testkeys.RSA()},
		{"SEC 1 in DER", "openssl ec -in key.in -outform DER -out file", "", testkeys.EC()},
		{"encrypted PKCS#8 in DER", "openssl pkcs8 -topk8 -passout pass:secret -in key.in -outform DER -out file", password, testkeys.RSA()},
		{"encrypted PKCS#8", "openssl pkcs8 -topk8 -passout pass:secret -in key.in -out file", password, testkeys.EC()},
		{"encrypted PKCS#1", "openssl rsa -aes256 -traditional -passout pass:secret -in key.in -out file", password, testkeys.RSA()},
		{"OpenSSH, RSA", "cp key.in file; ssh-keygen -q -p -P '' -N '' -f file", "", testkeys.RSA()},
		{"OpenSSH, EC", "cp key.in file; ssh-keygen -q -p -P '' -N '' -f file", "", testkeys.EC()},
		{"base64 of PEM", "base64 -w 0 key.in > file", "", testkeys.RSA()},
		{"base64 of PEM in lines", "base64 key.in > file", "", testkeys.EC()},
		{"base64 of DER", "openssl pkcs8 -topk8 -nocrypt -in key.in -outform DER | base64 > file", "", testkeys.EC()},
		{"base64 of PKCS#12", "openssl req -x509 -new -key key.in -subj /CN=x -days 1 -out cert.pem; " +
			"openssl pkcs12 -export -inkey key.in -in cert.pem -passout pass:secret | base64 > file", password, testkeys.EC()},
		{"UTF-16 from Windows", "printf '\\377\\376' > file; iconv -f UTF-8 -t UTF-16LE key.in >> file", "", testkeys.EC()},
		{"UTF-16, big-endian", "printf '\\376\\377' > file; iconv -f UTF-8 -t UTF-16BE key.in >> file", "", testkeys.RSA()},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			run := func(command string) {
				t.Helper()
				shell := exec.Command("bash", "-ec", command)
				shell.Dir = directory
				if output, err := shell.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", command, err, output)
				}
			}
			read := func(name string) string { return string(must(os.ReadFile(filepath.Join(directory, name)))) }
			must(0, os.WriteFile(filepath.Join(directory, "key.in"), []byte(testkeys.PKCS8(test.key)), 0o600))
			run(test.make)
			m := newMount(t)
			// The CLI sends a file as a JSON string, which can't hold all bytes.
			var brought string
			must(0, json.Unmarshal(must(json.Marshal(read("file"))), &brought))
			refusal := m.refused(logical.UpdateOperation, "keys/main/import", fields{privateKeyField: brought})
			_, command, found := strings.Cut(refusal, ": ") // after the field
			_, command, found2 := strings.Cut(command, ": ")
			if !found || !found2 || !strings.Contains(command, "KEYFILE") {
				t.Fatalf("no command is printed: %s", refusal)
			}
			command = strings.ReplaceAll(command, "KEYFILE", "file")
			if test.add != "" {
				command = strings.Replace(command, " -out ", " "+test.add+" -out ", 1)
			}
			run(command)
			answer := m.write("keys/main/import", fields{privateKeyField: read("key.pem")})
			if answer["kid"] != thumbprint(test.key.Public()) {
				t.Errorf("imported was %v", answer)
			}
		})
	}
}
