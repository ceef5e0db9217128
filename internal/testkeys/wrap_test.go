// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testkeys

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// The tests' own wrapping does what the RFC's example says.
func TestAESWrapPadded(t *testing.T) {
	unhex := func(text string) []byte { return must(hex.DecodeString(strings.ReplaceAll(text, " ", ""))) }
	got := AESWrapPadded(
		unhex("5840df6e29b02af1 ab493b705bf16ea1 ae8338f4dcc176a8"),
		unhex("c37b7e6492584340 bed1220780894115 5068f738"))
	want := unhex("138bdeaa9b8fa7fc 61f97742e72248ee 5ae6ae5360d1ae6a 5f54f373fa543b6a")
	if !bytes.Equal(got, want) {
		t.Errorf("%x, RFC 5649 section 6 has %x", got, want)
	}
}
