package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	"github.com/holdfastdb/holdfast/services/clock"
)

// Bounds that nobody needs to turn. Messages are capped so that one lost or slow message costs little; the bytes in flight to one
// follower allow 1 Gbit/s over 250 ms; committed entries wait for the state machine up to applyBytesMax.
const (
	messageBytesMax   = 1 << 20
	inflightMessages  = 512
	inflightBytesMax  = 32 << 20
	applyBytesMax     = 16 << 20
	workQueueMax      = 1024
	inboxMax          = 256
	proposalsPerRound = 128
)

// Config says who the node is, what it was, and what it works with.
type Config struct {
	// ID of this member; not 0.
	ID uint64
	// Tick is the heartbeat interval, default 100 ms. ElectionTicks of them without a leader start an election; default 10.
	Tick          time.Duration
	ElectionTicks int
	// Ticks, if set, replaces the clock: each value received is one tick.
	Ticks <-chan time.Time
	// Now reads a clock that goes on while the machine sleeps; default CLOCK_BOOTTIME.
	Now func() time.Duration

	// SnapshotCount is how many entries beyond CatchUpEntries gather before the log is cut, default 10,000; CatchUpEntries (default
	// 5,000) stay behind the applied index for followers that lag.
	SnapshotCount, CatchUpEntries uint64
	// LogBytesKept bounds the entries held in memory, default 32 MiB: past it the log is cut closer than CatchUpEntries (never above the
	// durable index of the database), to half of it. An entry may hold hundreds of writes, so a count of them says little. While an
	// image is under way LogBytesMax takes its place, default 256 MiB.
	LogBytesKept, LogBytesMax uint64
	// UncommittedBytesMax bounds what a leader takes in before it is committed, default 64 MiB; past it proposals are dropped.
	UncommittedBytesMax uint64
	// CommitHold is how long a leader may wait for the next entries before it tells followers of a new commit index; 0 tells them at
	// once. It delays what followers apply, and never what the leader answers. A read index that a follower asks for brings it the
	// commit index at once, and a follower whose Eager says so hears of each commit at once.
	CommitHold time.Duration
	// Eager tells whether somebody waits for what this node applies; it is asked at each acknowledgement and must be quick. nil: nobody does.
	Eager func() bool
	// ConfirmAfter is how long the log must be quiet before its last write is confirmed, default 50 ms.
	ConfirmAfter time.Duration

	// Mark, Entries and HardState are what the log held at the start (zero for a new one): Entries follow Mark.Index without a gap.
	Mark      wal.SnapshotMark
	Entries   []*raftpb.Entry
	HardState *raftpb.HardState
	// Applied, AppliedTerm and ConfState are the database's, of one transaction (zero for a new one).
	Applied, AppliedTerm uint64
	ConfState            *raftpb.ConfState
	// Bootstrap are all first members of a new cluster, the same on each; empty for a restart and for a member that joins. Context
	// is handed to the Applier in the membership change that adds the member.
	Bootstrap []raft.Peer

	Transport Transport
	Log       Log
	Applier   Applier
	Hooks     Hooks
	// Logger takes what is worth an operator's time; nil discards it.
	Logger *slog.Logger
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

func (c Config) withDefaults() Config {
	c.Tick = orDefault(c.Tick, 100*time.Millisecond)
	c.ElectionTicks = orDefault(c.ElectionTicks, 10)
	c.SnapshotCount = orDefault(c.SnapshotCount, 10_000)
	c.CatchUpEntries = orDefault(c.CatchUpEntries, 5_000)
	c.LogBytesMax = orDefault(c.LogBytesMax, 256<<20)
	c.LogBytesKept = min(orDefault(c.LogBytesKept, 32<<20), c.LogBytesMax)
	c.UncommittedBytesMax = orDefault(c.UncommittedBytesMax, 64<<20)
	c.ConfirmAfter = orDefault(c.ConfirmAfter, 50*time.Millisecond)
	c.Logger = orDefault(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = clock.Boottime{}.Now
	}
	if c.ConfState == nil {
		c.ConfState = &raftpb.ConfState{}
	}
	return c
}

// check reports what would otherwise be a panic inside raft.
func (c *Config) check() error {
	switch {
	case c.ID == 0 || raft.IsLocalMsgTarget(c.ID):
		return fmt.Errorf("member id %x is reserved", c.ID)
	case c.ElectionTicks < 2:
		return fmt.Errorf("election after %d ticks: must be at least 2", c.ElectionTicks)
	case c.Tick < 0 || c.ConfirmAfter < 0 || c.CommitHold < 0:
		return errors.New("a negative interval")
	case c.Transport == nil || c.Log == nil || c.Applier == nil:
		return errors.New("transport, log and applier must be given")
	}
	return c.checkStart()
}

// checkStart refuses a log and a database that do not continue each other. A consistent index beyond the log with no mark for it means
// that the log was lost or exchanged: votes and acknowledged entries may be gone with it.
func (c *Config) checkStart() error {
	first, last := c.Mark.Index+1, c.Mark.Index+uint64(len(c.Entries))
	refuse := func(format string, args ...any) error {
		return &StartError{Reason: fmt.Sprintf(format, args...), Applied: c.Applied, LogFirst: first, LogLast: last}
	}
	for i, e := range c.Entries {
		if e.GetIndex() != first+uint64(i) {
			return refuse("the log has entry %d where %d belongs", e.GetIndex(), first+uint64(i))
		}
	}
	switch {
	case c.Applied > last:
		return refuse("the database is ahead of the log, which has no snapshot mark for it")
	case c.Applied < c.Mark.Index:
		return refuse("the database ends before the log begins, and no received image fills the gap")
	case c.HardState.GetCommit() > last:
		return refuse("the log says that entry %d is committed and does not hold it", c.HardState.GetCommit())
	case len(c.Bootstrap) > 0 && (last > 0 || !raft.IsEmptyHardState(c.HardState)):
		return refuse("a new cluster cannot begin with a log that is not empty")
	}
	term := c.Mark.Term
	if c.Applied > c.Mark.Index {
		term = c.Entries[c.Applied-first].GetTerm()
	}
	if c.AppliedTerm != 0 && term != c.AppliedTerm {
		return refuse("the database's entry %d is of term %d, the log's of term %d", c.Applied, c.AppliedTerm, term)
	}
	return nil
}
