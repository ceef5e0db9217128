// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const (
	// imageUser is nobody in particular, but not root; it owns nothing in the image.
	imageUser = "65532:65532"
	// certificateFile is where Go looks for the authorities that it trusts. The plugin speaks HTTPS to Redox.
	certificateFile = "etc/ssl/certs/ca-certificates.crt"
)

// imageArchs are the processors that the image is made for, as far as there are Linux binaries for them.
var imageArchs = []string{"amd64", "arm64"}

// writeImage writes the container image for Vault's containerized plugins as an OCI image layout in a tar file, and its
// digests. There is nothing in it but the binary, its license and the certificate authorities.
func (r *release) writeImage() error {
	annotations := map[string]string{
		"org.opencontainers.image.title":    name,
		"org.opencontainers.image.version":  r.imageVersion,
		"org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created":  r.made.Format(time.RFC3339),
		"org.opencontainers.image.licenses": "MPL-2.0",
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var digests strings.Builder
	for _, arch := range imageArchs {
		for _, b := range r.builds {
			if b.os != "linux" || b.arch != arch {
				continue
			}
			image, err := r.image(b, annotations)
			if err != nil {
				return err
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{
				Add:        image,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: b.os, Architecture: b.arch}},
			})
			manifest, err := image.Digest()
			if err != nil {
				return err
			}
			config, err := image.ConfigName()
			if err != nil {
				return err
			}
			fmt.Fprintf(&digests, "linux/%s manifest %s\nlinux/%s config   %s\n", arch, manifest, arch, config)
		}
	}
	if digests.Len() == 0 {
		return nil
	}
	index = mutate.Annotations(index, annotations).(v1.ImageIndex)
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	content, err := packLayout(index, r.imageVersion, r.made)
	if err != nil {
		return err
	}
	if err := r.write("_oci.tar", content); err != nil {
		return err
	}
	return r.write("_oci_digests.txt", fmt.Appendf(nil, "index                %s\n%s", digest, digests.String()))
}

func (r *release) image(b build, labels map[string]string) (v1.Image, error) {
	authorities, err := r.layer([]entry{
		{"etc/", 0o755, nil}, {"etc/ssl/", 0o755, nil}, {"etc/ssl/certs/", 0o755, nil},
		{certificateFile, 0o644, certificates()},
	})
	if err != nil {
		return nil, err
	}
	plugin, err := r.layer([]entry{
		{"bin/", 0o755, nil}, {"bin/" + name, 0o755, b.binary},
		{"licenses/", 0o755, nil}, {"licenses/LICENSE", 0o644, r.license},
	})
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		OS: b.os, Architecture: b.arch, Created: v1.Time{Time: r.made},
		RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{User: imageUser, WorkingDir: "/", Entrypoint: []string{"/bin/" + name}, Labels: labels},
	})
	if err != nil {
		return nil, err
	}
	history := func(what string) v1.History {
		return v1.History{Created: v1.Time{Time: r.made}, CreatedBy: "scripts/release", Comment: what}
	}
	return mutate.Append(image,
		mutate.Addendum{Layer: authorities, History: history("certificate authorities"), MediaType: types.OCILayer},
		mutate.Addendum{Layer: plugin, History: history(name + " " + r.version), MediaType: types.OCILayer})
}

func (r *release) layer(entries []entry) (v1.Layer, error) {
	content, err := packTar(entries, r.made)
	if err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	return tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
}

// certificates gives Mozilla's certificate authorities in PEM. Those that it trusts with a limit that PEM can't express are
// left out: without the limit, they would be trusted more than they should be.
func certificates() []byte {
	var content []byte
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			content = append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
		}
	}
	return content
}

// packLayout gives an image index as an OCI image layout in a tar file.
func packLayout(index v1.ImageIndex, tag string, made time.Time) ([]byte, error) {
	directory, err := os.MkdirTemp("", "oci-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	path, err := layout.Write(directory, empty.Index)
	if err != nil {
		return nil, err
	}
	err = path.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}))
	if err != nil {
		return nil, err
	}
	var entries []entry
	err = filepath.WalkDir(directory, func(file string, d fs.DirEntry, err error) error { // in lexical order
		if err != nil || file == directory {
			return err
		}
		relative, err := filepath.Rel(directory, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			entries = append(entries, entry{filepath.ToSlash(relative) + "/", 0o755, nil})
			return nil
		}
		content, err := os.ReadFile(file)
		entries = append(entries, entry{filepath.ToSlash(relative), 0o644, content})
		return err
	})
	if err != nil {
		return nil, err
	}
	return packTar(entries, made)
}
