// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"hash"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"vault-plugin-secrets-redox/internal/leakcheck"
	"vault-plugin-secrets-redox/internal/testkeys"
)

// wrappingKeyGolden is the entry as version 2 of the schema stores it, with a throw-away key. It is never rewritten.
const wrappingKeyGolden = "testdata/entries/v2-wrapping-key.json"

var (
	goldenWrappingKey = once(func() (*rsa.PrivateKey, error) {
		text, err := os.ReadFile(wrappingKeyGolden)
		return storedWrappingKey(string(text)), err
	})
	otherWrappingKey = once(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, wrappingKeyBits) })
)

// storedWrappingKey takes the key out of a stored entry.
func storedWrappingKey(entry string) *rsa.PrivateKey {
	var stored struct {
		PrivateKey []byte `json:"private_key"`
	}
	if err := json.Unmarshal([]byte(entry), &stored); err != nil {
		panic(err)
	}
	return must(x509.ParsePKCS8PrivateKey(stored.PrivateKey)).(*rsa.PrivateKey)
}

// wrappingKeyEntry is a key in the form of a stored wrapping key.
func wrappingKeyEntry(key crypto.PrivateKey) string {
	return string(must(json.Marshal(fields{
		"schema_version": storageSchemaVersion, "private_key": must(x509.MarshalPKCS8PrivateKey(key)),
	})))
}

// newWrappingMount is newMount with a wrapping key, which is searched for in the output, too.
func newWrappingMount(t testing.TB) *mount {
	t.Helper()
	m := newMount(t)
	m.plant(wrappingKeyStorage, string(must(os.ReadFile(wrappingKeyGolden))))
	t.Cleanup(func() { m.searchForWrappingKey(goldenWrappingKey()) })
	return m
}

// searchForWrappingKey looks for the wrapping key in answers, log, and every stored entry but its own.
func (m *mount) searchForWrappingKey(key *rsa.PrivateKey) {
	m.t.Helper()
	scanner := leakcheck.New()
	if err := scanner.AddKey("wrapping", key); err != nil {
		m.t.Fatal(err)
	}
	places := map[string][]byte{"answers": m.output.bytes(), "log": m.log.bytes()}
	for _, stored := range m.storage.written() {
		if stored.Key != wrappingKeyStorage {
			places["stored entry "+stored.Key] = stored.Value
		}
	}
	for place, text := range places {
		if found := scanner.Scan(text); len(found) > 0 {
			m.t.Errorf("the %s holds %v", place, found)
		}
	}
}

// readWrappingKey reads the wrapping key as a tool for Vault's transit engine does.
func (m *mount) readWrappingKey() *rsa.PublicKey {
	m.t.Helper()
	text, _ := m.read("wrapping_key")["public_key"].(string)
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		m.t.Fatalf("the wrapping key is no PEM public key: %q", text)
	}
	return must(x509.ParsePKIXPublicKey(block.Bytes)).(*rsa.PublicKey)
}

func TestWrappingKey(t *testing.T) {
	m := newMount(t)
	first := m.readWrappingKey()
	if first.N.BitLen() != 4096 || first.E != 65537 {
		t.Errorf("the wrapping key has %d bits and exponent %d", first.N.BitLen(), first.E)
	}
	stored := m.storage.snapshot()
	private := storedWrappingKey(stored[wrappingKeyStorage])
	if !private.PublicKey.Equal(first) {
		t.Error("another key is stored than read")
	}
	want := members(t, string(must(os.ReadFile(wrappingKeyGolden))))
	if got := members(t, stored[wrappingKeyStorage]); !slices.Equal(got, want) {
		t.Errorf("the entry has %v, but %s has %v", got, wrappingKeyGolden, want)
	}
	ciphertext := testkeys.Wrapped(sha256.New, first, must(x509.MarshalPKCS8PrivateKey(outsideEC())))

	m.restart()
	if !m.readWrappingKey().Equal(first) || !maps.Equal(stored, m.storage.snapshot()) {
		t.Error("there is another wrapping key after a restart")
	}
	answer := m.write("keys/main/import", fields{"ciphertext": ciphertext})
	if answer["kid"] != thumbprint(outsideEC().Public()) {
		t.Errorf("imported was %v", answer)
	}
	m.searchForWrappingKey(private)
}

