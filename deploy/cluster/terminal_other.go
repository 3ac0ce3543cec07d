//go:build !linux

package main

// takeTerminal does nothing here: Ctrl-C also reaches the make that called.
func takeTerminal() (restore func()) { return func() {} }
