// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package testvault

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// asParent makes the test binary a program that starts a family, and waits to be killed.
const asParent = "TESTVAULT_AS_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) == "" {
		os.Exit(m.Run())
	}
	p, err := StartProcess(family(os.NewFile(3, "held")))
	if err != nil {
		panic(err)
	}
	fmt.Println(p.PID())
	select {}
}

// family is a command whose process starts another one, and says so in a file. Both hold it open as long as they live.
// As Vault does, they survive the hangup that the kernel sends to paused processes whose parent has ended.
func family(held *os.File) *exec.Cmd {
	command := exec.Command("sh", "-c", `trap '' HUP; sleep 1000 & echo >&3; sleep 1000`)
	command.ExtraFiles = []*os.File{held}
	return command
}

// holding gives a file for a family, a function that waits until that is there, and one that fails the test unless
// everybody who holds the file open comes to an end.
func holding(t *testing.T) (held *os.File, await, wantEnded func()) {
	t.Helper()
	reader, held, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	await = func() {
		t.Helper()
		if _, err := reader.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return held, await, func() {
		t.Helper()
		_ = held.Close()
		if _, err := io.ReadAll(reader); err != nil {
			t.Error("a process is left:", err)
		}
	}
}

// TestWatchdog kills a program that has started a process, which is paused. The process ends, and the one it has started.
func TestWatchdog(t *testing.T) {
	held, await, wantEnded := holding(t)
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), asParent+"=1")
	parent.ExtraFiles = []*os.File{held}
	parent.Stderr = os.Stderr
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(output, &pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
	})
	await()
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	wantEnded()
}

// TestStop stops a process that is paused. It ends because it is asked to; the one it has started is killed.
func TestStop(t *testing.T) {
	held, await, wantEnded := holding(t)
	p, err := StartProcess(family(held))
	if err != nil {
		t.Fatal(err)
	}
	await()
	p.Signal(syscall.SIGSTOP)
	p.Stop()
	if by := p.command.ProcessState.Sys().(syscall.WaitStatus).Signal(); by != syscall.SIGTERM {
		t.Errorf("it was ended by %v", by)
	}
	wantEnded()
	p.Stop() // and once more does nothing
}

// TestAwaitEnds waits for a process that ends instead.
func TestAwaitEnds(t *testing.T) {
	p, err := StartProcess(exec.Command("false"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if err := p.Await(t.Context(), func(context.Context) bool { return false }); err == nil {
		t.Error("a process that has ended is ready")
	}
}
