package wal

import "fmt"

// DamageError says that a part of the log that was durable is not as it was written, or is missing. Nothing was changed.
type DamageError struct {
	File   string // path of the damaged or missing file
	Offset int64  // of the first bad byte's record or group
	Reason string
	// Survives is the index of the last entry that is intact before the damage (or the snapshot's, if none follows it).
	Survives uint64
	Hint     string // what the operator can do
}

// Error implements error, on one line.
func (e *DamageError) Error() string {
	return fmt.Sprintf("the raft log is damaged: %s at byte %d: %s; what precedes it is intact up to index %d; %s",
		e.File, e.Offset, e.Reason, e.Survives, e.Hint)
}

// hint names the choices. Cutting the log by hand is none: it could undo a vote or an acknowledged write.
const hint = "choices: put the file back if it was moved; or remove this member from the cluster, empty its data directory and " +
	"add it again, so that it takes the data from the others; or, if a majority is lost, restore a snapshot on all members"
