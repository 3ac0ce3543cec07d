package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// State is what a log holds, for the start of raft.
type State struct {
	Metadata Metadata
	// Snapshot is the last mark; its index is 0 if there is none.
	Snapshot SnapshotMark
	// Entries are all those after Snapshot.Index, without a gap.
	Entries []*raftpb.Entry
	// HardState is never nil. Where the mark of an installed snapshot came before the hard state that goes with it, term and commit
	// are raised to the mark's: raft starts with neither below its log.
	HardState *raftpb.HardState
}

// Open opens the log in dir, cuts a torn tail, and returns what it holds, all of which is durable by then. Errors: one that is
// fs.ErrNotExist without a log, vfs.ErrLocked if another process has it, ErrVersion, a *DamageError; any other is the disk's.
func Open(fsys vfs.FS, dir string, opts Options) (*Log, *State, error) {
	// Before Lock, which makes a file.
	if seqs, _, err := listSegments(fsys, dir); err != nil {
		return nil, nil, fmt.Errorf("open the raft log: %w", err)
	} else if len(seqs) == 0 {
		return nil, nil, errNoLog(dir)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, nil, fmt.Errorf("open the raft log: %w", err)
	}
	s := &scan{fs: fsys, dir: dir}
	if err := s.run(); err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	l := &Log{
		fs: fsys, dir: dir, opts: opts.withDefaults(), md: s.cur.md, lock: lock, segments: s.infos, tail: s.tail,
		wanted: make(chan struct{}, 1),
	}
	if err := l.resume(s); err != nil {
		return nil, nil, fmt.Errorf("open the raft log in %s: %w", dir, errors.Join(err, lock.Close()))
	}
	return l, s.state(), nil
}

func errNoLog(dir string) error { return fmt.Errorf("no raft log in %s: %w", dir, fs.ErrNotExist) }

func (s *scan) state() *State {
	hard := s.hard
	if hard.term < s.mark.Term {
		hard.term, hard.vote = s.mark.Term, 0 // no vote was cast in a term that was never written
	}
	hard.commit = max(hard.commit, s.mark.Index)
	return &State{Metadata: s.cur.md, Snapshot: s.mark, Entries: s.entries, HardState: hard.message()}
}

// resume mends what a crash left and makes all that was read durable.
func (l *Log) resume(s *scan) error {
	if err := l.adopt(s.others); err != nil {
		return err
	}
	// The last name may not be durable yet, and must be before the seal that presumes it.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if s.prev != nil && s.cur.off == s.cur.openingEnd {
		if err := l.sealPrevious(s.prev); err != nil {
			return err
		}
	}
	f, err := l.fs.Open(s.cur.path)
	if err != nil {
		return err
	}
	if err := mendTail(f, s); err != nil {
		return errors.Join(err, f.Close())
	}
	cur := s.cur
	l.file, l.size = f, cur.size
	l.place = place{seq: cur.seq, salt: cur.salt, end: cur.off, chain: cur.chain}
	l.durable, l.claimed, l.dataEnd = cur.off, s.claimed, s.dataEnd
	return nil
}

// sealPrevious does the last step of a rotation that may have been interrupted: even a seal that was read may be in the page
// cache alone. Once the new segment has a group, it was durable.
func (l *Log) sealPrevious(seg *segment) error {
	f, err := l.fs.Open(seg.path)
	if err != nil {
		return err
	}
	err = writeSeal(f, place{seq: seg.seq, salt: seg.salt, end: seg.off, chain: seg.chain})
	return errors.Join(err, f.Close())
}

// mendTail writes again what was read after the last claim, since a failed sync may have left it in the page cache alone, and
// zeros over what follows, so that no record of the cut tail can ever join the new ones.
func mendTail(f vfs.File, s *scan) error {
	data, end := s.cur.data, s.cur.off
	if s.claimed < end {
		if _, err := f.WriteAt(data[s.claimed:end], s.claimed); err != nil {
			return err
		}
	}
	const step = 1 << 20
	zeros := make([]byte, min(step, int64(len(data))-end))
	for off := end; off < int64(len(data)); off += step {
		part := data[off:min(off+step, int64(len(data)))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := f.WriteAt(zeros[:len(part)], off); err != nil {
				return err
			}
		}
	}
	return f.Datasync()
}
