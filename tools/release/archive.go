// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io/fs"
	"strings"
	"time"
)

// entry is a file in an archive, or a directory if its name ends in a slash.
type entry struct {
	name    string
	mode    fs.FileMode
	content []byte
}

func (r *release) writeArchive(b build) error {
	entries := []entry{{"LICENSE", 0o644, r.license}, {"README.md", 0o644, r.readme}, {b.file, 0o755, b.binary}}
	pack, suffix := packTarGz, ".tar.gz"
	if b.os == "windows" {
		pack, suffix = packZip, ".zip"
	}
	content, err := pack(entries, r.made)
	if err != nil {
		return err
	}
	return r.write("_"+b.platform()+suffix, content)
}

// packTar gives all entries to root: who built the release is not in it.
func packTar(entries []entry, made time.Time) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	for _, e := range entries {
		header := tar.Header{
			Name: e.name, Mode: int64(e.mode), Size: int64(len(e.content)), ModTime: made,
			Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
		}
		if strings.HasSuffix(e.name, "/") {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(&header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return content.Bytes(), err
}

func packTarGz(entries []entry, made time.Time) ([]byte, error) {
	archive, err := packTar(entries, made)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	w, err := gzip.NewWriterLevel(&content, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(archive); err != nil {
		return nil, err
	}
	err = w.Close()
	return content.Bytes(), err
}

func packZip(entries []entry, made time.Time) ([]byte, error) {
	var content bytes.Buffer
	w := zip.NewWriter(&content)
	for _, e := range entries {
		header := zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: made}
		header.SetMode(e.mode)
		f, err := w.CreateHeader(&header)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return content.Bytes(), err
}
