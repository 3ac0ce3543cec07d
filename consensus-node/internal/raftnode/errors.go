package raftnode

import (
	"errors"
	"fmt"
)

var (
	// ErrStopped is returned once the node has ended. The proposal or read was not carried out.
	ErrStopped = errors.New("raft: the node has stopped")
	// ErrDropped is matched by every error that says "certainly not proposed" although this node leads.
	ErrDropped = errors.New("raft: not proposed")
	// ErrTooManyUncommitted is the ErrDropped of a log whose uncommitted end has reached its bound: try again later.
	ErrTooManyUncommitted = fmt.Errorf("%w: too much of the log is not committed yet", ErrDropped)
	// ErrTransferring is the ErrDropped of a leader that is handing over.
	ErrTransferring = fmt.Errorf("%w: leadership is being handed over", ErrDropped)
	// ErrConfChangeRefused is the ErrDropped of a membership change that came before an earlier one was applied, or that
	// does not fit the present configuration. An empty entry took its place in the log.
	ErrConfChangeRefused = fmt.Errorf("%w: another membership change is not applied yet, or this one does not fit", ErrDropped)
	// ErrSnapshotRefused is matched by every error after which a received image is still the caller's.
	ErrSnapshotRefused = errors.New("raft: snapshot refused")
	// ErrSnapshotIgnored is the ErrSnapshotRefused of a snapshot that raft had no use for.
	ErrSnapshotIgnored = fmt.Errorf("%w: it is not newer than the log, or its leader is deposed", ErrSnapshotRefused)
	// ErrSnapshotBusy is the ErrSnapshotRefused that meets a snapshot while another is being installed.
	ErrSnapshotBusy = fmt.Errorf("%w: another one is being installed", ErrSnapshotRefused)
	// ErrTransferFailed is returned if leadership did not move within one election timeout.
	ErrTransferFailed = errors.New("raft: leadership was not handed over within the election timeout")
)

// NotLeaderError says that a proposal was not made because this node does not lead.
type NotLeaderError struct {
	// Leader is the member that leads, as far as this node knows; 0 if it knows of none.
	Leader uint64
}

func (e *NotLeaderError) Error() string {
	if e.Leader == 0 {
		return "raft: not proposed: there is no leader"
	}
	return fmt.Sprintf("raft: not proposed: member %x leads", e.Leader)
}

// Cause tells the reasons apart for which a node ends.
type Cause string

// The causes of a FatalError.
const (
	// CauseLog: the log could not be written or synced.
	CauseLog Cause = "raft log"
	// CauseApply: a committed entry or a snapshot could not be applied.
	CauseApply Cause = "state machine"
	// CauseRaft: raft found its state contradictory, as after a lost or exchanged data directory.
	CauseRaft Cause = "raft state"
)

// FatalError is why Run ended by itself. The process must end: nothing is retried on a disk or a state that failed once.
type FatalError struct {
	Cause Cause
	Err   error
}

func (e *FatalError) Error() string { return fmt.Sprintf("%s failed: %v", e.Cause, e.Err) }

func (e *FatalError) Unwrap() error { return e.Err }

// StartError says why log and database cannot be started together. Nothing was changed.
type StartError struct {
	// Reason is what does not fit.
	Reason string
	// Applied is the index of the database; LogFirst-1 and LogLast bound the indexes that the log can go on from.
	Applied, LogFirst, LogLast uint64
}

func (e *StartError) Error() string {
	return fmt.Sprintf("%s (database at index %d, log holds %d to %d): log and database do not belong together; "+
		"remove this member and add it again with an empty data directory, or restore the cluster from a snapshot",
		e.Reason, e.Applied, e.LogFirst, e.LogLast)
}