// Both make a key, and both are given the one that is stored.
func TestConcurrentFirstReadsOfTheWrappingKey(t *testing.T) {
	m := newMount(t)
	var mu sync.Mutex
	gets, puts := 0, 0
	bothHaveLooked := make(chan struct{})
	m.storage.onEach(func(operation, key string) error {
		if key != wrappingKeyStorage {
			return nil
		}
		mu.Lock()
		if operation == "put" {
			puts++
		} else if gets++; gets == 2 {
			close(bothHaveLooked)
		}
		mu.Unlock()
		<-bothHaveLooked
		return nil
	})
	answers := make(chan *rsa.PublicKey)
	for range 2 {
		go func() {
			response, err := m.request(logical.ReadOperation, "wrapping_key", nil)
			if err != nil {
				t.Error(err)
				answers <- nil
				return
			}
			block, _ := pem.Decode([]byte(response.Data["public_key"].(string)))
			answers <- must(x509.ParsePKIXPublicKey(block.Bytes)).(*rsa.PublicKey)
		}()
	}
	first, second := <-answers, <-answers
	m.storage.onEach(nil)
	stored := storedWrappingKey(m.storage.snapshot()[wrappingKeyStorage])
	if puts != 1 || !stored.PublicKey.Equal(first) || !stored.PublicKey.Equal(second) {
		t.Errorf("%d keys were stored, and the two answers are not both the one that is", puts)
	}
}

// TestWrappingKeyRotation: the wrapping key is replaced, and the former one opens imports for an hour; then it is deleted. A
// clock that was ahead does not keep it for longer, and of two rotations only the last one's is kept.
func TestWrappingKeyRotation(t *testing.T) {
	der := must(x509.MarshalPKCS8PrivateKey(outsideEC()))
	m := newWrappingMount(t)
	first := m.readWrappingKey()
	wrapped := testkeys.Wrapped(sha256.New, first, der)
	imports := func(ciphertext string, works bool) {
		t.Helper()
		if !works {
			m.refusedWith(logical.UpdateOperation, "keys/main/import", fields{"ciphertext": ciphertext}, "ciphertext", "it can't be unwrapped")
			return
		}
		m.write("keys/main/import", fields{"ciphertext": ciphertext, "deletion_allowed": true})
		m.remove("keys/main")
	}
	formerStored := func() bool { return strings.Contains(m.storage.snapshot()[wrappingKeyStorage], "former_private_key") }

	answer := m.write("wrapping_key/rotate", nil)
	if want := formatTime(m.clock.wall().Add(time.Hour)); answer["former_expire_time"] != want {
		t.Errorf("the former one ends at %v, want %s", answer["former_expire_time"], want)
	}
	m.passNow()
	m.restart()
	second := m.readWrappingKey()
	if second.Equal(first) || m.read("wrapping_key")["former_expire_time"] != answer["former_expire_time"] {
		t.Error("it was not replaced")
	}
	wrappedAnew := testkeys.Wrapped(sha256.New, second, der)
	imports(wrapped, true)
	imports(wrappedAnew, true)
	m.clock.advance(time.Hour - time.Second)
	m.passNow()
	imports(wrapped, true)
	m.clock.advance(time.Second)
	imports(wrapped, false)
	if answer := m.read("wrapping_key"); answer["former_expire_time"] != nil {
		t.Errorf("an hour later it is shown with %v", answer)
	}
	if !formerStored() {
		t.Fatal("this test is to see it deleted")
	}
	reads := m.storage.readCount()
	m.passNow()
	if formerStored() {
		t.Error("an hour later the former key is stored still")
	}
	m.passNow()
	afterDeletion := m.storage.readCount()
	m.passNow()
	if again := m.storage.readCount() - afterDeletion; again >= afterDeletion-reads {
		t.Errorf("a pass with nothing to do reads %d times", again)
	}
	imports(wrappedAnew, true)

	m.clock.advance(time.Hour) // which is taken back below, as a clock that was ahead is
	m.write("wrapping_key/rotate", nil)
	m.clock.advance(-time.Hour)
	imports(wrappedAnew, false)
	m.passNow()
	if formerStored() {
		t.Error("a time that lies ahead keeps the former key")
	}
	third := m.readWrappingKey()
	m.write("wrapping_key/rotate", nil)
	m.write("wrapping_key/rotate", nil)
	imports(testkeys.Wrapped(sha256.New, third, der), false)
	imports(testkeys.Wrapped(sha256.New, m.readWrappingKey(), der), true)
	m.remove("wrapping_key")
	if m.storage.snapshot()[wrappingKeyStorage] != "" {
		t.Error("a deleted wrapping key is stored still")
	}
	m.write("wrapping_key/rotate", nil)
	if formerStored() {
		t.Error("the first wrapping key has a former one")
	}
}

