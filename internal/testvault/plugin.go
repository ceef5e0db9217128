// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// PluginVersion asks a binary of the Redox plugin for its version.
func PluginVersion(file string) (string, error) {
	version, err := exec.Command(file, "-version").Output()
	if err != nil {
		return "", fmt.Errorf("the plugin does not tell its version: %w", err)
	}
	return strings.TrimSpace(string(version)), nil
}

// Checksum gives the SHA-256 of a file, as Vault's catalog of plugins wants it.
func Checksum(file string) (string, error) {
	binary, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(binary)
	return hex.EncodeToString(sum[:]), nil
}

// Register puts a binary, which is in the server's folder for them, into the catalog of plugins.
func (s *Server) Register(ctx context.Context, name, binary, version string, arguments ...string) error {
	sum, err := Checksum(filepath.Join(s.options.Plugins, binary))
	if err != nil {
		return err
	}
	_, err = s.Must(ctx, http.MethodPut, "sys/plugins/catalog/secret/"+name, map[string]any{
		"sha256": sum, "command": binary, "args": arguments, "version": version,
	})
	return err
}

// Mount mounts a version of a plugin that is in the catalog.
func (s *Server) Mount(ctx context.Context, path, name, version string) error {
	_, err := s.Must(ctx, http.MethodPost, "sys/mounts/"+path, map[string]any{
		"type": name, "config": map[string]any{"plugin_version": version},
	})
	return err
}
