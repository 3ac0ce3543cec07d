package mvcc

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Encoded gives what Values gives in the form in which it is stored, which is
// also its protobuf wire form.
type Encoded interface {
	Values
	// Encoded returns the stored bytes of a revision. They are valid for as
	// long as the picture of the database that they come from.
	Encoded(rev Revision) ([]byte, error)
}

// Room gives empty slices with room for so many bytes.
type Room interface{ Take(bytes int) []byte }

// Encoder makes answers to ranges in their wire form. What it needs on the way
// it keeps for the next one, so one that is used again allocates nothing but
// the answer. It serves one caller at a time; the zero value is ready.
type Encoder struct {
	revs   []Revision
	stored [][]byte
}

// Range gives the wire form of what View.Range answers, with this header. The
// key-values are copied as they are stored, into what room gives.
func (e *Encoder) Range(v *View, room Room, req *pb.RangeRequest, vals Encoded, header *pb.ResponseHeader) ([]byte, error) {
	defer e.forget()
	resp, err := e.find(v, req, vals)
	if err != nil {
		return nil, err
	}
	resp.Header = header
	size := proto.Size(resp)
	for _, rev := range e.revs {
		data, err := vals.Encoded(rev)
		if err != nil {
			return nil, loadError(rev, err)
		}
		size += 1 + protowire.SizeBytes(len(data))
		e.stored = append(e.stored, data)
	}
	answer, err := (proto.MarshalOptions{}).MarshalAppend(room.Take(size), resp)
	if err != nil {
		return nil, err
	}
	const fieldKvs = 2 // of RangeResponse; fields may come in any order
	for _, data := range e.stored {
		answer = protowire.AppendBytes(protowire.AppendTag(answer, fieldKvs, protowire.BytesType), data)
	}
	return answer, nil
}

// keptMax bounds what is kept for the next answer, in key-values.
const keptMax = 1 << 16

// forget lets the values go, which end with the picture that they come from.
func (e *Encoder) forget() {
	clear(e.stored)
	e.revs, e.stored = e.revs[:0], e.stored[:0]
	if cap(e.revs) > keptMax {
		e.revs, e.stored = nil, nil
	}
}

// find leaves the revisions of the key-values in revs; there are none where the
// index alone has the answer. All of the index is read before any of the
// values: a processor waits less for memory so.
func (e *Encoder) find(v *View, req *pb.RangeRequest, vals Encoded) (*pb.RangeResponse, error) {
	byKey := req.SortTarget == pb.RangeRequest_KEY && req.SortOrder != pb.RangeRequest_DESCEND
	if byKey && !HasRevisionFilters(req) && !req.KeysOnly && !req.CountOnly {
		return e.findByKey(v, req)
	}
	resp, hits, err := v.rangeHits(req, vals, true)
	for i := range hits {
		e.revs = append(e.revs, hits[i].rev)
	}
	return resp, err
}

// findByKey is find for keys that come as they lie in the index.
func (e *Encoder) findByKey(v *View, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev, err := v.readRevision(req.Revision)
	if err != nil {
		return nil, err
	}
	limit := req.Limit
	if limit <= 0 {
		limit = math.MaxInt64
	}
	resp := &pb.RangeResponse{}
	span{req.Key, req.RangeEnd}.each(v.tree, func(_ entry, h *history) bool {
		r, ok := h.at(rev)
		if !ok {
			return true
		}
		if resp.Count++; resp.Count <= limit {
			e.revs = append(e.revs, r.rev)
		}
		return true
	})
	resp.More = resp.Count > limit
	return resp, nil
}
