// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package privatekey

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/pemtext"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// harmless are changes of a text that leave no doubt about the key in it.
var harmless = []func(*rand.Rand, string) string{
	func(_ *rand.Rand, s string) string { return "\ufeff" + s },
	func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
	func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "\n", "\r") },
	func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "\n", " ") },
	func(_ *rand.Rand, s string) string { return strings.ReplaceAll(s, "\n", "\n  ") },
	func(_ *rand.Rand, s string) string { return "'" + s + "'" },
	func(_ *rand.Rand, s string) string { return string(must(json.Marshal(s))) },
	func(_ *rand.Rand, s string) string { return "\n\t " + s + " \n\n" },
	func(r *rand.Rand, s string) string { // other text around PEM, other order of members of a JWK
		if strings.Contains(s, pemtext.Begin) {
			return "friendlyName: key\n" + s + "\nthe end\n"
		}
		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(s), &members) != nil {
			return s // it is in quotes by now
		}
		var parts []string
		for name, value := range members {
			parts = append(parts, fmt.Sprintf("%q: %s", name, value))
		}
		slices.Sort(parts)
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		return "{" + strings.Join(parts, ",\n") + "}"
	},
}

// TestHarmlessDamage: whatever harmless happens to a key's text, also several things, it is the same key.
func TestHarmlessDamage(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, algorithm := range Algorithms() {
		key := must(Generate(algorithm, 2048))
		members, err := json.Marshal(testkeys.JWK(key.signer))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{testkeys.PKCS8(key.signer), string(members)} {
			for range 200 {
				damaged := text
				for range 1 + random.IntN(3) {
					damaged = harmless[random.IntN(len(harmless))](random, damaged)
				}
				read, _, err := Parse(damaged, "")
				if err != nil || !same(read, key) {
					t.Fatalf("%s: %v", algorithm, err)
				}
			}
		}
	}
}

// TestChangedByte: with one character of the base64 changed, a key is refused, or is the same; the refusal holds nothing of it.
func TestChangedByte(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
	random := rand.New(rand.NewPCG(3, 4))
	for _, algorithm := range Algorithms() {
		key := must(Generate(algorithm, 2048))
		scanner := leakcheck.New()
		if err := scanner.AddKey("changed", key.signer); err != nil {
			t.Fatal(err)
		}
		members, err := json.Marshal(testkeys.JWK(key.signer))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{testkeys.PKCS8(key.signer), string(members)} {
			for range 300 {
				changed := []byte(text)
				at := random.IntN(len(changed))
				if !strings.ContainsRune(alphabet, rune(changed[at])) {
					continue
				}
				changed[at] = alphabet[random.IntN(len(alphabet))]
				read, _, err := Parse(string(changed), "")
				if err == nil && !same(read, key) {
					t.Fatalf("%s: another key was read, with byte %d changed", algorithm, at)
				}
				if err != nil {
					checkRefusal(t, err)
					if found := scanner.Scan([]byte(err.Error())); len(found) > 0 {
						t.Fatalf("the refusal holds %v", found)
					}
				}
			}
		}
	}
}

// TestChosenKID: kid chooses in a set with several private keys.
func TestChosenKID(t *testing.T) {
	with := func(members map[string]any, kid string) map[string]any {
		return testkeys.Changed(members, map[string]any{"kid": kid})
	}
	set := inputText(map[string]any{"keys": []any{
		with(testkeys.JWK(testkeys.RSA()), "one"), with(testkeys.JWK(testkeys.EC()), "two"), with(testkeys.JWK(testkeys.OtherEC()), "two"),
	}})
	key, kid, err := Parse(set, "one")
	if err != nil || kid != "one" || !same(key, must(newKey(testkeys.RSA()))) {
		t.Errorf("chose kid %q, %v", kid, err)
	}
	for _, chosen := range []string{"", "three", "two"} {
		if _, _, err := Parse(set, chosen); err == nil {
			t.Errorf("kid %q chooses a key", chosen)
		}
	}
	if _, kid, err := Parse(inputText(with(testkeys.JWK(testkeys.EC()), "own")), "another"); err != nil || kid != "own" {
		t.Errorf("of a single key the kid is %q, %v", kid, err)
	}
}
