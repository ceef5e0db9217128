// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs beside the tests, in a process group of its own: Ctrl-C reaches the tests, which end it.
type process struct {
	command  *exec.Cmd
	watchdog *exec.Cmd
	ended    chan struct{} // closed when it has ended
}

// begin starts the command. A watchdog ends it when the tests have ended without doing so, as they do when one panics:
// then the watchdog's standard input closes.
func (p *process) begin() error {
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.command.WaitDelay = time.Second // for a program that this one leaves behind
	if err := p.command.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // how it ended is in its log
	}()
	p.watchdog = exec.Command("sh", "-c", `cat >/dev/null; kill "$1"`, "watchdog", fmt.Sprint(p.command.Process.Pid))
	_, err := p.watchdog.StdinPipe()
	if err == nil {
		err = p.watchdog.Start()
	}
	return err
}

// stop ends the process, and waits for its end.
func (p *process) stop() {
	p.dismissWatchdog()
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// kill ends the process as a crash does, and those that it has started.
func (p *process) kill() {
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

func (p *process) dismissWatchdog() {
	_ = p.watchdog.Process.Kill()
	_ = p.watchdog.Wait()
}

// startProcess runs a command until it is stopped or the test ends. What it prints is kept for the search for secrets.
func startProcess(t testing.TB, name string, command *exec.Cmd) *process {
	t.Helper()
	var log bytes.Buffer
	command.Stdout, command.Stderr = &log, &log
	p := &process{command: command}
	if err := p.begin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		output.record("the log of "+name, log.String())
		if t.Failed() {
			t.Logf("the log of %s:\n%s", name, log.String())
		}
	})
	return p
}
