package mvcc

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Range answers a range request. The response's header holds the view's
// revision and nothing else. vals is not asked for anything if the request is
// count_only, or keys_only and not sorted by value.
//
// Errors: ErrGRPCFutureRev, ErrGRPCCompacted, ErrGRPCInvalidSortOption, and
// what vals returns.
func (v *View) Range(req *pb.RangeRequest, vals Values) (*pb.RangeResponse, error) {
	return v.rangeKeys(req, vals, true)
}

// RangePage is Range for one page of a longer answer: it stops at the limit
// and counts only what it returns, so that reading a large range page by page
// costs one pass in all.
func (v *View) RangePage(req *pb.RangeRequest, vals Values) (*pb.RangeResponse, error) {
	return v.rangeKeys(req, vals, false)
}

// hit is a key that a range found, and its value once that is loaded.
type hit struct {
	key string
	record
	kv *mvccpb.KeyValue
}

func (s *snapshot) rangeKeys(req *pb.RangeRequest, vals Values, count bool) (*pb.RangeResponse, error) {
	resp, hits, err := s.rangeHits(req, vals, count)
	if err != nil || hits == nil {
		return resp, err
	}
	if err := loadHits(hits, vals); err != nil {
		return nil, err
	}
	resp.Kvs = make([]*mvccpb.KeyValue, len(hits))
	for i := range hits {
		resp.Kvs[i] = hits[i].kv
	}
	return resp, nil
}

// rangeHits answers a range but for the key-values, which are those of the
// hits. There are none where the index alone has the answer.
func (s *snapshot) rangeHits(req *pb.RangeRequest, vals Values, count bool) (*pb.RangeResponse, []hit, error) {
	rev, err := s.readRevision(req.Revision)
	if err != nil {
		return nil, nil, err
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.rev}}
	keys := span{req.Key, req.RangeEnd}
	if req.CountOnly {
		resp.Count = s.count(keys, rev)
		return resp, nil, nil
	}
	hits, total := s.collect(req, rev, count)
	byValue := req.SortTarget == pb.RangeRequest_VALUE
	if byValue {
		// etcd's keys_only answer is made from the stored key-value in this
		// case only, so it alone carries the lease.
		if err := loadHits(hits, vals); err != nil {
			return nil, nil, err
		}
	}
	if err := sortHits(hits, req.SortTarget, req.SortOrder); err != nil {
		return nil, nil, err
	}
	if req.Limit > 0 && int64(len(hits)) > req.Limit {
		hits, resp.More = hits[:req.Limit], true
	}
	resp.Count = total
	if !count {
		resp.Count = int64(len(hits))
	}
	if req.KeysOnly {
		resp.Kvs = keysOnly(hits)
		return resp, nil, nil
	}
	return resp, hits, nil
}

func (s *snapshot) count(keys span, rev int64) int64 {
	var n int64
	keys.each(s.tree, func(_ entry, h *history) bool {
		if _, ok := h.at(rev); ok {
			n++
		}
		return true
	})
	return n
}

// collect finds the keys of a range request in key order, filtered. The total
// counts every key of the range, whatever limit and filters say, as etcd does.
func (s *snapshot) collect(req *pb.RangeRequest, rev int64, count bool) (hits []hit, total int64) {
	limit, keep := collectLimit(req), revisionFilter(req)
	span{req.Key, req.RangeEnd}.each(s.tree, func(e entry, h *history) bool {
		full := int64(len(hits)) >= limit
		if full && !count {
			return false
		}
		r, ok := h.at(rev)
		if !ok {
			return true
		}
		total++
		if !full && (keep == nil || keep(r)) {
			hits = append(hits, hit{key: e.key, record: r})
		}
		return true
	})
	return hits, total
}

// collectLimit is how many keys must be looked at in key order: one above the
// limit, to know whether there are more, and all if a later step reorders or
// drops some. Order NONE counts as key order whatever the target is: etcd then
// cuts in key order first and sorts what is left.
func collectLimit(req *pb.RangeRequest) int64 {
	if req.Limit <= 0 || req.Limit == math.MaxInt64 || HasRevisionFilters(req) ||
		!IsKeyOrder(req.SortTarget, req.SortOrder) {
		return math.MaxInt64
	}
	return req.Limit + 1
}

// IsKeyOrder says whether etcd takes a sort option for ascending key order, in
// which it needs no more keys than the limit.
func IsKeyOrder(target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) bool {
	return order == pb.RangeRequest_NONE ||
		(target == pb.RangeRequest_KEY && order == pb.RangeRequest_ASCEND)
}

// HasRevisionFilters says whether any minimum or maximum of a mod or create
// revision is set.
func HasRevisionFilters(req *pb.RangeRequest) bool {
	return req.MinModRevision != 0 || req.MaxModRevision != 0 ||
		req.MinCreateRevision != 0 || req.MaxCreateRevision != 0
}

func revisionFilter(req *pb.RangeRequest) func(record) bool {
	if !HasRevisionFilters(req) {
		return nil
	}
	within := func(rev, low, high int64) bool {
		return (low == 0 || rev >= low) && (high == 0 || rev <= high)
	}
	return func(r record) bool {
		return within(r.rev.Main, req.MinModRevision, req.MaxModRevision) &&
			within(r.create, req.MinCreateRevision, req.MaxCreateRevision)
	}
}

// loadHits reads the values that are not there yet.
func loadHits(hits []hit, vals Values) error {
	for i := range hits {
		if hits[i].kv != nil {
			continue
		}
		kv, err := load(vals, hits[i].rev)
		if err != nil {
			return err
		}
		hits[i].kv = kv
	}
	return nil
}

// keysOnly makes the answer from the index alone; three allocations whatever
// the number of keys.
func keysOnly(hits []hit) []*mvccpb.KeyValue {
	size := 0
	for i := range hits {
		size += len(hits[i].key)
	}
	kvs, out, buf := make([]mvccpb.KeyValue, len(hits)), make([]*mvccpb.KeyValue, len(hits)), make([]byte, 0, size)
	for i := range hits {
		h, start := &hits[i], len(buf)
		buf = append(buf, h.key...)
		kv := &kvs[i]
		kv.Key = buf[start:len(buf):len(buf)]
		kv.CreateRevision, kv.ModRevision, kv.Version = h.create, h.rev.Main, h.version
		if h.kv != nil {
			kv.Lease = h.kv.Lease
		}
		out[i] = kv
	}
	return out
}

// checkReadRevision is etcd's check of a range inside a transaction, before
// anything is executed. It differs from readRevision for negative revisions.
func (s *snapshot) checkReadRevision(rev int64) error {
	switch {
	case rev == 0:
		return nil
	case rev > s.rev:
		return rpctypes.ErrGRPCFutureRev
	case rev < s.compact:
		return rpctypes.ErrGRPCCompacted
	}
	return nil
}
