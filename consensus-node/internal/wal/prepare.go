package wal

import (
	"errors"
	"path/filepath"
	"syscall"
)

// Wanted gets a token when the segment that is being written is half full and no file is at hand for the next: then call Prepare.
func (l *Log) Wanted() <-chan struct{} { return l.wanted }

// wantSpare says so. The caller holds mu.
func (l *Log) wantSpare() {
	if l.end < l.size/2 || l.preparing || len(l.spares) > 0 || l.opts.Spares < 1 {
		return
	}
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

// Prepare makes the file of the next segment ahead, beside the appends, which it does not hold up: the blocks of a whole segment are
// reserved and durable by the time that a rotation asks for them. It does nothing if a file is at hand. A disk that has no room for it is
// no failure yet: a later Release may free some, and the rotation will tell otherwise. Any other failure ends the use of the Log, as one
// of an append does. It returns before Close is called.
func (l *Log) Prepare() error {
	l.mu.Lock()
	if l.err != nil || l.preparing || len(l.spares) > 0 || l.opts.Spares < 1 {
		defer l.mu.Unlock()
		return l.err
	}
	l.preparing = true
	l.mu.Unlock()

	name, err := l.prepare()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = false
	switch {
	case l.err != nil: // closed or failed meanwhile; what was made is adopted or removed by the next Open
		return l.err
	case errors.Is(err, syscall.ENOSPC):
		return nil
	case err != nil:
		return l.fail("prepare a segment of the raft log", err)
	}
	l.spares = append(l.spares, name)
	return nil
}

// prepare makes a spare under a name that no segment ever has.
func (l *Log) prepare() (string, error) {
	temp, name := filepath.Join(l.dir, aheadName+tempSuffix), filepath.Join(l.dir, aheadName+spareSuffix)
	f, err := l.newFile(temp, l.opts.SegmentBytes)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, l.fs.Remove(temp))
	}
	if err := l.fs.Rename(temp, name); err != nil {
		return "", err
	}
	return name, l.fs.SyncDir(l.dir)
}

// aheadName is what a file is called that was made ahead.
const aheadName = "next"
