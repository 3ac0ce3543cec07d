package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	version          = 1
	headerSize       = 128
	groupHeaderSize  = 48
	recordHeaderSize = 9
	sealSize         = groupHeaderSize
	alignment        = 8

	groupMagic = 0x67465748 // "HWFg"

	// MinSegmentBytes is the least size of a segment.
	MinSegmentBytes = 1 << 10
	// maxSegmentBytes bounds what a header may claim, and so what a crafted one makes us reserve.
	maxSegmentBytes = 1 << 33
	// maxGroupBytes keeps lengths within their four bytes.
	maxGroupBytes = 1 << 31
)

var (
	segmentMagic = [8]byte{'H', 'F', 'R', 'L', 'O', 'G', '\r', '\n'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
	order        = binary.LittleEndian
)

// ErrVersion says that the log was written in a format that this program does not read, most likely by a later one.
var ErrVersion = errors.New("unknown version of the raft log's format")

// Metadata says whose log it is. It stands in every segment's header, and a segment that disagrees with the first is damage.
type Metadata struct {
	ClusterID uint64
	NodeID    uint64
	// Incarnation tells two logs of one node apart: it is new each time that a log is created.
	Incarnation uint64
}

// segmentHeader is the first thing in a segment. It is durable before the segment has its name.
type segmentHeader struct {
	md         Metadata
	seq        uint64
	salt       uint64
	size       int64  // of the file
	openingEnd int64  // where the opening group ends
	prevEnd    int64  // where the groups of the segment before end; 0 in the very first
	prevChain  uint32 // its checksum there
}

// encode fills b (headerSize bytes) and returns the checksum with which the chain of the segment starts.
func (h *segmentHeader) encode(b []byte) uint32 {
	clear(b[:headerSize])
	copy(b, segmentMagic[:])
	order.PutUint32(b[8:], version)
	order.PutUint32(b[12:], headerSize)
	order.PutUint64(b[16:], h.md.ClusterID)
	order.PutUint64(b[24:], h.md.NodeID)
	order.PutUint64(b[32:], h.md.Incarnation)
	order.PutUint64(b[40:], h.seq)
	order.PutUint64(b[48:], h.salt)
	order.PutUint64(b[56:], uint64(h.size))
	order.PutUint64(b[64:], uint64(h.openingEnd))
	order.PutUint64(b[72:], uint64(h.prevEnd))
	order.PutUint32(b[80:], h.prevChain)
	sum := crc32.Checksum(b[:headerSize-4], castagnoli)
	order.PutUint32(b[headerSize-4:], sum)
	return sum
}

// decode reads a header and says what is wrong with it. The checksum comes before any other field is believed, except that a
// version which explains the checksum's mismatch is named as such.
func (h *segmentHeader) decode(b []byte) (chain uint32, err error) {
	if len(b) < headerSize {
		return 0, fmt.Errorf("the file has only %d bytes", len(b))
	}
	if [8]byte(b) != segmentMagic {
		return 0, errors.New("the file does not start as a segment of the log does")
	}
	chain = crc32.Checksum(b[:headerSize-4], castagnoli)
	if chain != order.Uint32(b[headerSize-4:]) {
		if v := order.Uint32(b[8:]); v != version && !intactAs(b, version) {
			return 0, versionError(v)
		}
		return 0, errors.New("the checksum of the segment's header does not match")
	}
	if v := order.Uint32(b[8:]); v != version {
		return 0, versionError(v)
	}
	h.md = Metadata{ClusterID: order.Uint64(b[16:]), NodeID: order.Uint64(b[24:]), Incarnation: order.Uint64(b[32:])}
	h.seq, h.salt = order.Uint64(b[40:]), order.Uint64(b[48:])
	h.size, h.openingEnd = int64(order.Uint64(b[56:])), int64(order.Uint64(b[64:]))
	h.prevEnd, h.prevChain = int64(order.Uint64(b[72:])), order.Uint32(b[80:])
	if h.size < MinSegmentBytes || h.size > maxSegmentBytes || h.openingEnd < headerSize || h.openingEnd > h.size-sealSize {
		return 0, errors.New("the segment's header states impossible sizes")
	}
	return chain, nil
}

func versionError(v uint32) error {
	return fmt.Errorf("%w: it is %d, where this program reads %d", ErrVersion, v, version)
}

// intactAs reports whether the header's checksum would match if only the version were v: then a bit of the version rotted.
func intactAs(b []byte, v uint32) bool {
	fixed := [headerSize]byte(b)
	order.PutUint32(fixed[8:], v)
	return crc32.Checksum(fixed[:headerSize-4], castagnoli) == order.Uint32(fixed[headerSize-4:])
}

// groupKind tells a seal from the rest.
type groupKind uint32

const (
	kindData groupKind = 1
	kindSeal groupKind = 2
)

// groupHeader starts a group. Its own checksum makes it count without what stands before it: it is a witness for durability.
type groupHeader struct {
	kind    groupKind
	seq     uint64
	off     int64
	durable int64 // everything before this offset of the segment was durable when the group was written
	length  int64 // of the records
	chain   uint32
	count   uint32
}

func (h *groupHeader) encode(b []byte, salt uint64) {
	order.PutUint32(b, groupMagic)
	order.PutUint32(b[4:], uint32(h.kind))
	order.PutUint64(b[8:], h.seq)
	order.PutUint64(b[16:], uint64(h.off))
	order.PutUint64(b[24:], uint64(h.durable))
	order.PutUint32(b[32:], uint32(h.length))
	order.PutUint32(b[36:], h.chain)
	order.PutUint32(b[40:], h.count)
	order.PutUint32(b[44:], headerChecksum(b, salt))
}

// decode reports whether b starts with an intact header written at this place of this segment.
func (h *groupHeader) decode(b []byte, seg *segmentHeader, off int64) bool {
	if len(b) < groupHeaderSize || order.Uint32(b) != groupMagic || order.Uint32(b[44:]) != headerChecksum(b, seg.salt) {
		return false
	}
	*h = groupHeader{
		kind: groupKind(order.Uint32(b[4:])), seq: order.Uint64(b[8:]),
		off: int64(order.Uint64(b[16:])), durable: int64(order.Uint64(b[24:])),
		length: int64(order.Uint32(b[32:])), chain: order.Uint32(b[36:]), count: order.Uint32(b[40:]),
	}
	return h.seq == seg.seq && h.off == off && h.durable >= 0 && h.durable <= off
}

// headerChecksum starts from the salt, which a writer of values does not know.
func headerChecksum(b []byte, salt uint64) uint32 {
	return crc32.Update(uint32(salt)^uint32(salt>>32), castagnoli, b[:groupHeaderSize-4])
}

func align(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }
