// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/xeipuuv/gojsonschema"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// made is later than 1980, where time begins for zip, and not in the machine's own time zone.
var made = time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)

// built has a small program in the place of the plugin's binary, for each of the platforms.
func built(t *testing.T, environment []string, platforms ...string) string {
	t.Helper()
	binaries := t.TempDir()
	source := t.TempDir()
	writeFile(t, filepath.Join(source, "go.mod"), "module vault-plugin-secrets-redox\n\ngo 1.26.0\n")
	writeFile(t, filepath.Join(source, "main.go"), "package main\n\nfunc main() {}\n")
	for _, platform := range platforms {
		goos, goarch, _ := strings.Cut(platform, "_")
		file := filepath.Join(binaries, platform, name)
		if goos == "windows" {
			file += ".exe"
		}
		command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, ".")
		command.Dir = source
		command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		command.Env = append(command.Env, environment...)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
	}
	return binaries
}

func writeFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// packed packs binaries as a release, and gives the directory.
func packed(t *testing.T, binaries string) string {
	t.Helper()
	root, out := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(root, "LICENSE"), "the license")
	writeFile(t, filepath.Join(root, "README.md"), "read me")
	r := release{version: "v1.2.3", commit: "0123456789ab", made: made, root: root, binaries: binaries, out: out}
	if err := r.pack(); err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestRelease looks at each file of a release with other means than it was made with, where there are any.
func TestRelease(t *testing.T) {
	binaries := built(t, nil, "linux_amd64", "linux_arm64", "windows_amd64")
	out := packed(t, binaries)
	file := func(suffix string) string { return filepath.Join(out, name+"_1.2.3_"+suffix) }

	t.Run("files", func(t *testing.T) {
		var is []string
		entries, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			is = append(is, strings.TrimPrefix(entry.Name(), name+"_1.2.3_"))
		}
		want := []string{"SHA256SUMS", "linux_amd64.tar.gz", "linux_arm64.tar.gz", "oci.tar", "oci_digests.txt", "sbom.cdx.json",
			"windows_amd64.zip"}
		if !slices.Equal(is, want) {
			t.Errorf("the release is %v, not %v", is, want)
		}
	})

	t.Run("checksums", func(t *testing.T) {
		lines := strings.Split(strings.TrimSpace(string(read(t, filepath.Join(out, "SHA256SUMS")))), "\n")
		if len(lines) != 6 {
			t.Errorf("%d checksums, not 6", len(lines))
		}
		for _, line := range lines {
			sum, listed, _ := strings.Cut(line, "  ")
			if is := fmt.Sprintf("%x", sha256.Sum256(read(t, filepath.Join(out, listed)))); is != sum {
				t.Errorf("%s has the checksum %s, not %s", listed, is, sum)
			}
		}
	})

	t.Run("tar.gz", func(t *testing.T) {
		unzipped, err := gzip.NewReader(bytes.NewReader(read(t, file("linux_arm64.tar.gz"))))
		if err != nil {
			t.Fatal(err)
		}
		files := untar(t, unzipped)
		if names := files.names; !slices.Equal(names, []string{"LICENSE", "README.md", name}) {
			t.Errorf("the archive holds %v", names)
		}
		if !bytes.Equal(files.content[name], read(t, filepath.Join(binaries, "linux_arm64", name))) {
			t.Error("the archive holds another binary")
		}
		if mode := files.mode[name]; mode != 0o755 {
			t.Errorf("the binary has the mode %o", mode)
		}
	})

	t.Run("zip", func(t *testing.T) {
		archive, err := zip.OpenReader(file("windows_amd64.zip"))
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		var names []string
		for _, f := range archive.File {
			names = append(names, f.Name)
			if !f.Modified.Equal(made) {
				t.Errorf("%s is of %s, not of %s", f.Name, f.Modified, made)
			}
		}
		if !slices.Equal(names, []string{"LICENSE", "README.md", name + ".exe"}) {
			t.Errorf("the archive holds %v", names)
		}
	})

	t.Run("sbom", func(t *testing.T) { testSBOM(t, read(t, file("sbom.cdx.json")), binaries) })
	t.Run("image", func(t *testing.T) { testImage(t, file("oci.tar"), read(t, file("oci_digests.txt")), binaries) })
}

// TestReleaseIsReproducible packs the same binaries twice. (That they are the same is for scripts/test-release to show.)
func TestReleaseIsReproducible(t *testing.T) {
	binaries := built(t, nil, "linux_amd64", "windows_amd64")
	first, second := packed(t, binaries), packed(t, binaries)
	if !bytes.Equal(read(t, filepath.Join(first, "SHA256SUMS")), read(t, filepath.Join(second, "SHA256SUMS"))) {
		t.Error("two releases of the same binaries are different")
	}
}

// TestRefusesOtherBinaries has binaries that were not built as those of a release have to be.
func TestRefusesOtherBinaries(t *testing.T) {
	cases := map[string]struct {
		environment []string
		rename      string
		want        string
	}{
		"of another platform": {rename: "linux_arm64", want: `GOARCH="amd64", not "arm64"`},
		"with cgo":            {environment: []string{"CGO_ENABLED=1", "CC=false"}, want: `CGO_ENABLED="1", not "0"`},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			binaries := built(t, c.environment, "linux_amd64")
			if c.rename != "" {
				if err := os.Rename(filepath.Join(binaries, "linux_amd64"), filepath.Join(binaries, c.rename)); err != nil {
					t.Fatal(err)
				}
			}
			r := release{version: "v1.2.3", root: "../..", binaries: binaries, out: t.TempDir()}
			if err := r.pack(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, and does not have %s in it", err, c.want)
			}
		})
	}
}

