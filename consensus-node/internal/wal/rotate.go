package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// create makes the first segment and clears away what an earlier, unfinished Create left.
func (l *Log) create() error {
	seqs, others, err := listSegments(l.fs, l.dir)
	if err != nil {
		return err
	}
	if len(seqs) > 0 {
		return fmt.Errorf("there is one already: %w", fs.ErrExist)
	}
	if err := l.adopt(others); err != nil {
		return err
	}
	return l.startSegment(segmentHeader{md: l.md, seq: 1}, 0)
}

// rotate ends the last segment and starts one that has room for a group of need bytes. The seal comes last, so that a seal
// without a successor shows that a file was lost, and claims only what was synced before.
func (l *Log) rotate(need int64) error {
	if l.durable < l.end {
		if err := l.sync(); err != nil {
			return err
		}
	}
	old, at := l.file, l.place
	if err := l.startSegment(segmentHeader{md: l.md, seq: l.seq + 1, prevEnd: l.end, prevChain: l.chain}, need); err != nil {
		return err
	}
	return errors.Join(writeSeal(old, at), old.Close())
}

// writeSeal ends a segment all of which is durable, and syncs the seal.
func writeSeal(f vfs.File, at place) error {
	var seal group
	seal.buf = make([]byte, groupHeaderSize)
	seal.finish(kindSeal, at, at.end)
	if _, err := f.WriteAt(seal.buf, at.end); err != nil {
		return err
	}
	return f.Datasync()
}

// startSegment makes a segment durable with its opening group, first as a file without a proper name, and goes on in it.
func (l *Log) startSegment(h segmentHeader, need int64) error {
	h.salt = l.opts.Salt()
	var opening group
	opening.reset()
	if err := opening.addState(&l.tail); err != nil {
		return err
	}
	h.openingEnd = headerSize + opening.size()
	h.size = max(l.opts.SegmentBytes, align(h.openingEnd+need+sealSize))
	if h.size > maxSegmentBytes {
		return fmt.Errorf("a segment of %d bytes", h.size)
	}
	start := make([]byte, headerSize, h.openingEnd)
	at := place{seq: h.seq, salt: h.salt, end: headerSize, chain: h.encode(start)}
	at.chain = opening.finish(kindData, at, headerSize)
	at.end = h.openingEnd

	f, temp, err := l.takeFile(h.size)
	if err != nil {
		return err
	}
	err = l.nameSegment(f, temp, append(start, opening.buf...), h.seq)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Opened again, so that later errors bear its proper name.
	if f, err = l.fs.Open(path(l.dir, h.seq)); err != nil {
		return err
	}
	l.file, l.place, l.size = f, at, h.size
	l.durable, l.claimed, l.dataEnd = at.end, at.end, at.end
	l.segments = append(l.segments, segmentInfo{seq: h.seq, size: h.size})
	return nil
}

// nameSegment writes the start of a segment and only then gives the file its name.
func (l *Log) nameSegment(f vfs.File, temp string, start []byte, seq uint64) error {
	if _, err := f.WriteAt(start, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.fs.Rename(temp, path(l.dir, seq)); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// takeFile returns a file of size bytes that is no segment yet: a spare, or a new one.
func (l *Log) takeFile(size int64) (vfs.File, string, error) {
	if n := len(l.spares); n > 0 && size == l.opts.SegmentBytes {
		name := l.spares[n-1]
		l.spares = l.spares[:n-1]
		f, err := l.fs.Open(name)
		return f, name, err
	}
	name := filepath.Join(l.dir, segmentName(l.seq+1)+tempSuffix)
	f, err := l.newFile(name, size)
	return f, name, err
}

// newFile makes a file with all its blocks.
func (l *Log) newFile(name string, size int64) (vfs.File, error) {
	f, err := l.fs.Create(name)
	if err != nil {
		return nil, err
	}
	if err := f.Preallocate(size); err != nil {
		// A full disk must not stay full of what cannot be used.
		return nil, errors.Join(err, f.Close(), l.fs.Remove(name))
	}
	return f, nil
}

// Release lets go of the segments whose entries all lie at or below index. It stops at the snapshot mark, whatever index says,
// and always keeps the segment being written.
func (l *Log) Release(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	index = min(index, l.mark.Index)
	for len(l.segments) > 1 && l.segments[0].lastIndex <= index {
		if err := l.drop(l.segments[0]); err != nil {
			return l.fail("release a segment of the raft log", err)
		}
		l.segments = l.segments[1:]
	}
	return nil
}

// drop makes a segment a spare or removes it. Each goes durably before the next, so that no crash leaves a gap.
func (l *Log) drop(info segmentInfo) error {
	name := path(l.dir, info.seq)
	if len(l.spares) < l.opts.Spares && !l.preparing && info.size == l.opts.SegmentBytes {
		spare := strings.TrimSuffix(name, segmentSuffix) + spareSuffix
		if err := l.fs.Rename(name, spare); err != nil {
			return err
		}
		l.spares = append(l.spares, spare)
	} else if err := l.fs.Remove(name); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// adopt takes over the spares that fit and removes what an interrupted rotation left. Other names are not ours.
func (l *Log) adopt(names []string) error {
	for _, base := range names {
		name := filepath.Join(l.dir, base)
		switch filepath.Ext(base) {
		case spareSuffix:
			size, err := fileSize(l.fs, name)
			if err != nil {
				return err
			}
			if size == l.opts.SegmentBytes && len(l.spares) < l.opts.Spares {
				l.spares = append(l.spares, name)
				continue
			}
		case tempSuffix:
		default:
			continue
		}
		if err := l.fs.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func fileSize(fsys vfs.FS, name string) (int64, error) {
	f, err := fsys.OpenReadOnly(name)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, f.Close())
}
