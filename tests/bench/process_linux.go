package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execOnCommand makes this program a launcher: `bench exec-on CPU PROGRAM ARG...` pins itself and becomes PROGRAM under
// the same pid.
const execOnCommand = "exec-on"

// pinnedVariable tells the program, started again by pinSelf, that it is pinned.
const pinnedVariable = "HOLDFAST_BENCH_PINNED"

// execOn returns only with an error.
func execOn(args []string) error {
	if len(args) < 2 {
		return errors.New("exec-on wants a processor and a program")
	}
	cpu, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("processor: %w", err)
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	return become(cpu, path, args[1:], os.Environ())
}

// become pins this thread and replaces the process by a program: all threads of the new one inherit the thread's
// processor, which they would not if a running Go process pinned itself.
func become(cpu int, path string, argv, env []string) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("processor %d: %w", cpu, err)
	}
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, argv, env))
}

// pinSelf starts this program again on the processor, unless that has happened.
func pinSelf(cpu int) error {
	if os.Getenv(pinnedVariable) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return become(cpu, self, os.Args, append(os.Environ(), pinnedVariable+"=1"))
}

// pinned wraps a program's command line so that it runs on the processor.
func pinned(cpu int, path string, args []string) (string, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	return self, append([]string{execOnCommand, strconv.Itoa(cpu), path}, args...), nil
}

// serverEnvironment is what servers must not inherit from us.
func serverEnvironment() []string { return []string{pinnedVariable + "="} }

// usage is what one process has taken.
type usage struct {
	cpuSeconds    float64
	peakBytes     int64 // of resident memory
	residentBytes int64 // now
}

// clockTicks is the unit of /proc: fixed at 100 a second on every Linux that Go runs on.
const clockTicks = 100

// usageOf reads user and kernel time and the peak of resident memory.
func usageOf(pid int) (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The program's name stands in brackets and may hold anything: count fields behind the last bracket, where
	// the state is field 3.
	_, after, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(after)
	const utime, stime = 14 - 3, 15 - 3
	if !ok || len(fields) <= stime {
		return u, fmt.Errorf("/proc/%d/stat has no times", pid)
	}
	for _, field := range []string{fields[utime], fields[stime]} {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return u, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		u.cpuSeconds += float64(ticks) / clockTicks
	}
	u.peakBytes, u.residentBytes, err = memoryOf(pid)
	return u, err
}

func memoryOf(pid int) (peak, resident int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	found := 0
	for line := range strings.Lines(string(status)) {
		for name, to := range map[string]*int64{"VmHWM:": &peak, "VmRSS:": &resident} {
			rest, ok := strings.CutPrefix(line, name)
			if !ok {
				continue
			}
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return 0, 0, err
			}
			*to = kib << 10
			found++
		}
	}
	if found != 2 {
		return 0, 0, fmt.Errorf("/proc/%d/status does not tell memory", pid)
	}
	return peak, resident, nil
}

// forgetPeak makes a process's peak of memory what it holds now.
func forgetPeak(pid int) error {
	const peak = "5"
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(peak), 0o600)
}

// isTmpfs says whether a folder lies in memory.
func isTmpfs(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// busySeconds is how long a processor has worked for anyone at all since the machine started.
func busySeconds(cpu int) (float64, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(stat)) {
		fields := strings.Fields(line)
		// Name, user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user and nice.
		const idle, iowait, last = 4, 5, 8
		if len(fields) <= last || fields[0] != fmt.Sprintf("cpu%d", cpu) {
			continue
		}
		busy := 0.0
		for i, field := range fields[1 : last+1] {
			if i+1 == idle || i+1 == iowait {
				continue
			}
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			busy += float64(ticks) / clockTicks
		}
		return busy, nil
	}
	return 0, fmt.Errorf("/proc/stat has no processor %d", cpu)
}
