package node

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// storeBatch passes on what apply changed in the terms of the store; the two packages do not know each other.
func storeBatch(b apply.Batch) store.Batch {
	out := store.Batch{
		Index: b.Index, Term: b.Term, ConfState: b.ConfState,
		Writes: b.Writes, Encoded: b.Encoded, Drop: b.Drop,
	}
	if len(b.Rows) > 0 {
		out.Rows = make([]store.Row, len(b.Rows))
	}
	for i, r := range b.Rows {
		out.Rows[i] = store.Row(r)
	}
	return out
}

// loader reads a store for apply.Restore.
type loader struct {
	store  Store
	reader Reader
}

func (l loader) Revisions(fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error {
	return l.reader.Visit(fn)
}

func (l loader) Rows(bucket string, fn func(key, value []byte) error) error {
	return l.store.ForEach(bucket, fn)
}

// RestoreMachine makes the replicated state that a store holds.
func RestoreMachine(s Store) (*apply.Machine, error) {
	reader, err := s.Reader()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return apply.Restore(loader{store: s, reader: reader})
}

// confChange reads a membership change of either version.
func confChange(entry *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	if entry.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(entry.GetData(), cc); err != nil {
			return nil, fmt.Errorf("membership change is not readable: %w", err)
		}
		return cc.AsV2(), nil
	}
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(entry.GetData(), cc); err != nil {
		return nil, fmt.Errorf("membership change is not readable: %w", err)
	}
	return cc, nil
}

// ringState is what the outbox says after the machine's last entry.
func ringState(view *apply.View) outbox.State {
	return outbox.State{
		Head: view.KV.Revision(), Compact: max(0, view.KV.CompactRevision()), LeaseSequence: view.Leases.Sequence(),
	}
}

// Image opens a consistent image of the database.
func (n *Node) Image(ctx context.Context) (raftnode.Image, error) {
	return n.cfg.Store.Image(ctx)
}

// Durable is the fsynced consistent index of the database.
func (n *Node) Durable() uint64 { return n.cfg.Store.Durable() }

// InstallSnapshot replaces the whole state by a received image. Views opened before keep the old file until they are
// released; the feed says that the state jumped.
func (n *Node) InstallSnapshot(_ context.Context, _ *raftpb.SnapshotMetadata, path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cfg.Observer.Installing(true)
	defer n.cfg.Observer.Installing(false)
	if err := n.cfg.Store.Install(path); err != nil {
		return err
	}
	machine, err := RestoreMachine(n.cfg.Store)
	if err != nil {
		return err
	}
	n.listen(machine)
	n.machine, n.compacting = machine, compaction{}
	if err := n.publish(); err != nil {
		return err
	}
	view := machine.View()
	n.cfg.Ring.Reset(ringState(view))
	n.advance(view)
	n.cfg.Waiting.Jumped(view.Index)
	n.cfg.Waiting.Applied(view.Term)
	if n.cfg.Changed != nil {
		n.cfg.Changed()
	}
	notify(n.compact)
	return nil
}
