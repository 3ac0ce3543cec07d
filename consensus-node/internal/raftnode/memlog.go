package raftnode

import (
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// memlog is raft's view of what the log holds: the entries above a mark, in memory, and what a snapshot would cover. The raft
// goroutine reads and cuts it, the append goroutine appends to it, the apply goroutine says how far it came. Entries are never changed,
// and no element of a slice that was given out is overwritten: truncating copies.
type memlog struct {
	mu        sync.Mutex
	mark      wal.SnapshotMark // the entry before the first
	entries   []*raftpb.Entry
	bytes     uint64 // of entries, as entryBytes counts
	hardState *raftpb.HardState
	initial   *raftpb.ConfState
	applied   raftpb.SnapshotMetadata // what a snapshot taken now is said to cover
}

var _ raft.Storage = (*memlog)(nil)

// entryOverhead is what an entry costs beside its data: pointers, boxed index and term, the slice element.
const entryOverhead = 120

func entryBytes(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + entryOverhead }

func newMemlog(c *Config) *memlog {
	l := &memlog{mark: c.Mark, entries: c.Entries, initial: c.ConfState}
	for _, e := range c.Entries {
		l.bytes += entryBytes(e)
	}
	// The log may have kept an older commit index than the database proves.
	l.hardState = &raftpb.HardState{
		Term:   new(max(c.HardState.GetTerm(), c.Mark.Term)),
		Vote:   new(c.HardState.GetVote()),
		Commit: new(max(c.HardState.GetCommit(), c.Applied)),
	}
	if c.HardState.GetTerm() < c.Mark.Term {
		l.hardState.Vote = new(uint64(0)) // no vote was cast in a term that was never written
	}
	if c.Applied > 0 {
		term, _ := l.term(c.Applied)
		l.setApplied(c.Applied, term, c.ConfState)
	}
	return l
}

// InitialState implements raft.Storage.
func (l *memlog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.hardState, l.initial, nil
}

// Entries implements raft.Storage.
func (l *memlog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case lo <= l.mark.Index:
		return nil, raft.ErrCompacted
	case hi > l.last()+1 || lo >= hi:
		return nil, raft.ErrUnavailable
	}
	part := l.entries[lo-l.mark.Index-1 : hi-l.mark.Index-1]
	n, size := 0, uint64(0)
	for ; n < len(part); n++ {
		size += entryBytes(part[n])
		if n > 0 && size > maxSize {
			break
		}
	}
	return part[:n:n], nil
}

// Term implements raft.Storage.
func (l *memlog) Term(index uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term(index)
}

func (l *memlog) term(index uint64) (uint64, error) {
	switch {
	case index < l.mark.Index:
		return 0, raft.ErrCompacted
	case index > l.last():
		return 0, raft.ErrUnavailable
	case index == l.mark.Index:
		return l.mark.Term, nil
	}
	return l.entries[index-l.mark.Index-1].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (l *memlog) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last(), nil
}

func (l *memlog) last() uint64 { return l.mark.Index + uint64(len(l.entries)) }

// FirstIndex implements raft.Storage.
func (l *memlog) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mark.Index + 1, nil
}

// Snapshot implements raft.Storage. It names what has been applied; what is sent is an image opened later, under its own metadata. The log
// is cut only below what the database has durably, so every image reaches the log's beginning.
func (l *memlog) Snapshot() (*raftpb.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.applied.GetIndex() == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: l.applied.Index, Term: l.applied.Term, ConfState: l.applied.ConfState,
	}}, nil
}

func (l *memlog) setApplied(index, term uint64, cs *raftpb.ConfState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied.Index, l.applied.Term, l.applied.ConfState = &index, &term, cs
}

// append adds durable entries; the first replaces all at or above its index. Those at or below the mark are left out.
func (l *memlog) append(entries []*raftpb.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(entries) > 0 && entries[0].GetIndex() <= l.mark.Index {
		entries = entries[1:]
	}
	if len(entries) == 0 {
		return
	}
	if keep := entries[0].GetIndex() - l.mark.Index - 1; keep < uint64(len(l.entries)) {
		for _, e := range l.entries[keep:] {
			l.bytes -= entryBytes(e)
		}
		l.entries = l.entries[:keep:keep]
	}
	for _, e := range entries {
		l.bytes += entryBytes(e)
	}
	l.entries = append(l.entries, entries...)
}

// reset makes the log begin, empty, after a snapshot.
func (l *memlog) reset(m wal.SnapshotMark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark, l.entries, l.bytes = m, nil, 0
}

// cut drops the entries up to index, which must have been applied, and returns the mark that takes their place.
func (l *memlog) cut(index uint64) wal.SnapshotMark {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index <= l.mark.Index || index > l.last() {
		return l.mark
	}
	n := index - l.mark.Index
	term := l.entries[n-1].GetTerm()
	for _, e := range l.entries[:n] {
		l.bytes -= entryBytes(e)
	}
	// A new array: the old one would keep what was cut alive.
	l.entries = append(make([]*raftpb.Entry, 0, 2*(uint64(len(l.entries))-n)), l.entries[n:]...)
	l.mark = wal.SnapshotMark{Index: index, Term: term}
	return l.mark
}

// extent returns the index before the first entry, the last index, and the bytes held.
func (l *memlog) extent() (mark, last, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mark.Index, l.last(), l.bytes
}

// above returns the smallest index whose following entries take at most limit bytes.
func (l *memlog) above(limit uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := uint64(0)
	for i, e := range slices.Backward(l.entries) {
		if size += entryBytes(e); size > limit {
			return l.mark.Index + uint64(i) + 1
		}
	}
	return l.mark.Index
}
