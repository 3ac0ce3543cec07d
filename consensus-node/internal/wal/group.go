package wal

import (
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// recordType is the first byte of a record's content.
type recordType byte

const (
	recordBase      recordType = 1 // the last index when the segment began, 8 bytes; only in an opening group
	recordEntry     recordType = 2 // raftpb.Entry
	recordHardState recordType = 3 // raftpb.HardState
	recordMark      recordType = 4 // raftpb.SnapshotMetadata: the database holds all up to it
	recordReset     recordType = 5 // the same, and no entry before the record counts any more
)

// keepBufferBytes is the largest buffer that is kept for the next group: one huge entry must not stay resident for ever.
const keepBufferBytes = 8 << 20

// group is a group in the making. Records are added first; finish puts it in its place, which may change until then.
type group struct {
	buf   []byte
	count uint32
}

func (g *group) reset() {
	if cap(g.buf) < groupHeaderSize || cap(g.buf) > keepBufferBytes {
		g.buf = make([]byte, groupHeaderSize, 64<<10)
	}
	g.buf, g.count = g.buf[:groupHeaderSize], 0
}

// size is the length of the group with its header, a multiple of 8.
func (g *group) size() int64 { return int64(len(g.buf)) }

// addMessage appends a protobuf record without a copy between.
func (g *group) addMessage(t recordType, m proto.Message) error {
	start := g.begin()
	buf, err := proto.MarshalOptions{}.MarshalAppend(g.buf, m)
	if err != nil {
		g.buf = g.buf[:start]
		return fmt.Errorf("encode a record of type %d: %w", t, err)
	}
	g.buf = buf
	return g.end(start, t)
}

func (g *group) addBase(last uint64) error {
	start := g.begin()
	g.buf = order.AppendUint64(g.buf, last)
	return g.end(start, recordBase)
}

func (g *group) begin() int {
	start := len(g.buf)
	g.buf = append(g.buf, make([]byte, recordHeaderSize)...)
	return start
}

func (g *group) end(start int, t recordType) error {
	length := len(g.buf) - start - recordHeaderSize
	for len(g.buf)%alignment != 0 {
		g.buf = append(g.buf, 0)
	}
	if len(g.buf) > maxGroupBytes {
		return fmt.Errorf("a group of more than %d bytes", maxGroupBytes)
	}
	order.PutUint32(g.buf[start+4:], uint32(length))
	g.buf[start+8] = byte(t)
	g.count++
	return nil
}

// finish writes the header and all checksums for a place, and returns the chain after the group.
func (g *group) finish(kind groupKind, at place, durable int64) uint32 {
	h := groupHeader{
		kind: kind, seq: at.seq, off: at.end, durable: durable,
		length: g.size() - groupHeaderSize, chain: at.chain, count: g.count,
	}
	h.encode(g.buf, at.salt)
	chain := crc32.Update(at.chain, castagnoli, g.buf[:groupHeaderSize])
	for pos := groupHeaderSize; pos < len(g.buf); {
		next := pos + recordSize(order.Uint32(g.buf[pos+4:]))
		chain = crc32.Update(chain, castagnoli, g.buf[pos+4:next])
		order.PutUint32(g.buf[pos:], chain)
		pos = next
	}
	return chain
}

// place is where the next group goes.
type place struct {
	seq   uint64
	salt  uint64
	end   int64
	chain uint32
}

func recordSize(length uint32) int { return int(align(recordHeaderSize + int64(length))) }

// SnapshotMark says that the database covers the log up to Index.
type SnapshotMark struct {
	Index, Term uint64
	// ConfState is the membership at Index; nil means none.
	ConfState *raftpb.ConfState
}

func (m SnapshotMark) message() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{Index: &m.Index, Term: &m.Term, ConfState: m.ConfState}
}

// addState appends what an opening group holds.
func (g *group) addState(t *tail) error {
	if err := g.addBase(t.last); err != nil {
		return err
	}
	if t.hard != (hardState{}) {
		if err := g.addMessage(recordHardState, t.hard.message()); err != nil {
			return err
		}
	}
	if t.mark.Index > 0 || t.mark.ConfState != nil {
		return g.addMessage(recordMark, t.mark.message())
	}
	return nil
}
