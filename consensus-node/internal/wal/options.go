package wal

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// DefaultSegmentBytes is the size of a segment unless the options say otherwise.
const DefaultSegmentBytes = 64 << 20

// Options of a Log. The zero value has the defaults.
type Options struct {
	// SegmentBytes is the size of new segments, at least MinSegmentBytes; 0 means DefaultSegmentBytes. A group that is larger gets
	// a segment that fits it. It may differ from one start to the next.
	SegmentBytes int64
	// Spares is how many released segments are kept to be written again: their blocks are there already, so appends to them are
	// quicker and cannot meet a full disk. 0 means 1; negative means none.
	Spares int
	// Salt returns a number that nobody can guess, a new one each time; nil takes it from crypto/rand. Tests give a seeded one.
	Salt func() uint64
	// ObserveSync, if set, is told how long each sync of a group took. It is called with the Log's lock held.
	ObserveSync func(time.Duration)
	// ObserveWrite, if set, is told how many bytes each write of a group had and how long it took, likewise.
	ObserveWrite func(bytes int, took time.Duration)
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	o.SegmentBytes = align(max(o.SegmentBytes, MinSegmentBytes))
	if o.Spares == 0 {
		o.Spares = 1
	}
	if o.Salt == nil {
		o.Salt = randomSalt
	}
	return o
}

func randomSalt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the program instead
	return binary.LittleEndian.Uint64(b[:])
}
