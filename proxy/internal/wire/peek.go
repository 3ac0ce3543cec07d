package wire

import "google.golang.org/protobuf/encoding/protowire"

// Field numbers of etcdserverpb.RangeRequest, etcdserverpb.MemberListRequest and etcdserverpb.CompactionRequest that the way
// of a call depends on.
const (
	compactPhysical        protowire.Number = 2
	rangeSerializable      protowire.Number = 7
	memberListLinearizable protowire.Number = 1
)

// RangeSerializable tells whether an encoded etcdserverpb.RangeRequest asks for a serializable read. Malformed bytes
// count as linearizable: the node that decodes them fully says what is wrong.
func RangeSerializable(request []byte) bool { return peekBool(request, rangeSerializable) }

// MemberListLinearizable tells whether an encoded etcdserverpb.MemberListRequest asks for a linearizable list.
func MemberListLinearizable(request []byte) bool { return peekBool(request, memberListLinearizable) }

// CompactPhysical tells whether an encoded etcdserverpb.CompactionRequest waits until the history is gone from the disk.
func CompactPhysical(request []byte) bool { return peekBool(request, compactPhysical) }

// peekBool walks the top-level fields; the last value of the field wins, as in protobuf.
func peekBool(b []byte, field protowire.Number) bool {
	value := false
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if num == field && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return false
			}
			value = v != 0
			b = b[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	return value
}
