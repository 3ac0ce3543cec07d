package wire

import "google.golang.org/protobuf/encoding/protowire"

// Header is an etcdserverpb.ResponseHeader.
type Header struct {
	ClusterID uint64
	MemberID  uint64
	Revision  int64
	Term      uint64
}

// WatchHead is everything of an etcdserverpb.WatchResponse but its events.
type WatchHead struct {
	Header          Header
	WatchID         int64
	Created         bool
	Canceled        bool
	CompactRevision int64
	CancelReason    string
	Fragment        bool
}

// HeadBytesMax bounds the encoded size of a WatchHead without a cancel reason.
const HeadBytesMax = 96

// Append appends the encoded head to b. Events fields may follow it directly.
func (h *WatchHead) Append(b []byte) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(h.Header.size()))
	b = h.Header.append(b)
	b = appendVarint(b, 2, uint64(h.WatchID))
	b = appendBool(b, 3, h.Created)
	b = appendBool(b, 4, h.Canceled)
	b = appendVarint(b, 5, uint64(h.CompactRevision))
	if h.CancelReason != "" {
		b = protowire.AppendTag(b, 6, protowire.BytesType)
		b = protowire.AppendString(b, h.CancelReason)
	}
	return appendBool(b, 7, h.Fragment)
}

// KeepAliveResponse encodes an etcdserverpb.LeaseKeepAliveResponse.
func KeepAliveResponse(header Header, lease, ttl int64) []byte {
	b := make([]byte, 0, 72)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(header.size()))
	b = header.append(b)
	b = appendVarint(b, 2, uint64(lease))
	return appendVarint(b, 3, uint64(ttl))
}

func (h *Header) append(b []byte) []byte {
	b = appendVarint(b, 1, h.ClusterID)
	b = appendVarint(b, 2, h.MemberID)
	b = appendVarint(b, 3, uint64(h.Revision))
	return appendVarint(b, 4, h.Term)
}

func (h *Header) size() int {
	return sizeVarint(1, h.ClusterID) + sizeVarint(2, h.MemberID) +
		sizeVarint(3, uint64(h.Revision)) + sizeVarint(4, h.Term)
}

// A zero is left out, as proto3 does.
func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func sizeVarint(field protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(v)
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return appendVarint(b, field, 1)
}