// testSBOM checks it against CycloneDX's own schema, and what it says of the binaries.
func testSBOM(t *testing.T, content []byte, binaries string) {
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	schemas := filepath.Join(strings.TrimSpace(string(output)), "schema")
	loader := gojsonschema.NewSchemaLoader()
	for _, part := range []string{"spdx.schema.json", "jsf-0.82.schemax.json"} { // sic
		if err := loader.AddSchemas(gojsonschema.NewBytesLoader(read(t, filepath.Join(schemas, part)))); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := loader.Compile(gojsonschema.NewBytesLoader(read(t, filepath.Join(schemas, "bom-1.6.schema.json"))))
	if err != nil {
		t.Fatal(err)
	}
	result, err := schema.Validate(gojsonschema.NewBytesLoader(content))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range result.Errors() {
		t.Error(problem)
	}

	var bom cdx.BOM
	if err := json.Unmarshal(content, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.Metadata.Component.Version != "v1.2.3" || bom.SerialNumber != "" {
		t.Errorf("it is of version %q, and has the serial number %q", bom.Metadata.Component.Version, bom.SerialNumber)
	}
	for _, c := range *bom.Metadata.Component.Components {
		sum := fmt.Sprintf("%x", sha256.Sum256(read(t, filepath.Join(binaries, c.Name))))
		if (*c.Hashes)[0].Value != sum {
			t.Errorf("%s has the checksum %s, not %s", c.Name, sum, (*c.Hashes)[0].Value)
		}
	}
	if len(*bom.Components) != 1 || !regexp.MustCompile(`^pkg:golang/stdlib@1\.\d+`).MatchString((*bom.Components)[0].PackageURL) {
		t.Errorf("the only thing in that small program is the standard library, not %v", *bom.Components)
	}
}

// testImage reads the image as a container engine does.
func testImage(t *testing.T, file string, digests []byte, binaries string) {
	directory := t.TempDir()
	if output, err := exec.Command("tar", "-xf", file, "-C", directory).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	index, err := layout.ImageIndexFromPath(directory)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	tagged, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if tag := tagged.Manifests[0].Annotations["org.opencontainers.image.ref.name"]; tag != "1.2.3" || len(tagged.Manifests) != 1 {
		t.Errorf("the layout has %d entries, and the first has the tag %q; Vault asks for a tag without the v",
			len(tagged.Manifests), tag)
	}
	if !bytes.Contains(digests, []byte(tagged.Manifests[0].Digest.String())) {
		t.Errorf("%s is not in\n%s", tagged.Manifests[0].Digest, digests)
	}
	index, err = index.ImageIndex(tagged.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		testPlatformImage(t, image, *descriptor.Platform, digests, binaries)
	}
	if !slices.Equal(platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("the image is for %v", platforms)
	}
}

func testPlatformImage(t *testing.T, image v1.Image, platform v1.Platform, digests []byte, binaries string) {
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	id, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(digests, []byte("config   "+id.String())) {
		t.Errorf("%s is not in\n%s", id, digests)
	}
	if config.OS+"/"+config.Architecture != platform.String() || !config.Created.Equal(made) {
		t.Errorf("the image is for %s/%s, of %s", config.OS, config.Architecture, config.Created)
	}
	if config.Config.User != "65532:65532" || !slices.Equal(config.Config.Entrypoint, []string{"/bin/" + name}) {
		t.Errorf("it runs %v as %s", config.Config.Entrypoint, config.Config.User)
	}
	flat := mutate.Extract(image)
	defer flat.Close()
	files := untar(t, flat)
	binary := files.content["bin/"+name]
	if !bytes.Equal(binary, read(t, filepath.Join(binaries, "linux_"+platform.Architecture, name))) {
		t.Error("it holds another binary")
	}
	for path, mode := range files.mode { // others than the owner, root, must be able to use it, and not to change it
		if want := map[bool]int64{true: 0o755, false: 0o644}[strings.HasSuffix(path, "/") || path == "bin/"+name]; mode != want {
			t.Errorf("%s has the mode %o, not %o", path, mode, want)
		}
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(files.content["etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("it holds no certificate authorities")
	}
	for root := range bundle.Roots() {
		part := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		if in := bytes.Contains(files.content["etc/ssl/certs/ca-certificates.crt"], part); in != (root.Constraint == nil) {
			t.Errorf("an authority that is trusted with a limit: %v, in the image: %v", root.Constraint != nil, in)
		}
	}
	if count := bytes.Count(files.content["etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")); count < 80 {
		t.Errorf("it holds only %d certificate authorities", count)
	}
}

type files struct {
	names   []string
	content map[string][]byte
	mode    map[string]int64
}

// untar reads an archive, in which everything must be root's and of the commit's time.
func untar(t *testing.T, r io.Reader) files {
	t.Helper()
	f := files{content: map[string][]byte{}, mode: map[string]int64{}}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return f
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || header.Gname != "" || !header.ModTime.Equal(made) {
			t.Errorf("%s is of user %d %q, group %d %q, %s", header.Name, header.Uid, header.Uname, header.Gid, header.Gname, header.ModTime)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeDir {
			header.Name = strings.TrimSuffix(header.Name, "/") + "/" // an extracted image leaves the slash out
		}
		f.names = append(f.names, header.Name)
		f.content[header.Name] = content
		f.mode[header.Name] = header.Mode
	}
}
