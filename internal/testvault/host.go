// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// Host is the program of a server: HashiCorp Vault, or OpenBao. What differs between them, and between their versions, is
// in this file.
type Host struct {
	Binary  string
	OpenBao bool
	Version string // like 1.21.2
}

var hostVersion = regexp.MustCompile(`^(Vault|OpenBao) v(\d+\.\d+\.\d+)`)

// Inspect asks a binary which host it is.
func Inspect(binary string) (Host, error) {
	line, err := exec.Command(binary, "version").Output()
	if err != nil {
		return Host{}, fmt.Errorf("%s version: %w", binary, err)
	}
	found := hostVersion.FindSubmatch(line)
	if found == nil {
		return Host{}, fmt.Errorf("%s is neither Vault nor OpenBao: its version is %.100q", binary, line)
	}
	return Host{Binary: binary, OpenBao: string(found[1]) == "OpenBao", Version: string(found[2])}, nil
}

// String gives its name and version.
func (h Host) String() string {
	if h.OpenBao {
		return "OpenBao " + h.Version
	}
	return "Vault " + h.Version
}

// VaultBefore reports whether it is a Vault that is older than a version of two numbers.
func (h Host) VaultBefore(major, minor int) bool {
	var has [2]int
	for i, number := range regexp.MustCompile(`\d+`).FindAllString(h.Version, 2) {
		has[i], _ = strconv.Atoi(number) // at most an overflow, which is not before anything
	}
	return !h.OpenBao && (has[0] < major || has[0] == major && has[1] < minor)
}

// HandsOverGreatNumbers reports whether plugins get to see a number that no float64 holds. Others answer 500 themselves.
func (h Host) HandsOverGreatNumbers() bool { return !h.VaultBefore(1, 21) }

// StandbysRead reports whether standbys of a cluster answer reads themselves.
func (h Host) StandbysRead() bool { return h.OpenBao }

// config is what this host's configuration needs so that tests can do as on the others.
func (h Host) config() string {
	if h.OpenBao { // which has audit devices in its configuration only
		return "unsafe_allow_api_audit_creation = true\n"
	}
	return ""
}
