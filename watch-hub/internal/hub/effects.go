package hub

import (
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Effect is something for the caller to do: one of the types below.
type Effect interface{ effect() }

// StartHistory asks for the changes of (After, UpTo] in some ranges; the answers bear Pass.
type StartHistory struct {
	Pass        uint64
	After, UpTo int64
	Ranges      []*consensusv1.KeyRange
}

// Processed says that a message of a pass was taken in: the next one may come.
type Processed struct{ Pass uint64 }

// StopHistory says that a pass needs no more; nothing may come for it from now on.
type StopHistory struct{ Pass uint64 }

// LookUp asks for key-values as they were after exactly these revisions.
type LookUp struct{ Keys []*consensusv1.KeyAt }

func (StartHistory) effect() {}
func (Processed) effect()    {}
func (StopHistory) effect()  {}
func (LookUp) effect()       {}

// Dispatched is one interval that went to the live registrations.
type Dispatched struct {
	From, To  int64
	Revisions []*feedv1.Revision
	// Deliveries is how many were put into queues for it.
	Deliveries int
}

// Limits bound the work of a Core.
type Limits struct {
	// StepRevisions and StepBytes bound one step of the sweep.
	StepRevisions, StepBytes int
	// Passes bounds the history requests at a time, PassRanges the ranges in one, and PassSpan how far apart the starting
	// positions of registrations that share one may lie.
	Passes, PassRanges int
	PassSpan           int64
	// HeldBytes bounds what waits for previous values, per stream.
	HeldBytes int
	// Registrations bounds them per stream.
	Registrations int
	// LookUpKeys bounds the keys of one LookUp.
	LookUpKeys int
}

// DefaultLimits are what a hub uses.
func DefaultLimits() Limits {
	return Limits{
		StepRevisions: 1024, StepBytes: 1 << 20,
		Passes: 4, PassRanges: 256, PassSpan: 4096,
		HeldBytes: 16 << 20, Registrations: 1 << 20, LookUpKeys: 512,
	}
}

// The reasons of an Ended that is no compaction.
const (
	// ReasonOverflow: the proxy took so slowly that its queue was full.
	ReasonOverflow = "overflow"
	// ReasonTooMany: the stream has as many registrations as the hub allows.
	ReasonTooMany = "too many registrations"
)
