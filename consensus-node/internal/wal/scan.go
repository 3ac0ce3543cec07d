package wal

import (
	"errors"
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// segmentInfo is what stays in memory of a segment.
type segmentInfo struct {
	seq  uint64
	size int64
	// lastIndex is the largest index of an entry in it that may still count.
	lastIndex uint64
}

// scan is one read-only pass over the whole log. It decides what is a tear and what is damage; Open mends, Dump only shows.
type scan struct {
	fs    vfs.FS
	dir   string
	visit func(Record) error // may be nil

	tail
	entries []*raftpb.Entry // all after the mark
	infos   []segmentInfo
	others  []string
	buf     []byte

	// Of the last segment:
	cur     segment
	claimed int64 // claimed durable by an intact header
	dataEnd int64 // end of the last group with records
	sealed  bool
	// prev is the segment before it, at its seal, which may be missing as long as the last segment is empty.
	prev     *segment
	unsealed bool
}

// run reads everything.
func (s *scan) run() error {
	seqs, others, err := listSegments(s.fs, s.dir)
	if err != nil {
		return err
	}
	if len(seqs) == 0 {
		return errNoLog(s.dir)
	}
	s.others = others
	next, err := s.header(seqs[0], nil)
	if err != nil {
		return err
	}
	for i, seq := range seqs {
		cur := next
		if i+1 == len(seqs) {
			return s.end(cur)
		}
		if seqs[i+1] != seq+1 {
			err = s.damage(path(s.dir, seq+1), 0, missing)
		} else {
			next, err = s.header(seqs[i+1], cur)
		}
		if err == nil {
			err = s.segment(cur, next)
		} else {
			err = s.upTo(cur, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const missing = "the file is missing"

// end reads the last segment and closes the account.
func (s *scan) end(cur *segment) error {
	if err := s.segment(cur, nil); err != nil {
		return err
	}
	if s.sealed {
		return s.damage(path(s.dir, cur.seq+1), 0, missing)
	}
	return s.finish()
}

// upTo reads a segment whose successor is missing or damaged, to say (and show) what survives. Damage in it comes first.
func (s *scan) upTo(cur *segment, err error) error {
	var damage *DamageError
	if !errors.As(err, &damage) {
		return err
	}
	if err := s.segment(cur, nil); err != nil {
		return err
	}
	damage.Survives = s.last
	return damage
}

// header reads the header of a segment and compares it with that of the one before.
func (s *scan) header(seq uint64, prev *segment) (*segment, error) {
	seg := &segment{path: path(s.dir, seq), off: headerSize}
	b, err := readFile(s.fs, seg.path, nil, headerSize)
	if err != nil {
		return nil, err
	}
	if seg.chain, err = seg.decode(b); errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("%s: %w", seg.path, err)
	} else if err != nil {
		return nil, s.damage(seg.path, 0, err.Error())
	}
	if seg.seq != seq || prev != nil && seg.md != prev.md {
		return nil, s.damage(seg.path, 0, "the segment is of another log or another place in it")
	}
	return seg, nil
}

// segment reads one segment; next is the header of the one after it, nil for the last.
func (s *scan) segment(seg, next *segment) error {
	var err error
	if s.buf, err = readFile(s.fs, seg.path, s.buf, math.MaxInt64); err != nil {
		return err
	}
	if int64(len(s.buf)) < seg.size {
		return s.damage(seg.path, int64(len(s.buf)), fmt.Sprintf("the file is shorter than its %d bytes", seg.size))
	}
	seg.data = s.buf[:seg.size]
	s.infos = append(s.infos, segmentInfo{seq: seg.seq, size: seg.size})
	if err := s.show(Record{File: seg.path, Kind: RecordSegment, Metadata: seg.md, Durable: seg.openingEnd}); err != nil {
		return err
	}
	s.claimed, s.dataEnd = seg.openingEnd, 0
	if s.unsealed && next != nil {
		return s.sealMissing()
	}
	if next == nil {
		return s.lastSegment(seg)
	}
	return s.sealedSegment(seg, next)
}

// sealedSegment reads a segment before the last: its successor says where it ends and with which checksum.
func (s *scan) sealedSegment(seg, next *segment) error {
	for seg.off < next.prevEnd {
		h, records, flaw := seg.next()
		if flaw == nil && h.kind == kindSeal {
			return s.damage(seg.path, h.off, "a seal before the end that the next segment states")
		}
		if flaw != nil {
			return s.damage(seg.path, flaw.off, flaw.reason)
		}
		if err := s.apply(seg, h, records); err != nil {
			return err
		}
	}
	if seg.off != next.prevEnd || seg.chain != next.prevChain {
		return s.damage(seg.path, seg.off, "the segment ends otherwise than its successor says")
	}
	prev := *seg
	prev.data = nil // the buffer is reused
	s.prev = &prev
	h, _, flaw := seg.next()
	if s.unsealed = flaw != nil; s.unsealed {
		return nil
	}
	if h.kind != kindSeal {
		return s.damage(seg.path, h.off, "a group where the seal of the segment belongs")
	}
	return s.show(Record{File: seg.path, Offset: next.prevEnd, Kind: RecordSeal, Durable: next.prevEnd})
}

// lastSegment reads up to the end of the log, and judges the bytes there.
func (s *scan) lastSegment(seg *segment) error {
	for {
		h, records, flaw := seg.next()
		if flaw != nil {
			if max(s.claimed, seg.claimed(seg.off)) > seg.off {
				return s.damage(seg.path, flaw.off, flaw.reason)
			}
			break
		}
		if h.kind == kindSeal {
			s.sealed = true
			break
		}
		if h.off >= seg.openingEnd && s.unsealed {
			return s.sealMissing()
		}
		s.claimed = max(s.claimed, h.durable)
		if h.count > 0 {
			s.dataEnd = seg.off
		}
		if err := s.apply(seg, h, records); err != nil {
			return err
		}
	}
	s.cur = *seg
	return nil
}

// finish checks that nothing is missing between the mark and the end.
func (s *scan) finish() error {
	if s.last < s.mark.Index || uint64(len(s.entries)) != s.last-s.mark.Index {
		s.last = s.mark.Index // what follows it has no use
		return s.damage(path(s.dir, s.infos[0].seq), 0,
			fmt.Sprintf("the log starts too late: entries from %d on are missing", s.mark.Index+1))
	}
	return nil
}

func (s *scan) sealMissing() error {
	return s.damage(s.prev.path, s.prev.off, "the seal of the segment is missing")
}

func (s *scan) damage(file string, off int64, reason string) error {
	return &DamageError{File: file, Offset: off, Reason: reason, Survives: s.last, Hint: hint}
}

func (s *scan) show(r Record) error {
	if s.visit == nil {
		return nil
	}
	return s.visit(r)
}
