package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// ErrClosed is what a Log returns after Close.
var ErrClosed = errors.New("the raft log is closed")

// Log is an open raft log. Its methods may be called at the same time and take turns; a sync holds up the others.
type Log struct {
	fs   vfs.FS
	dir  string
	opts Options
	md   Metadata

	mu       sync.Mutex
	err      error // the first failure; nothing is done after it
	lock     io.Closer
	segments []segmentInfo // ascending; the last is being written
	spares   []string
	group    group // reused
	// wanted has a token when a spare is wanted, and preparing is set while one is made.
	wanted    chan struct{}
	preparing bool

	tail
	file vfs.File // the last segment
	place
	size    int64 // of the last segment
	durable int64 // everything before this offset is on the disk
	claimed int64 // the largest durable offset that a durable header states
	dataEnd int64 // end of the last group with records
}

// Create makes a new log in dir, which it makes too. It returns an error that is fs.ErrExist if there is a log already, and one that
// is vfs.ErrLocked if another process has it open.
func Create(fsys vfs.FS, dir string, md Metadata, opts Options) (*Log, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("create the raft log: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("create the raft log: %w", err)
	}
	l := &Log{fs: fsys, dir: dir, opts: opts.withDefaults(), md: md, lock: lock, wanted: make(chan struct{}, 1)}
	if err := l.create(); err != nil {
		return nil, fmt.Errorf("create the raft log in %s: %w", dir, errors.Join(err, lock.Close()))
	}
	return l, nil
}

// Exists reports whether dir holds a log; one whose Create did not come to its end is none.
func Exists(fsys vfs.FS, dir string) bool {
	seqs, _, err := listSegments(fsys, dir)
	return err == nil && len(seqs) > 0
}

// Append writes entries and the hard state as one group, and with sync makes them and all before them durable.
//
// Entries are consecutive; the first replaces all at or above its index, and lies at most one after the last and above the
// snapshot mark (else the call fails, nothing is written, and the Log stays usable). hs may be nil or empty. Nothing is kept of the
// arguments. Without entries and hard state it only syncs what is not durable yet.
func (l *Log) Append(entries []*raftpb.Entry, hs *raftpb.HardState, sync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.checkEntries(entries); err != nil {
		return err
	}
	l.group.reset()
	for _, e := range entries {
		if err := l.group.addMessage(recordEntry, e); err != nil {
			return err
		}
	}
	hard := hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}
	if hard != (hardState{}) {
		if err := l.group.addMessage(recordHardState, hs); err != nil {
			return err
		}
	}
	if err := l.write(sync, false); err != nil {
		return err
	}
	for _, e := range entries {
		l.entry(e.GetIndex(), e.GetTerm())
	}
	if n := len(entries); n > 0 {
		cur := &l.segments[len(l.segments)-1]
		cur.lastIndex = max(cur.lastIndex, entries[n-1].GetIndex())
	}
	if hard != (hardState{}) {
		l.hard = hard
	}
	return nil
}

func (l *Log) checkEntries(entries []*raftpb.Entry) error {
	for i, e := range entries {
		if i == 0 {
			if err := l.checkEntry(e.GetIndex()); err != nil {
				return fmt.Errorf("append to the raft log: %w", err)
			}
		} else if e.GetIndex() != entries[i-1].GetIndex()+1 {
			return fmt.Errorf("append to the raft log: entry %d after entry %d", e.GetIndex(), entries[i-1].GetIndex())
		}
	}
	return nil
}

// MarkSnapshot records, durably, that the database holds all up to m.Index. Open returns only what follows. If the log ends before
// the mark or has an entry of another term there, all its entries are void. A mark never goes back (that is refused as in Append).
func (l *Log) MarkSnapshot(m SnapshotMark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if err := l.checkMark(m); err != nil {
		return fmt.Errorf("mark a snapshot in the raft log: %w", err)
	}
	reset, kind := l.conflicts(m), recordMark
	if reset {
		kind = recordReset
	}
	l.group.reset()
	if err := l.group.addMessage(kind, m.message()); err != nil {
		return err
	}
	if err := l.write(true, false); err != nil {
		return err
	}
	if reset {
		capLastIndexes(l.segments, m.Index)
	}
	l.setMark(m, reset)
	return nil
}

// Confirm makes everything durable and then writes, durably, that it is: from then on a flipped bit in the last group is found
// as damage too. It does nothing if that stands written already.
func (l *Log) Confirm() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	return l.confirm()
}

func (l *Log) confirm() error {
	if l.durable < l.end {
		if err := l.sync(); err != nil {
			return err
		}
	}
	if l.claimed >= l.dataEnd {
		return nil
	}
	l.group.reset()
	return l.write(true, true)
}

// write puts the group in its place, in one write, and syncs if asked. An empty one is written only to confirm.
func (l *Log) write(sync, confirm bool) error {
	if l.group.count > 0 || confirm {
		if l.end+l.group.size()+sealSize > l.size {
			if err := l.rotate(l.group.size()); err != nil {
				return l.fail("start a new segment of the raft log", err)
			}
			// The new segment's header confirms all before it.
		}
		if !confirm || l.claimed < l.dataEnd {
			if err := l.put(kindData); err != nil {
				return err
			}
		}
	}
	if sync && l.durable < l.end {
		return l.sync()
	}
	return nil
}

// put writes the group at the end of the last segment.
func (l *Log) put(kind groupKind) error {
	chain := l.group.finish(kind, l.place, l.durable)
	start := time.Now()
	if _, err := l.file.WriteAt(l.group.buf, l.end); err != nil {
		return l.fail("write the raft log", err)
	}
	if l.opts.ObserveWrite != nil {
		l.opts.ObserveWrite(len(l.group.buf), time.Since(start))
	}
	l.end, l.chain = l.end+l.group.size(), chain
	if l.group.count > 0 {
		l.dataEnd = l.end
	}
	l.wantSpare()
	return nil
}

func (l *Log) sync() error {
	start := time.Now()
	if err := l.file.Datasync(); err != nil {
		return l.fail("sync the raft log", err)
	}
	if l.opts.ObserveSync != nil {
		l.opts.ObserveSync(time.Since(start))
	}
	// The headers that are durable now were written when l.durable still had the value that they state.
	l.claimed, l.durable = max(l.claimed, l.durable), l.end
	return nil
}

// fail keeps the first failure: what the disk holds is unknown after it.
func (l *Log) fail(what string, err error) error {
	l.err = fmt.Errorf("%s in %s: %w", what, l.dir, err)
	return l.err
}

// LastIndex returns the index of the last entry, durable or not, or of the snapshot if no entry follows it.
func (l *Log) LastIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Close makes everything durable, confirms it, and gives the lock back. After a failure it does only the last, and returns
// that failure. A second Close returns ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, ErrClosed) {
		return ErrClosed
	}
	err := l.err
	if err == nil {
		err = l.confirm()
	}
	l.err = ErrClosed
	return errors.Join(err, l.file.Close(), l.lock.Close())
}
