// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

// Package testvault starts real Vault servers for tests and measurements, and asks them over HTTP. Everything is on the
// loopback interface.
package testvault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout bounds how long a process may take until it is ready, on a slow machine.
	startTimeout = 90 * time.Second
	// stopTimeout is how long a process may take to end by itself.
	stopTimeout = 30 * time.Second
	// glance is the pause between two looks at a state that another process tells nobody of.
	glance = 50 * time.Millisecond
)

// Process is a program that runs beside the one that started it, in a process group of its own together with what it
// starts: Ctrl-C reaches only who started it, and ends it.
type Process struct {
	command  *exec.Cmd
	watchdog *exec.Cmd
	ended    chan struct{} // closed when it has ended
	end      sync.Once
}

// StartProcess starts a command. A watchdog ends it, and what it has started, when this program has ended without doing
// so: then the watchdog's standard input closes. Paused processes have to go on before they can end.
func StartProcess(command *exec.Cmd) (*Process, error) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.WaitDelay = time.Second // for a program that this one leaves behind
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &Process{command: command, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = command.Wait() // how it ended is in its log
	}()
	p.watchdog = exec.Command("sh", "-c", `cat >/dev/null; kill -TERM "-$1"; kill -CONT "-$1"`, "watchdog", strconv.Itoa(p.PID()))
	p.watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C must not end it
	_, err := p.watchdog.StdinPipe()
	if err == nil {
		err = p.watchdog.Start()
	}
	if err != nil {
		p.Signal(syscall.SIGKILL)
		<-p.ended
		return nil, err
	}
	return p, nil
}

// PID is the process's ID.
func (p *Process) PID() int { return p.command.Process.Pid }

// Signal sends a signal to the process and what it has started.
func (p *Process) Signal(what syscall.Signal) { _ = syscall.Kill(-p.PID(), what) }

// Stop ends the process, waits for its end, and kills what it leaves behind.
func (p *Process) Stop() {
	p.endAfter(func() {
		_ = p.command.Process.Signal(syscall.SIGTERM)
		p.Signal(syscall.SIGCONT) // if it is paused
		select {
		case <-p.ended:
		case <-time.After(stopTimeout):
		}
	})
}

// Kill ends the process as a crash does, and those that it has started.
func (p *Process) Kill() { p.endAfter(func() {}) }

// endAfter does its work once: later, the process's ID may be another's.
func (p *Process) endAfter(try func()) {
	p.end.Do(func() {
		try()
		p.Signal(syscall.SIGKILL)
		<-p.ended
		_ = p.watchdog.Process.Kill()
		_ = p.watchdog.Wait()
	})
}

// Await looks again and again whether the process is ready.
func (p *Process) Await(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it did not answer within %s", startTimeout))
	defer cancel()
	for !ready(ctx) {
		select {
		case <-p.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(glance):
		}
	}
	return nil
}
