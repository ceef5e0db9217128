// Copyright (c) vault-plugin-secrets-redox contributors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// process is a program that runs beside the drills, in a process group of its own together with what it starts.
type process struct {
	command  *exec.Cmd
	watchdog *exec.Cmd
	ended    chan struct{} // closed when it has ended
}

// begin starts the command. A watchdog ends it when the drills have ended without doing so: then the watchdog's
// standard input closes.
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
	p.watchdog = exec.Command("sh", "-c", `trap "" INT; cat >/dev/null; kill -CONT "-$1"; kill "-$1"`, "watchdog",
		fmt.Sprint(p.command.Process.Pid))
	_, err := p.watchdog.StdinPipe()
	if err == nil {
		err = p.watchdog.Start()
	}
	return err
}

// signal sends a signal to the process and what it has started.
func (p *process) signal(what syscall.Signal) { _ = syscall.Kill(-p.command.Process.Pid, what) }

// stop ends the process, and waits for its end.
func (p *process) stop() {
	p.dismissWatchdog()
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.signal(syscall.SIGKILL)
		<-p.ended
	}
}

// kill ends the process as a crash does, and those that it has started.
func (p *process) kill() {
	p.dismissWatchdog()
	p.signal(syscall.SIGKILL)
	<-p.ended
}

func (p *process) dismissWatchdog() {
	_ = p.watchdog.Process.Kill()
	_ = p.watchdog.Wait()
}
