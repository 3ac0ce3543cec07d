package raftnode

import (
	"context"
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// Log is the durable log; [wal.Log] is the real one. All calls come from one goroutine. The first error ends the node: none is tried
// again, since after a failed write or sync nobody knows what the disk holds.
type Log interface {
	// Append writes consecutive entries, the first of which replaces all at or above its index, and the hard state if it is not
	// empty. With sync they are durable on return, as is all that was appended before. Nothing is kept of the arguments.
	Append(entries []*raftpb.Entry, hs *raftpb.HardState, sync bool) error
	// MarkSnapshot records, durably, that the log begins after m.Index. Where the log ends before m.Index, or has another term
	// there, all its entries are void.
	MarkSnapshot(m wal.SnapshotMark) error
	// Release gives back the space of entries at or below index, which a mark covers.
	Release(index uint64) error
	// Confirm makes everything durable and guards the last record, so that a flip in it is told from a torn write.
	Confirm() error
}

var _ Log = (*wal.Log)(nil)

// Applier is the replicated state with its database. Apply and InstallSnapshot are called from one goroutine, Image and Durable from
// any, at any time.
type Applier interface {
	// Apply applies committed entries in order; entries without data are raft's own. It must not keep or change them. An error is
	// fatal: the state machine is a function of the log, so an entry that cannot be applied here never can.
	Apply(entries []*raftpb.Entry) error
	// InstallSnapshot replaces the whole state by the image at path, whose index, term and membership are snap's. The image is
	// verified, durable and named as [IncomingImage] says; the Applier takes the file over (a rename over the database does).
	// On return the database is durably the image's.
	InstallSnapshot(ctx context.Context, snap *raftpb.SnapshotMetadata, path string) error
	// Image opens a consistent image of the database for sending.
	Image(ctx context.Context) (Image, error)
	// Durable is the consistent index of the last database transaction that is known to be on the disk.
	Durable() uint64
}

// Image is the database as of one transaction.
type Image interface {
	// Metadata is index, term and ConfState, read in the very transaction that WriteTo streams.
	Metadata() *raftpb.SnapshotMetadata
	// Size is the number of bytes that WriteTo writes.
	Size() int64
	io.WriterTo
	io.Closer
}

// Transport carries messages to the other members. It may lose, delay and duplicate them.
type Transport interface {
	// Send queues messages to members other than this one. It never blocks, may be called at the same time from several goroutines,
	// and must not change the messages, which raft still reads; it does not keep msgs itself.
	Send(msgs []*raftpb.Message)
	// SendSnapshot streams img, announced by m (a MsgSnap that names it), and returns nil once the receiver has installed it. It does not
	// close img.
	SendSnapshot(ctx context.Context, m *raftpb.Message, img Image) error
}

// Hooks are told of a write's progress, for trace events, and of an installation's, for tests. A nil field costs nothing; what is set must be quick.
type Hooks struct {
	// Appended is called when the local log is durable up to index.
	Appended func(index uint64)
	// Committed is called when the commit index has moved to index.
	Committed func(index uint64)
	// Snapshot is called at each step of taking over a received image; the next step waits for it, and an error ends the node there.
	// A process may end at any of them, and goes on from there at its next start.
	Snapshot func(step SnapshotStep) error
}

// SnapshotStep is a point between two durable changes of an installation; see DESIGN.md.
type SnapshotStep string

// The steps in their order.
const (
	// SnapshotReceived: the image is whole, durable and named.
	SnapshotReceived SnapshotStep = "received"
	// SnapshotMarked: the log begins after the image's index.
	SnapshotMarked SnapshotStep = "marked"
	// SnapshotInstalled: the image is the database; the old log's space is not given back yet.
	SnapshotInstalled SnapshotStep = "installed"
)
