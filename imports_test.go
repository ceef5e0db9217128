// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// keyPackages are not looked into: the package that touches the bytes of private keys, and test helpers, which only
// tests and the exceptions below may import.
var keyPackages = map[string]string{
	"internal/privatekey": "it is the one that may",
	"internal/leakcheck":  "it searches what tests made the engine say for the keys of the tests",
	"internal/testkeys":   "it makes keys for tests to bring",
}

var (
	// keyImports are packages that hold, parse or encode private keys, or that see through the types that hide them.
	keyImports = regexp.MustCompile(`^(crypto/(rsa|ecdsa|ed25519|ecdh|dsa|x509|hpke|ml.*)|encoding/asn1|unsafe|` +
		`golang\.org/x/crypto/.*|github\.com/tink-crypto/.*|github\.com/go-jose/.*|.*/internal/(leakcheck|testkeys))$`)
	// keySelectors are names, of any package, that make or parse private keys, encode them, or are their types.
	keySelectors = regexp.MustCompile(`PrivateKey|GenerateKey|NewKeyFrom|X509KeyPair|ParsePKCS(1|8)|PKCS12|DecryptPEM|JSONWebKey`)
)

// keyExceptions are what other packages may use of this, and why they do not get at a key of the engine with it.
var keyExceptions = []struct {
	directory string
	uses      []string
	reason    string
}{
	{"internal/jwk", []string{"crypto/ecdsa", "crypto/rsa", "crypto/x509"},
		"it describes public keys"},
	{"internal/redox", []string{"crypto/x509"},
		"it trusts a pool of CA certificates, and explains why a certificate is not trusted"},
	{"internal/sandbox", []string{"crypto/ecdsa", "crypto/rsa", "crypto/x509", "github.com/go-jose/go-jose/v4",
		"crypto/ecdsa.GenerateKey", "github.com/go-jose/go-jose/v4.JSONWebKey"},
		"it is the local Redox: it verifies with public keys, and has a throw-away certificate"},
	{"cmd/redox-sandbox", []string{"crypto/x509"},
		"it is the local Redox: it writes that certificate"},
	{"test/soak", []string{"vault-plugin-secrets-redox/internal/leakcheck"},
		"it searches for keys in what the engine says"},
	{"examples/wrap-key", []string{"crypto/rsa", "crypto/x509", "github.com/go-jose/go-jose/v4",
		"github.com/tink-crypto/tink-go/v2/kwp/subtle", "github.com/go-jose/go-jose/v4.JSONWebKey",
		"crypto/x509.MarshalPKCS8PrivateKey", "crypto/x509.ParsePKCS8PrivateKey", "crypto/x509.ParsePKCS1PrivateKey",
		"crypto/x509.ParseECPrivateKey"},
		"it is a program for users, who wrap a key of theirs with it before Vault sees it"},
}

// TestOnePackageTouchesPrivateKeys: no program of this module, and no package of it but internal/privatekey, uses what it
// takes to get at the bytes of a private key. An exception that is not needed any more has to go.
func TestOnePackageTouchesPrivateKeys(t *testing.T) {
	unneeded := map[string]map[string]bool{} // by directory
	for _, exception := range keyExceptions {
		unneeded[exception.directory] = map[string]bool{}
		for _, use := range exception.uses {
			unneeded[exception.directory][use] = true
		}
		if exception.reason == "" {
			t.Errorf("the exception for %s has no reason", exception.directory)
		}
	}
	allowed := maps.Clone(unneeded)
	for directory := range allowed {
		allowed[directory] = maps.Clone(unneeded[directory])
	}
	packages, touching := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != "." && (strings.HasPrefix(entry.Name(), ".") || file == "tools" || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir(), filepath.Ext(file) != ".go", strings.HasSuffix(file, "_test.go"):
			return nil
		}
		directory := filepath.ToSlash(filepath.Dir(file))
		packages[directory] = true
		uses := keyUses(t, file)
		if keyPackages[directory] != "" {
			if len(uses) > 0 {
				touching[directory] = true
			}
			return nil
		}
		for use, where := range uses {
			if delete(unneeded[directory], use); !allowed[directory][use] {
				t.Errorf("%s uses %s: what touches private keys belongs into internal/privatekey", where, use)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for directory := range keyPackages {
		if !touching[directory] {
			t.Errorf("%s touches no private keys: look into it, too", directory)
		}
	}
	if !packages["."] || len(packages) < 10 {
		t.Errorf("only %v were looked at", slices.Sorted(maps.Keys(packages)))
	}
	for directory, uses := range unneeded {
		for use := range uses {
			t.Errorf("%s does not use %s: take the exception out", directory, use)
		}
	}
}

// keyUses returns the imports and selectors in a file that have to do with private keys, each with a place where it is.
func keyUses(t *testing.T, file string) map[string]string {
	t.Helper()
	files := gotoken.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	uses, imported := map[string]string{}, map[string]string{}
	where := func(node ast.Node) string { return files.Position(node.Pos()).String() }
	for _, spec := range parsed.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if keyImports.MatchString(target) {
			uses[target] = where(spec)
		}
		name := importName(target)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if name == "." {
			t.Errorf("%s: an import into the file's own names can't be looked through", where(spec))
		}
		imported[name] = target
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok || !keySelectors.MatchString(selector.Sel.Name) {
			return true
		}
		if qualifier, ok := selector.X.(*ast.Ident); ok && imported[qualifier.Name] != "" {
			uses[imported[qualifier.Name]+"."+selector.Sel.Name] = where(selector)
		}
		return true
	})
	return uses
}

// importName returns the name that a package has where it is imported without one.
func importName(target string) string {
	name := path.Base(target)
	if regexp.MustCompile(`^v\d+$`).MatchString(name) {
		name = path.Base(path.Dir(target))
	}
	return strings.TrimPrefix(name, "go-")
}