// TestFormerWrappingKeyStays: where storage refuses, that is told, and tried again.
func TestFormerWrappingKeyStays(t *testing.T) {
	m := newWrappingMount(t)
	m.write("wrapping_key/rotate", nil)
	m.clock.advance(time.Hour)
	m.storage.onEach(func(operation, key string) error {
		if operation == "put" && key == wrappingKeyStorage {
			return errors.New("refused")
		}
		return nil
	})
	m.passNow()
	m.storage.onEach(nil)
	if !strings.Contains(m.log.String(), "the former wrapping key can't be deleted") {
		t.Error("the log does not tell of it")
	}
	m.passNow()
	if strings.Contains(m.storage.snapshot()[wrappingKeyStorage], "former_private_key") {
		t.Error("it is not tried again")
	}
}

// A former wrapping key that can't be read does not make the present one unusable.
func TestUnreadableFormerWrappingKey(t *testing.T) {
	m := newWrappingMount(t)
	public := m.readWrappingKey()
	entry := m.storage.snapshot()[wrappingKeyStorage]
	m.plant(wrappingKeyStorage, strings.Replace(entry, `{"schema_version":2,`,
		`{"schema_version":2,"former_private_key":"AAAA","replaced_time":"`+formatTime(m.clock.wall())+`",`, 1))
	if !m.readWrappingKey().Equal(public) {
		t.Error("another wrapping key is read")
	}
	m.write("keys/main/import", fields{"ciphertext": testkeys.Wrapped(sha256.New, public, must(x509.MarshalPKCS8PrivateKey(outsideEC())))})
}

// Where nothing may be written, the request goes to where it may, before seconds are spent on a key.
func TestWrappingKeyIsForwarded(t *testing.T) {
	for _, state := range []consts.ReplicationState{
		consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary,
	} {
		m := newMount(t)
		m.system.ReplicationStateVal = state
		m.restart()
		if _, err := m.failed(logical.ReadOperation, "wrapping_key", nil); err != logical.ErrReadOnly {
			t.Errorf("gave %v", err)
		}
		if reads := m.storage.readCount(); reads != 0 {
			t.Errorf("storage was read %d times first", reads)
		}
	}
}

// A failure of storage goes back as it is, and neither makes a second key nor loses the first.
func TestFailingStorageOfTheWrappingKey(t *testing.T) {
	broken := errors.New("storage is broken")
	der := must(x509.MarshalPKCS8PrivateKey(outsideEC()))
	requests := map[string]struct {
		storageRequest
		operations int
		entry      string
	}{
		"first read": {storageRequest{logical.ReadOperation, "wrapping_key", nil}, 3, ""},
		"read":       {storageRequest{logical.ReadOperation, "wrapping_key", nil}, 1, wrappingKeyEntry(goldenWrappingKey())},
		"import": {storageRequest{logical.UpdateOperation, "keys/main/import",
			fields{"ciphertext": testkeys.Wrapped(sha256.New, &goldenWrappingKey().PublicKey, der)}}, 4,
			wrappingKeyEntry(goldenWrappingKey())},
	}
	for name, r := range requests {
		m := newMount(t)
		if r.entry != "" {
			m.plant(wrappingKeyStorage, r.entry)
		}
		before := m.storage.snapshot()
		for failing := 1; failing <= r.operations; failing++ {
			operations := 0
			m.storage.onEach(func(string, string) error {
				if operations++; operations == failing {
					return broken
				}
				return nil
			})
			if _, err := m.failed(r.operation, r.path, r.data); err != broken {
				t.Errorf("%s with a failure of storage operation %d gave %v", name, failing, err)
			}
			if !maps.Equal(before, m.storage.snapshot()) {
				t.Errorf("%s failed at storage operation %d, but storage has changed", name, failing)
			}
		}
		m.storage.onEach(nil)
		m.answered(r.operation, r.path, r.data)
	}
}

