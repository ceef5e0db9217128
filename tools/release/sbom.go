// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes which modules are in the binaries: not those that go.mod names, but those that Go wrote down in each
// binary as linked into it. It has no serial number, which would have to be random.
func (r *release) writeSBOM() error {
	var files []cdx.Component
	modules := map[string]cdx.Component{}
	platforms := map[string][]string{}
	for _, b := range r.builds {
		files = append(files, cdx.Component{
			BOMRef: b.platform(), Type: cdx.ComponentTypeFile, Name: b.platform() + "/" + b.file,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(b.binary))}},
		})
		components := []cdx.Component{module("stdlib", strings.TrimPrefix(b.info.GoVersion, "go"), "")}
		for _, m := range b.info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			components = append(components, module(m.Path, m.Version, m.Sum))
		}
		for _, c := range components {
			modules[c.BOMRef] = c
			platforms[c.BOMRef] = append(platforms[c.BOMRef], b.platform())
		}
	}
	var components []cdx.Component
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		c := modules[ref]
		if in := platforms[ref]; len(in) < len(r.builds) {
			properties := append(*c.Properties, cdx.Property{Name: name + ":only-in", Value: strings.Join(in, " ")})
			c.Properties = &properties
		}
		components = append(components, c)
	}

	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.made.Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: name, Type: cdx.ComponentTypeApplication, Name: name, Version: r.version,
			Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "MPL-2.0"}}},
			Properties: &[]cdx.Property{{Name: name + ":commit", Value: r.commit}},
			Components: &files,
		},
	}
	bom.Components = &components
	var content bytes.Buffer
	if err := cdx.NewBOMEncoder(&content, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return err
	}
	return r.write("_sbom.cdx.json", content.Bytes())
}

// module names a Go module, and Go's standard library as vulnerability scanners call it. The sum is go.sum's.
func module(path, version, sum string) cdx.Component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	properties := []cdx.Property{}
	if sum != "" {
		properties = append(properties, cdx.Property{Name: name + ":go.sum", Value: sum})
	}
	return cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl, Properties: &properties,
	}
}
