//go:build !linux

package main

import "errors"

const execOnCommand = "exec-on"

// errLinux ends a run: without /proc there is no processor time to compare.
var errLinux = errors.New("the comparison needs Linux")

type usage struct {
	cpuSeconds    float64
	peakBytes     int64
	residentBytes int64
}

func execOn([]string) error                                  { return errLinux }
func pinSelf(int) error                                      { return errLinux }
func pinned(int, string, []string) (string, []string, error) { return "", nil, errLinux }
func serverEnvironment() []string                            { return nil }
func usageOf(int) (usage, error)                             { return usage{}, errLinux }
func forgetPeak(int) error                                   { return errLinux }
func isTmpfs(string) bool                                    { return false }
func busySeconds(int) (float64, error)                       { return 0, errLinux }