// A wrapping key that can't be used is never replaced: keys may be on their way that are wrapped under it.
func TestUnusableWrappingKeys(t *testing.T) {
	const newer = "was written by a newer version of this plugin (schema 3, this one knows 2)"
	const unreadable = "is unreadable; restore it"
	m := newWrappingMount(t)
	good := wrappingKeyEntry(goldenWrappingKey())
	ciphertext := testkeys.Wrapped(sha256.New, &goldenWrappingKey().PublicKey, must(x509.MarshalPKCS8PrivateKey(outsideEC())))
	for broken, says := range map[string]string{
		strings.Replace(good, `"schema_version":2`, `"schema_version":3`, 1): newer,
		strings.Replace(good, `"schema_version":2`, `"schema_version":0`, 1): unreadable,
		good[:len(good)/2]:             unreadable,
		`{"schema_version":1}`:         unreadable,
		misplaced:                      unreadable,
		wrappingKeyEntry(outsideRSA()): unreadable, // too short for what transit's tools send
		wrappingKeyEntry(outsideEC()):  unreadable,
		`{"schema_version":1,"private_key":"` + misplaced + `"}`: unreadable,
	} {
		m.plant(wrappingKeyStorage, broken)
		for _, r := range []storageRequest{
			{logical.ReadOperation, "wrapping_key", nil},
			{logical.UpdateOperation, "keys/main/import", fields{"ciphertext": ciphertext}},
		} {
			status, err := m.failed(r.operation, r.path, r.data)
			if status != http.StatusInternalServerError || !strings.Contains(err.Error(), `"wrapping_key" `+says) {
				t.Errorf("%s with %.40s failed with %d %q", r.path, broken, status, err)
			}
		}
		if m.storage.snapshot()[wrappingKeyStorage] != broken {
			t.Errorf("the entry %.40s was replaced", broken)
		}
	}
	m.write("keys/clear/import", fields{"private_key": pkcs8Text(outsideEC())}) // needs no wrapping key
	m.plant(wrappingKeyStorage, good)
	m.write("keys/main/import", fields{"ciphertext": testkeys.Wrapped(sha256.New, &goldenWrappingKey().PublicKey,
		must(x509.MarshalPKCS8PrivateKey(otherOutsideEC())))})
}

func TestWrappedImport(t *testing.T) {
	under := &goldenWrappingKey().PublicKey
	for algorithm, key := range map[string]crypto.Signer{algorithmRS384: outsideRSA(), algorithmES384: outsideEC()} {
		der := must(x509.MarshalPKCS8PrivateKey(key))
		for name, newHash := range map[any]func() hash.Hash{
			"SHA1": sha1.New, "SHA224": sha256.New224, "SHA256": sha256.New, "SHA384": sha512.New384, "SHA512": sha512.New,
			"sha1": sha1.New, "Sha384": sha512.New384, "SHA-256": sha256.New, "sha-512": sha512.New, // as people write them
			"": sha256.New, nil: sha256.New,
		} {
			m := newWrappingMount(t)
			response, err := m.request(logical.UpdateOperation, "keys/main/import",
				fields{"ciphertext": testkeys.Wrapped(newHash, under, der), "hash_function": name})
			if err != nil || response.IsError() {
				t.Fatalf("%s with %v: %v %v", algorithm, name, response, err)
			}
			public := publicKey(t, response.Data).(interface{ Equal(crypto.PublicKey) bool })
			if !public.Equal(key.Public()) || response.Data["algorithm"] != algorithm {
				t.Errorf("%s with %v: another key was imported: %v", algorithm, name, response.Data)
			}
			if response.Data["kid"] != thumbprint(key.Public()) {
				t.Errorf("the kid is %v", response.Data["kid"])
			}
			if version := m.versions("main")["1"].(map[string]any); version["imported"] != true {
				t.Errorf("the version is %v", version)
			}
			if warnings := strings.Join(response.Warnings, "\n"); !strings.Contains(warnings, "lived outside Vault") {
				t.Errorf("the answer does not warn of copies: %q", warnings)
			}
		}
	}

	// The default, other fields, and base64 with line breaks, as openssl writes it.
	m := newWrappingMount(t)
	lines := " "
	oneLine := testkeys.Wrapped(sha256.New, under, must(x509.MarshalPKCS8PrivateKey(outsideEC())))
	for part := range slices.Chunk([]byte(oneLine), 64) {
		lines += string(part) + "\n"
	}
	answer := m.write("keys/main/import", fields{
		"ciphertext": lines, "private_key": "", "kid": "kid-1", "deletion_allowed": true,
	})
	if answer["kid"] != "kid-1" || answer["deletion_allowed"] != true {
		t.Errorf("answered %v", answer)
	}
	m.restart()
	m.write("config", fields{"client_id": "client-1", "key": "main"})
	verified(t, m.write("assertion", nil)["client_assertion"].(string), m.publishedKey("kid-1"))
}

