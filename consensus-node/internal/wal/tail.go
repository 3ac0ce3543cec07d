package wal

import (
	"fmt"
	"sort"

	"go.etcd.io/raft/v3/raftpb"
)

// hardState is raftpb.HardState as a value that compares.
type hardState struct{ term, vote, commit uint64 }

func (h hardState) message() *raftpb.HardState {
	return &raftpb.HardState{Term: &h.term, Vote: &h.vote, Commit: &h.commit}
}

// tail is what one must know of a log to append to it. The writer and the reader run it over the same changes, so that
// what the one lets in the other accepts.
type tail struct {
	last uint64 // index of the last entry, or of the mark if none follows it
	hard hardState
	mark SnapshotMark
	runs []termRun // terms of the entries from the first run on up to last, ascending
}

// termRun says that the entries from first on, up to the next run, have this term.
type termRun struct{ first, term uint64 }

// checkEntry says why an entry cannot be the next one: entries leave no gap and replace only what no snapshot covers.
func (t *tail) checkEntry(index uint64) error {
	switch {
	case index > t.last+1:
		return fmt.Errorf("entry %d does not follow the last one, %d", index, t.last)
	case index <= t.mark.Index:
		return fmt.Errorf("entry %d is already covered by the snapshot at %d", index, t.mark.Index)
	}
	return nil
}

// entry appends an entry, in place of all at or above its index.
func (t *tail) entry(index, term uint64) {
	for len(t.runs) > 0 && t.runs[len(t.runs)-1].first >= index {
		t.runs = t.runs[:len(t.runs)-1]
	}
	if n := len(t.runs); n == 0 || t.runs[n-1].term != term {
		t.runs = append(t.runs, termRun{index, term})
	}
	t.last = index
}

// term returns the term of an entry; false if the log does not know it.
func (t *tail) term(index uint64) (uint64, bool) {
	if index == t.mark.Index {
		return t.mark.Term, true
	}
	n := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].first > index })
	if n == 0 || index > t.last {
		return 0, false
	}
	return t.runs[n-1].term, true
}

// conflicts reports whether a snapshot at the mark voids all entries: they end before it, or another leader's stand there.
// (Raft installs a snapshot over a log that differs and then holds nothing but the snapshot.)
func (t *tail) conflicts(m SnapshotMark) bool {
	if m.Index > t.last {
		return true
	}
	term, known := t.term(m.Index)
	return known && term != m.Term
}

// setMark applies a snapshot mark; reset is what conflicts said when it was written.
func (t *tail) setMark(m SnapshotMark, reset bool) {
	t.mark = m
	if reset {
		t.last, t.runs = m.Index, t.runs[:0]
	}
	// Keep the run in which the mark lies: it has the terms after it.
	drop := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].first > m.Index }) - 1
	if drop > 0 {
		t.runs = append(t.runs[:0], t.runs[drop:]...)
	}
}

// checkMark says why a mark cannot follow the present one.
func (t *tail) checkMark(m SnapshotMark) error {
	if m.Index < t.mark.Index || m.Index == t.mark.Index && m.Index > 0 && m.Term != t.mark.Term {
		return fmt.Errorf("snapshot mark (index %d, term %d) after (index %d, term %d)", m.Index, m.Term, t.mark.Index, t.mark.Term)
	}
	return nil
}
