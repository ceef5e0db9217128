// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// drawnPackages are the packages that the drawing of the house shows. The others are told of in the table below it.
var drawnPackages = []string{"rotation", "tokencache", "redox", "privatekey", "gate"}

// houseFiles says whose each file is. The paths may name what they show, so they are no part of the drawing.
var houseFiles = map[string][]string{
	"backend":    {"backend.go"},
	"maintainer": {"maintainer.go", "probes.go", "registration.go", "rests.go"},
	"minter":     {"mint.go", "signer.go", "connections.go", "gates.go"},
	"keyring":    {"keyring.go", "signing_key.go", "clients.go", "jwks.go"},
	"directory":  {"directory.go"},
	"store":      {"store.go", "wrapping_key.go"},
}

// TestHouse holds the drawing in CONTRIBUTING.md against the code: a type has an arrow to each type that one of its fields
// points to, and to each of the packages that its files use, and no others. The backend, which tells of versions, and the
// clock, which the token cache has, are no arrows.
func TestHouse(t *testing.T) {
	code := map[string]bool{"Vault --> backend": true}
	for owner, files := range houseFiles {
		for _, file := range files {
			parsed := must(parser.ParseFile(gotoken.NewFileSet(), file, nil, parser.SkipObjectResolution))
			ast.Inspect(parsed, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					structure, isStruct := n.Type.(*ast.StructType)
					if !isStruct || n.Name.Name != owner {
						return true
					}
					for _, field := range structure.Fields.List {
						if to := pointedTo(field.Type); houseFiles[to] != nil {
							code[owner+" --> "+to] = true
						}
					}
				case *ast.SelectorExpr:
					to, isName := n.X.(*ast.Ident)
					if isName && owner != "backend" && slices.Contains(drawnPackages, to.Name) && n.Sel.Name != "Instant" {
						code[owner+" --> "+to.Name] = true
					}
				}
				return true
			})
		}
	}
	page := string(must(os.ReadFile("CONTRIBUTING.md")))
	_, drawing, found := strings.Cut(page, "```mermaid\n")
	drawing, _, ended := strings.Cut(drawing, "```")
	if !found || !ended {
		t.Fatal("CONTRIBUTING.md has no drawing")
	}
	drawn := map[string]bool{}
	for _, arrow := range regexp.MustCompile(`(?m)^ +(\w+)\S* --> (\w+)`).FindAllStringSubmatch(drawing, -1) {
		drawn[arrow[1]+" --> "+arrow[2]] = true
	}
	if want, got := slices.Sorted(maps.Keys(code)), slices.Sorted(maps.Keys(drawn)); !slices.Equal(want, got) {
		t.Errorf("the drawing has\n%s\nand the code\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// pointedTo returns the name of the type that a pointer to a type of this package points to, empty for other types.
func pointedTo(e ast.Expr) string {
	pointer, ok := e.(*ast.StarExpr)
	if !ok {
		return ""
	}
	name, ok := pointer.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return name.Name
}