// Whether a key comes wrapped or as PEM makes no difference to what is imported, and to what is said of it.
func TestWrappedKeysAreCheckedLikeKeysInClear(t *testing.T) {
	m := newWrappingMount(t)
	imported, refused := 0, 0
	for _, test := range slices.Concat(testkeys.Importable(), testkeys.Refusable()) {
		text, _ := test.Input.(string)
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "PRIVATE KEY" || len(block.Bytes) == 0 || strings.Contains(test.Name, "called PKCS#8") || strings.Count(text, "BEGIN") > 1 ||
			!strings.HasPrefix(text, "-----BEGIN") || len(bytes.TrimSpace(rest)) > 0 {
			continue // what is wrong with it, or the form, is not in the key
		}
		data := fields{"ciphertext": testkeys.Wrapped(sha256.New, &goldenWrappingKey().PublicKey, block.Bytes), "kid": test.Name}
		path := "keys/" + strings.NewReplacer(" ", "-", "#", "", ",", "", "'", "", "^", "", "+", "").Replace(test.Name) + "/import"
		if test.Want == "" {
			public := publicKey(t, m.write(path, data)).(interface{ Equal(crypto.PublicKey) bool })
			if !public.Equal(test.Key.Public()) {
				t.Errorf("%s: another key was imported", test.Name)
			}
			imported++
			continue
		}
		if test.Key != nil {
			if err := m.scanner.AddKey("refused", test.Key); err != nil {
				t.Fatal(err)
			}
		}
		want := test.Want
		if test.Name == "cut DER" || test.Name == "PKCS#1 called PKCS#8" {
			want = "what was wrapped is not PKCS#8 DER; wrap what this writes: openssl pkcs8"
		}
		m.refusedWith(logical.UpdateOperation, path, data, "ciphertext: ", want)
		refused++
	}
	if imported < 3 || refused < 9 {
		t.Errorf("only %d keys were imported and %d refused", imported, refused)
	}
}

