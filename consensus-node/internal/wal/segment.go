package wal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

const (
	segmentSuffix = ".log"
	spareSuffix   = ".spare"
	tempSuffix    = ".tmp"
	lockName      = "LOCK"
)

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }

// parseSegmentName accepts exactly what segmentName makes.
func parseSegmentName(name string) (seq uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil && seq > 0 && segmentName(seq) == name
}

// listSegments returns the sequence numbers of the segments in dir, ascending, and all other names.
func listSegments(fsys vfs.FS, dir string) (seqs []uint64, others []string, err error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if seq, ok := parseSegmentName(name); ok {
			seqs = append(seqs, seq)
		} else {
			others = append(others, name)
		}
	}
	slices.Sort(seqs)
	return seqs, others, nil
}

// readChunk is how much of a file is read at a time.
const readChunk = 256 << 10

// readFile reads up to limit bytes of a file into buf, which it grows to no more than the file's size. Most of a new segment is zeros
// that were reserved and never written: they are not copied, so that a buffer fresh from the system takes no memory for them.
func readFile(fsys vfs.FS, name string, buf []byte, limit int64) (_ []byte, err error) {
	f, err := fsys.OpenReadOnly(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	size = min(size, limit)
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	} else {
		buf = buf[:size]
		clear(buf)
	}
	chunk, zeros := make([]byte, min(size, readChunk)), make([]byte, min(size, readChunk))
	for rest, off := buf, int64(0); len(rest) > 0; {
		part := chunk[:min(len(rest), len(chunk))]
		if n, err := f.ReadAt(part, off); err != nil && (!errors.Is(err, io.EOF) || n < len(part)) {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if !bytes.Equal(part, zeros[:len(part)]) {
			copy(rest, part)
		}
		rest, off = rest[len(part):], off+int64(len(part))
	}
	return buf, nil
}

// flaw is where reading a segment stopped, and why.
type flaw struct {
	off    int64
	reason string
}

// segment walks the groups of one segment's content.
type segment struct {
	path string
	segmentHeader
	data  []byte // the whole file
	off   int64  // end of the groups that were read
	chain uint32
}

// next checks the group at off in full and returns its header and records. At a flaw it stays where it is.
func (s *segment) next() (groupHeader, []byte, *flaw) {
	var h groupHeader
	if s.off+groupHeaderSize > int64(len(s.data)) {
		return h, nil, &flaw{s.off, "the file ends"}
	}
	if !h.decode(s.data[s.off:], &s.segmentHeader, s.off) {
		return h, nil, &flaw{s.off, "no intact group header"}
	}
	start := s.off + groupHeaderSize
	if h.chain != s.chain || h.kind != kindData && h.kind != kindSeal || start+h.length > int64(len(s.data)) {
		return h, nil, &flaw{s.off, "a group header that does not belong here"}
	}
	records := s.data[start : start+h.length]
	chain := crc32.Update(s.chain, castagnoli, s.data[s.off:start])
	count := uint32(0)
	for pos := 0; pos < len(records); count++ {
		n := recordExtent(records[pos:])
		if n == 0 {
			return h, nil, &flaw{start + int64(pos), "a record longer than its group"}
		}
		chain = crc32.Update(chain, castagnoli, records[pos+4:pos+n])
		if chain != order.Uint32(records[pos:]) {
			return h, nil, &flaw{start + int64(pos), "the checksum of a record does not match"}
		}
		pos += n
	}
	if count != h.count {
		return h, nil, &flaw{s.off, "a group with another number of records than it states"}
	}
	s.off, s.chain = start+h.length, chain
	return h, records, nil
}

// recordExtent is the size on disk of the record with which b starts; 0 if it does not fit.
func recordExtent(b []byte) int {
	if len(b) < recordHeaderSize {
		return 0
	}
	n := align(recordHeaderSize + int64(order.Uint32(b[4:])))
	if n > int64(len(b)) {
		return 0
	}
	return int(n)
}

// claimed returns how far the segment is said to be durable by the intact group headers at or after from. Headers are looked for
// at every place where one may stand, since what lies before them may be unreadable.
func (s *segment) claimed(from int64) int64 {
	durable := int64(0)
	var h groupHeader
	for off := align(from); off+groupHeaderSize <= int64(len(s.data)); off += alignment {
		if order.Uint32(s.data[off:]) == groupMagic && h.decode(s.data[off:], &s.segmentHeader, off) {
			durable = max(durable, h.durable)
		}
	}
	return durable
}

// path returns the name of a segment's file.
func path(dir string, seq uint64) string { return filepath.Join(dir, segmentName(seq)) }
