package failure

import "errors"

// The exit codes of every Holdfast process.
const (
	ExitOK      = 0 // ended by SIGTERM or SIGINT, or done
	ExitInput   = 1 // bad input or configuration, and every failure without a code of its own
	ExitStorage = 2 // a failed write or fsync, or corruption: look at the disk before starting again
	ExitRemoved = 3 // removed from the cluster: starting again is no use
)

// ExitCode is the exit code for the error a process ended with; nil is ExitOK. The gravest kind anywhere in the chain
// or in joined errors decides, so that wrapping a storage failure cannot hide it from a supervisor.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, New(Storage, "")), errors.Is(err, New(Corrupt, "")):
		return ExitStorage
	case errors.Is(err, New(Removed, "")):
		return ExitRemoved
	}
	return ExitInput
}