func TestWrappedImportRefusals(t *testing.T) {
	under, key := &goldenWrappingKey().PublicKey, outsideEC()
	der := must(x509.MarshalPKCS8PrivateKey(key))
	aesKey := testkeys.Random(32)
	first, second := testkeys.OAEP(sha256.New, under, aesKey), testkeys.AESWrapPadded(aesKey, der)
	good := slices.Concat(first, second)
	encoded := base64.StdEncoding.EncodeToString
	flipped := func(i int) []byte {
		changed := bytes.Clone(good)
		changed[(i+len(changed))%len(changed)] ^= 1
		return changed
	}
	withAESKey := func(aesKey []byte) []byte {
		wrapKey := aesKey
		if _, err := aes.NewCipher(wrapKey); err != nil {
			wrapKey = make([]byte, 32)
		}
		return slices.Concat(testkeys.OAEP(sha256.New, under, aesKey), testkeys.AESWrapPadded(wrapKey, der))
	}
	withBlocks := func(iv, blocks []byte) []byte { return slices.Concat(first, testkeys.AESWrap(aesKey, iv, blocks)) }
	dirty := testkeys.Padded(der)
	dirty[len(dirty)-1] = 1
	if len(der)%8 == 0 {
		t.Fatal("the key needs no padding")
	}
	outside := &otherWrappingKey().PublicKey
	labeled := must(rsa.EncryptOAEP(sha256.New(), rand.Reader, under, aesKey, []byte("label")))
	otherIV := append([]byte{0xA6, 0x59, 0x59, 0xA7}, testkeys.AlternativeIV(len(der))[4:]...)
	modulus := under.N.FillBytes(make([]byte, 512))

	// All of them are refused with the very same words.
	const cantUnwrap = "ciphertext: it can't be unwrapped; wrap the key again: read wrapping_key for the public key of " +
		"this mount, and give hash_function if the AES key was encrypted with another hash than SHA256"
	m := newWrappingMount(t)
	if err := m.scanner.AddKey("refused", key); err != nil {
		t.Fatal(err)
	}
	for name, ciphertext := range map[string][]byte{
		"under another wrapping key":   slices.Concat(testkeys.OAEP(sha256.New, outside, aesKey), second),
		"under a short wrapping key":   slices.Concat(testkeys.OAEP(sha256.New, &outsideRSA().PublicKey, aesKey), second),
		"hash SHA1":                    slices.Concat(testkeys.OAEP(sha1.New, under, aesKey), second),
		"hash SHA224":                  slices.Concat(testkeys.OAEP(sha256.New224, under, aesKey), second),
		"hash SHA512":                  slices.Concat(testkeys.OAEP(sha512.New, under, aesKey), second),
		"OAEP with a label":            slices.Concat(labeled, second),
		"PKCS#1 v1.5 in place of OAEP": slices.Concat(must(rsa.EncryptPKCS1v15(rand.Reader, under, aesKey)), second),
		"zeros in place of OAEP":       slices.Concat(make([]byte, 512), second),
		"the modulus in place of OAEP": slices.Concat(modulus, second),
		"AES-128":                      withAESKey(aesKey[:16]),
		"AES-192":                      withAESKey(aesKey[:24]),
		"AES key of 31 bytes":          withAESKey(aesKey[:31]),
		"AES key of 33 bytes":          withAESKey(append(bytes.Clone(aesKey), 0)),
		"empty AES key":                withAESKey(nil),
		"the AES key alone":            first,
		"the wrapped key alone":        second,
		"the wrong order":              slices.Concat(second, first),
		"one byte":                     {0},
		"a byte too few for OAEP":      good[:511],
		"a block only":                 good[:512+8],
		"the last byte is missing":     good[:len(good)-1],
		"the last block is missing":    good[:len(good)-8],
		"a byte too many":              append(bytes.Clone(good), 0),
		"a block too many":             append(bytes.Clone(good), make([]byte, 8)...),
		"the first bit":                flipped(0),
		"a bit at the end of OAEP":     flipped(511),
		"a bit of the wrapped key":     flipped(512),
		"a bit in the middle":          flipped(512 + len(second)/2),
		"the last bit":                 flipped(-1),
		"another AES key":              slices.Concat(testkeys.OAEP(sha256.New, under, testkeys.Random(32)), second),
		"AES-KW without padding":       withBlocks(bytes.Repeat([]byte{0xA6}, 8), testkeys.Padded(der)),
		"another initial value":        withBlocks(otherIV, testkeys.Padded(der)),
		"a length too short":           withBlocks(testkeys.AlternativeIV(len(der)-8), testkeys.Padded(der)),
		"a length too long":            withBlocks(testkeys.AlternativeIV(len(testkeys.Padded(der))+1), testkeys.Padded(der)),
		"a length that is huge":        withBlocks(testkeys.AlternativeIV(-1), testkeys.Padded(der)),
		"padding that is not zero":     withBlocks(testkeys.AlternativeIV(len(der)), dirty),
		"a key of 8 bytes":             slices.Concat(first, testkeys.AESWrapPadded(aesKey, der[:8])),
		"a key that is huge":           slices.Concat(first, testkeys.AESWrapPadded(aesKey, make([]byte, 8193))),
		"in clear":                     slices.Concat(first, testkeys.Padded(der)),
		"random":                       testkeys.Random(700),
	} {
		for _, hashName := range []string{"", "SHA384"} { // where the other is right it is wrong then
			data := fields{"ciphertext": encoded(ciphertext), "hash_function": hashName}
			if text := m.refused(logical.UpdateOperation, "keys/main/import", data); text != cantUnwrap {
				t.Errorf("%s is refused with %q", name, text)
			}
		}
	}

	// What could be unwrapped, and is no key that can be imported.
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	const notPKCS8 = "what was wrapped is not PKCS#8 DER; wrap what this writes: openssl pkcs8"
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"P-256":          {must(x509.MarshalPKCS8PrivateKey(p256)), "curve P-256; use a key on curve P-384"},
		"RSA 1024":       {must(x509.MarshalPKCS8PrivateKey(weak)), "has 1024 bits; use a key of 2048"},
		"PKCS#1":         {x509.MarshalPKCS1PrivateKey(outsideRSA()), notPKCS8},
		"SEC 1":          {must(x509.MarshalECPrivateKey(key)), notPKCS8},
		"PEM":            {[]byte(pkcs8Text(key)), notPKCS8},
		"base64":         {[]byte(encoded(der)), notPKCS8},
		"JWK":            {must(json.Marshal(jwkMembers(key))), notPKCS8},
		"public key":     {must(x509.MarshalPKIXPublicKey(key.Public())), notPKCS8},
		"trailing bytes": {append(bytes.Clone(der), 0), "there is trailing data within the key's encoding; export"},
		"garbage":        {testkeys.Random(185), notPKCS8},
		"zeros":          {make([]byte, 16), notPKCS8},
		"cut off":        {der[:len(der)-1], notPKCS8},
	} {
		data := fields{"ciphertext": testkeys.Wrapped(sha256.New, under, test.content)}
		if text := m.refused(logical.UpdateOperation, "keys/main/import", data); !strings.HasPrefix(text, "ciphertext: ") ||
			!strings.Contains(text, test.want) {
			t.Errorf("%s is refused with %q", name, text)
		}
	}

	// Fields that are wrong themselves.
	const notBase64 = "ciphertext: it is not base64; encode it, for example with: openssl base64 -A"
	const noHash = "hash_function: the value is not a hash function that is known here; give SHA1, SHA224, SHA256, " +
		"SHA384 or SHA512"
	const both = "ciphertext: it is given together with private_key; give only one of them"
	const neither = "private_key: it is missing or empty, and so is ciphertext; give one unencrypted private key"
	for _, test := range []struct {
		data fields
		want string
	}{
		{fields{"ciphertext": pkcs8Text(key)}, notBase64},
		{fields{"ciphertext": "@ciphertext.b64"}, notBase64},
		{fields{"ciphertext": base64.RawURLEncoding.EncodeToString(slices.Repeat([]byte{0xFB}, 700))}, notBase64},
		{fields{"ciphertext": hex.EncodeToString(good) + "="}, notBase64},
		{fields{"ciphertext": string(good)}, notBase64},
		{fields{"ciphertext": "vault:v1:" + encoded(good)}, notBase64},
		{fields{"ciphertext": strings.Repeat("A", 16<<10+4)}, "ciphertext: it is longer than 16384 bytes; give one wrapped"},
		{fields{"ciphertext": jwkMembers(key)}, "ciphertext: the value is of the wrong type; give a string"},
		{fields{"ciphertext": []any{encoded(good)}}, "ciphertext: the value is of the wrong type; give a string"},
		{fields{"ciphertext": true}, "ciphertext: the value is of the wrong type; give a string"},
		{fields{"ciphertext": encoded(good), "private_key": pkcs8Text(key)}, both},
		{fields{"ciphertext": encoded(good), "private_key": jwkMembers(key)}, both},
		{fields{}, neither},
		{fields{"ciphertext": "", "private_key": "", "hash_function": "SHA1"}, neither},
		{fields{"ciphertext": " \n"}, cantUnwrap},
		{fields{"ciphertext": encoded(good), "kid": "a\nb"}, "kid: "},
		{fields{"private_key": pkcs8Text(key), "hash_function": "SHA256"},
			"hash_function: it is for ciphertext only; leave it out"},
		{fields{"ciphertext": encoded(good), "hash_function": "SHA3-256"}, noHash},
		{fields{"ciphertext": encoded(good), "hash_function": "MD5"}, noHash},
		{fields{"ciphertext": encoded(good), "hash_function": pkcs8Text(key)}, noHash},
		{fields{"ciphertext": encoded(good), "hash_function": jwkMembers(key)},
			"hash_function: the value is of the wrong type"},
		{fields{"ciphertext": encoded(good), "type": "ecdsa-p384"},
			"type: unknown field; the fields of this path are ciphertext, "},
	} {
		if text := m.refused(logical.UpdateOperation, "keys/main/import", test.data); !strings.HasPrefix(text, test.want) {
			t.Errorf("refused with %q, want %q", text, test.want)
		}
	}

	m.write("keys/main/import", fields{"ciphertext": encoded(good)}) // none of it was refused for another reason
}

// An import makes no wrapping key: nothing can have been wrapped under it yet.
func TestWrappedImportWithoutAWrappingKey(t *testing.T) {
	m := newMount(t)
	der := must(x509.MarshalPKCS8PrivateKey(outsideEC()))
	m.refusedWith(logical.UpdateOperation, "keys/main/import",
		fields{"ciphertext": testkeys.Wrapped(sha256.New, &otherWrappingKey().PublicKey, der)},
		"ciphertext: ", "no wrapping key yet; read wrapping_key")
}
