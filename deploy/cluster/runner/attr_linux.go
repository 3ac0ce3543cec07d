package runner

import "syscall"

// ChildAttributes put a process in a group of its own, so that Ctrl-C reaches it only
// through the Runner and in the Runner's order, and have the kernel end it when the
// thread that started it is gone: the caller keeps that thread (LockOSThread).
func ChildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
