package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// takeTerminal makes this program the terminal's only foreground process, and
// returns what gives the terminal back. Under make, Ctrl-C would else reach make
// too, which then calls a clean stop a failure.
func takeTerminal() (restore func()) {
	tty := int(os.Stdin.Fd())
	before, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	own := os.Getpid()
	if err != nil || before != syscall.Getpgrp() || before == own {
		return func() {} // no terminal, not in its foreground, or alone there already
	}
	// Handing it on stops a process that is not in the foreground, unless it says no.
	signal.Ignore(syscall.SIGTTOU)
	if syscall.Setpgid(0, 0) != nil {
		return func() {}
	}
	if unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, own) != nil {
		_ = syscall.Setpgid(0, before)
		return func() {}
	}
	return func() { _ = unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, before) }
}
