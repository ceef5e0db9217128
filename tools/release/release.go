// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const name = "vault-plugin-secrets-redox"

// release is what is to be packed, and where to.
type release struct {
	version, commit      string
	made                 time.Time
	root, binaries, out  string
	license, readme      []byte
	builds               []build
	imageVersion, prefix string // 1.2.3; the beginning of every file's name
}

// build is the binary for one platform.
type build struct {
	os, arch string
	file     string // as it is called in the archive
	binary   []byte
	info     *buildinfo.BuildInfo
}

func (b build) platform() string { return b.os + "_" + b.arch }

func (r *release) pack() error {
	if err := r.read(); err != nil {
		return err
	}
	for _, b := range r.builds {
		if err := r.writeArchive(b); err != nil {
			return err
		}
	}
	if err := r.writeSBOM(); err != nil {
		return err
	}
	if err := r.writeImage(); err != nil {
		return err
	}
	return r.writeChecksums()
}

// read reads the binaries, and refuses those that are not what a release has to consist of.
func (r *release) read() error {
	r.imageVersion = strings.TrimPrefix(r.version, "v")
	r.prefix = name + "_" + r.imageVersion
	var err error
	if r.license, err = os.ReadFile(filepath.Join(r.root, "LICENSE")); err != nil {
		return err
	}
	if r.readme, err = os.ReadFile(filepath.Join(r.root, "README.md")); err != nil {
		return err
	}
	directories, err := os.ReadDir(r.binaries) // sorted
	if err != nil {
		return err
	}
	for _, directory := range directories {
		b := build{file: name}
		var found bool
		if b.os, b.arch, found = strings.Cut(directory.Name(), "_"); !found {
			return fmt.Errorf("%s: not the name of a platform, like linux_amd64", directory.Name())
		}
		if b.os == "windows" {
			b.file += ".exe"
		}
		path := filepath.Join(r.binaries, directory.Name(), b.file)
		if b.binary, err = os.ReadFile(path); err != nil {
			return err
		}
		if b.info, err = buildinfo.ReadFile(path); err != nil {
			return err
		}
		if err := b.check(); err != nil {
			return fmt.Errorf("%s: %w", directory.Name(), err)
		}
		r.builds = append(r.builds, b)
	}
	if len(r.builds) == 0 {
		return fmt.Errorf("%s: no binaries", r.binaries)
	}
	return nil
}

// check compares how a binary was built, as Go wrote it down, with how it has to be.
func (b build) check() error {
	settings := map[string]string{}
	for _, setting := range b.info.Settings {
		settings[setting.Key] = setting.Value
	}
	for _, wanted := range [][2]string{
		{"GOOS", b.os}, {"GOARCH", b.arch}, {"CGO_ENABLED", "0"}, {"-trimpath", "true"},
	} {
		if is := settings[wanted[0]]; is != wanted[1] {
			return fmt.Errorf("built with %s=%q, not %q", wanted[0], is, wanted[1])
		}
	}
	return nil
}

// write writes one file of the release.
func (r *release) write(suffix string, content []byte) error {
	return os.WriteFile(filepath.Join(r.out, r.prefix+suffix), content, 0o644)
}

// writeChecksums writes SHA256SUMS, in the form that "sha256sum --check" reads, of all files so far.
func (r *release) writeChecksums() error {
	files, err := os.ReadDir(r.out) // sorted
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(r.out, file.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
