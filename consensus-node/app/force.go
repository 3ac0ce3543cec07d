package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// forceNewCluster makes a cluster of this member alone of its data directory, for when the majority is lost for good. What is not known to
// be committed is dropped from the log, unless this member was the only voter. What is, is followed by entries of a new term that count as committed: they promote this
// member if it is a learner, remove all others for ever, and raise the epoch of the lease view with no instance in it, so that nothing
// counts that a lease-service decided before. Keys, leases, ids of cluster and member stay.
//
// A crash at any point leaves either the directory as it was or the whole change: log before database, as always.
func (d *disk) forceNewCluster(cfg *Config, options store.Options) error {
	if len(d.bootstrap) > 0 || d.unborn() {
		return nil // there is nothing to force: it begins as the flags say
	}
	if d.meta.Index < d.state.Snapshot.Index {
		return nil // an image was lost: the start refuses that, and nothing may be written to such a log
	}
	offline, err := d.offline(cfg)
	if err != nil {
		return err
	}
	defer offline.Close()
	commit := max(d.state.HardState.GetCommit(), d.meta.Index)
	if last := d.log.LastIndex(); commit > last {
		return failure.New(failure.Storage, fmt.Sprintf(
			"--force-new-cluster: entry %d is committed, and the raft log in %s ends at %d: use the data of another member", commit, cfg.DataDir, last))
	}
	if commit, err = d.applyCommitted(offline, commit); err != nil {
		return failure.Wrap(failure.Storage, "the log in "+cfg.DataDir+" cannot be applied", err)
	}
	forced, err := d.forcedEntries(cfg, offline, commit)
	if err != nil {
		return err
	}
	last := forced[len(forced)-1]
	d.state.HardState = &raftpb.HardState{Term: last.Term, Vote: new(d.state.Metadata.NodeID), Commit: last.Index}
	if err := d.log.Append(forced, d.state.HardState, true); err != nil {
		return openError(cfg, "raft log", err)
	}
	d.state.Entries = append(d.state.Entries, forced...)
	if err := offline.Apply(forced); err != nil {
		return failure.Wrap(failure.Storage, "a new cluster cannot be made of "+cfg.DataDir, err)
	}
	return d.reopenStore(cfg, options, offline)
}

// applyCommitted applies what is committed, and drops the rest of the entries. Beside what the log knows to be committed that is whatever
// follows while this member is the only voter: its own log alone decides then, and the commit index is written later than the entries that
// were acknowledged. It gives the last index.
func (d *disk) applyCommitted(offline *node.Node, commit uint64) (uint64, error) {
	mark := d.state.Snapshot.Index
	if err := offline.Apply(d.state.Entries[:commit-mark]); err != nil {
		return 0, err
	}
	for ; commit < d.log.LastIndex(); commit++ {
		view, err := offline.Current()
		if err != nil {
			return 0, err
		}
		self, _ := view.Members.Get(d.state.Metadata.NodeID)
		voters, _ := view.Members.Voters()
		view.Release()
		if voters != 1 || self.ID == 0 || self.Learner {
			break
		}
		if err := offline.Apply(d.state.Entries[commit-mark : commit-mark+1]); err != nil {
			return 0, err
		}
	}
	d.state.Entries = d.state.Entries[:commit-mark]
	return commit, nil
}

// reopenStore writes what was applied, so that the start finds it like that of any earlier run.
func (d *disk) reopenStore(cfg *Config, options store.Options, offline *node.Node) error {
	offline.Close()
	ctx, cancel := context.WithTimeout(context.Background(), forceMax)
	defer cancel()
	if err := d.store.Close(ctx); err != nil {
		return failure.Wrap(failure.Storage, "the database in "+cfg.DataDir+" could not be written", err)
	}
	return d.openStore(cfg, options)
}

// forceMax bounds the writing of the database before the start.
const forceMax = 10 * closeMax

