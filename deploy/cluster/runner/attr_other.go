//go:build !linux

package runner

import "syscall"

// ChildAttributes put a process in a group of its own, so that Ctrl-C reaches it only
// through the Runner and in the Runner's order.
func ChildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
