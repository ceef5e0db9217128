// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// What follows is what Linux tells of processes, in /proc.

// Children gives the processes that this one has started from a binary of a name, with arguments that it may have among
// others.
func (p *Process) Children(binary string, arguments ...string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// Processes come and go meanwhile.
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.Split(string(line), "\x00")
		if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", p.PID())) && filepath.Base(words[0]) == binary &&
			!slices.ContainsFunc(arguments, func(argument string) bool { return !slices.Contains(words, argument) }) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Memory gives a size of a process in bytes: VmRSS is what is resident now, VmHWM the most that ever was.
func Memory(pid int, size string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, size+": %d kB", &kilobytes); n == 1 {
			return kilobytes << 10, nil
		}
	}
	return 0, fmt.Errorf("the process tells no %s", size)
}