// forcedEntries are the entries that make this member the only one.
func (d *disk) forcedEntries(cfg *Config, offline *node.Node, commit uint64) ([]*raftpb.Entry, error) {
	view, err := offline.Current()
	if err != nil {
		return nil, err
	}
	list, epoch := view.Members, view.Leases.Cluster().GetEpoch()
	view.Release()
	id := d.state.Metadata.NodeID
	self, ok := list.Get(id)
	switch {
	case list.IsRemoved(id):
		return nil, errRemoved(id, cfg.DataDir)
	case !ok:
		return nil, failure.New(failure.Config, fmt.Sprintf(
			"--force-new-cluster: member %x has not got as far in the log of its cluster as to know itself: use the data of another member", id))
	}
	f := forcing{index: commit, term: d.state.HardState.GetTerm() + 1}
	if self.Learner {
		f.change(member.Promote, id)
	}
	for _, m := range list.Members() {
		if m.ID != id {
			f.change(member.Remove, m.ID)
		}
	}
	entry := &journalv1.Entry{Version: propose.EntryVersion, Commands: []*journalv1.Command{
		{Command: &journalv1.Command_ViewChange{ViewChange: &journalv1.ViewChange{FromEpoch: epoch}}},
	}}
	data, err := entry.MarshalVT()
	f.add(raftpb.EntryNormal, data, err)
	return f.entries, f.err
}

// forcing makes entries that follow each other.
type forcing struct {
	index, term uint64
	entries     []*raftpb.Entry
	err         error
}

func (f *forcing) change(kind member.Kind, id uint64) {
	cc, err := member.ConfChange(kind, &journalv1.MemberContext{MemberId: id})
	if err != nil {
		f.err = errors.Join(f.err, err)
		return
	}
	typ, data, err := raftpb.MarshalConfChange(cc)
	f.add(typ, data, err)
}

func (f *forcing) add(typ raftpb.EntryType, data []byte, err error) {
	f.index++
	f.err = errors.Join(f.err, err)
	f.entries = append(f.entries, &raftpb.Entry{Type: typ.Enum(), Index: new(f.index), Term: new(f.term), Data: data})
}

// offline is the state of this directory with nobody around it.
func (d *disk) offline(cfg *Config) (*node.Node, error) {
	machine, err := node.RestoreMachine(node.Database(d.store))
	if err != nil {
		return nil, openError(cfg, "database", err)
	}
	view := machine.View()
	ring := outbox.NewRing(outbox.State{
		Head: view.KV.Revision(), Compact: max(0, view.KV.CompactRevision()), LeaseSequence: view.Leases.Sequence(),
	}, 0)
	offline, err := node.New(node.Config{Machine: machine, Store: node.Database(d.store), Ring: ring, Waiting: nobody{}})
	if err != nil {
		return nil, err
	}
	members, err := newMembership(d.meta)
	if err != nil {
		return nil, err
	}
	offline.UseRaft(members)
	return offline, nil
}

// nobody waits for outcomes.
type nobody struct{}

func (nobody) Waits(uint64) bool     { return false }
func (nobody) Resolve(apply.Outcome) {}
func (nobody) Applied(uint64)        {}
func (nobody) Jumped(uint64)         {}

// membership is raft as far as the membership goes; nobody talks to it.
type membership struct{ raw *raft.RawNode }

func newMembership(meta store.Meta) (*membership, error) {
	storage := raft.NewMemoryStorage()
	if meta.Index > 0 {
		err := storage.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: new(meta.Index), Term: new(meta.Term), ConfState: meta.ConfState,
		}})
		if err != nil {
			return nil, fmt.Errorf("reading the membership: %w", err)
		}
	}
	raw, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, MaxInflightMsgs: 1, MaxSizePerMsg: 1, Applied: meta.Index,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	return &membership{raw: raw}, err
}

// ReadIndex is asked by nobody.
func (*membership) ReadIndex(context.Context) (uint64, error) {
	return 0, errors.New("a node that is offline reads nothing linearizably")
}

// ApplyConfChange follows a change.
func (m *membership) ApplyConfChange(cc raftpb.ConfChangeI) (*raftpb.ConfState, error) {
	return raftnode.ApplyConfChange(m.raw, cc)
}
