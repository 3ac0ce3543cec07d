//go:build !linux

package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// boottime reads CLOCK_MONOTONIC, which on macOS goes on while the machine sleeps. Holdfast is developed on such systems
// but its promises are made for Linux.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("clock: cannot read CLOCK_MONOTONIC: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
