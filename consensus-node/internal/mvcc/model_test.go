package mvcc

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// model is the key space at its most naive: a map of all keys for every
// revision. Its responses are what the core's are held against.
type model struct {
	at      []map[string]*mvccpb.KeyValue // by main revision
	events  map[int64][]string            // by main revision, as showEvent without before
	compact int64
	leases  Leases

	work  map[string]*mvccpb.KeyValue // what the request at hand has made
	wrote []string
}

func newModel(l Leases) *model {
	empty := map[string]*mvccpb.KeyValue{}
	return &model{at: []map[string]*mvccpb.KeyValue{empty, empty}, events: map[int64][]string{}, compact: -1, leases: l}
}

func (m *model) rev() int64 { return int64(len(m.at) - 1) }

// now is the revision that an operation of the request at hand reports.
func (m *model) now() int64 {
	if len(m.wrote) > 0 {
		return m.rev() + 1
	}
	return m.rev()
}

func (m *model) begin() { m.work, m.wrote = maps.Clone(m.at[m.rev()]), nil }

func (m *model) end() {
	if len(m.wrote) > 0 {
		m.at = append(m.at, m.work)
		m.events[m.rev()] = m.wrote
	}
	m.wrote = nil
}

func inRange(key string, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return key == string(from)
	case string(end) == "\x00":
		return key >= string(from)
	}
	return key >= string(from) && key < string(end)
}

func keysIn(kvs map[string]*mvccpb.KeyValue, from, end []byte) (out []*mvccpb.KeyValue) {
	for _, key := range slices.Sorted(maps.Keys(kvs)) {
		if inRange(key, from, end) {
			out = append(out, kvs[key])
		}
	}
	return out
}

func (m *model) checkPut(req *pb.PutRequest) error {
	if req.Lease != 0 && !m.leases.Exists(req.Lease) {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	if (req.IgnoreValue || req.IgnoreLease) && m.at[m.rev()][string(req.Key)] == nil {
		return rpctypes.ErrGRPCKeyNotFound
	}
	return nil
}

func (m *model) put(req *pb.PutRequest) *pb.PutResponse {
	main, prev := m.rev()+1, m.work[string(req.Key)]
	kv := &mvccpb.KeyValue{
		Key: req.Key, Value: req.Value, Lease: req.Lease,
		ModRevision: main, CreateRevision: main, Version: 1,
	}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	if req.IgnoreValue {
		kv.Value = prev.Value
	}
	if req.IgnoreLease {
		kv.Lease = prev.Lease
	}
	m.work[string(req.Key)] = kv
	m.wrote = append(m.wrote, "PUT "+showKV(kv))
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: main}}
	if req.PrevKv {
		resp.PrevKv = prev
	}
	return resp
}

func (m *model) delete(req *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{}
	for _, kv := range keysIn(m.work, req.Key, req.RangeEnd) {
		resp.Deleted++
		if req.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, kv)
		}
		delete(m.work, string(kv.Key))
		m.wrote = append(m.wrote, "DELETE "+showKV(&mvccpb.KeyValue{Key: kv.Key, ModRevision: m.rev() + 1}))
	}
	resp.Header = &pb.ResponseHeader{Revision: m.now()}
	return resp
}

// rangeKeys answers from the request's own state. Ties are kept in key order,
// which is what etcd's sort gives for up to twelve keys.
func (m *model) rangeKeys(req *pb.RangeRequest) (*pb.RangeResponse, error) {
	kvs := m.work
	switch {
	case req.Revision > m.now():
		return nil, rpctypes.ErrGRPCFutureRev
	case req.Revision > 0 && req.Revision < m.compact:
		return nil, rpctypes.ErrGRPCCompacted
	case req.Revision > 0 && req.Revision <= m.rev():
		kvs = m.at[req.Revision]
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: m.now()}}
	list := keysIn(kvs, req.Key, req.RangeEnd)
	resp.Count = int64(len(list))
	if req.CountOnly {
		return resp, nil
	}
	cut := func() {
		if req.Limit > 0 && int64(len(list)) > req.Limit {
			list, resp.More = list[:req.Limit], true
		}
	}
	if req.SortOrder == pb.RangeRequest_NONE && req.SortTarget != pb.RangeRequest_KEY && !HasRevisionFilters(req) && req.Limit > 0 {
		list = list[:min(len(list), int(req.Limit)+1)]
	}
	list = slices.DeleteFunc(list, func(kv *mvccpb.KeyValue) bool {
		out := func(rev, low, high int64) bool { return low != 0 && rev < low || high != 0 && rev > high }
		return out(kv.ModRevision, req.MinModRevision, req.MaxModRevision) ||
			out(kv.CreateRevision, req.MinCreateRevision, req.MaxCreateRevision)
	})
	slices.SortStableFunc(list, func(a, b *mvccpb.KeyValue) int {
		c := compareBy(req.SortTarget, a, b)
		if req.SortOrder == pb.RangeRequest_DESCEND {
			return -c
		}
		return c
	})
	cut()
	for _, kv := range list {
		if req.KeysOnly {
			short := &mvccpb.KeyValue{Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version}
			if req.SortTarget == pb.RangeRequest_VALUE {
				short.Lease = kv.Lease
			}
			kv = short
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

func compareBy(target pb.RangeRequest_SortTarget, a, b *mvccpb.KeyValue) int {
	switch target {
	case pb.RangeRequest_VERSION:
		return cmp.Compare(a.Version, b.Version)
	case pb.RangeRequest_CREATE:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case pb.RangeRequest_MOD:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case pb.RangeRequest_VALUE:
		return bytes.Compare(a.Value, b.Value)
	default:
		return bytes.Compare(a.Key, b.Key)
	}
}

func (m *model) holds(c *pb.Compare) bool {
	list := keysIn(m.at[m.rev()], c.Key, c.RangeEnd)
	if len(list) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		list = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range list {
		var order int
		switch c.Target {
		case pb.Compare_VALUE:
			order = bytes.Compare(kv.Value, c.GetValue())
		case pb.Compare_VERSION:
			order = cmp.Compare(kv.Version, c.GetVersion())
		case pb.Compare_CREATE:
			order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
		case pb.Compare_MOD:
			order = cmp.Compare(kv.ModRevision, c.GetModRevision())
		case pb.Compare_LEASE:
			order = cmp.Compare(kv.Lease, c.GetLease())
		}
		if !map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: order == 0, pb.Compare_NOT_EQUAL: order != 0,
			pb.Compare_LESS: order < 0, pb.Compare_GREATER: order > 0,
		}[c.Result] {
			return false
		}
	}
	return true
}

// txn runs a transaction on work. With dry set it only looks for errors: the
// caller runs it so first, on a copy.
func (m *model) txn(req *pb.TxnRequest, dry bool) (*pb.TxnResponse, error) {
	ok := !slices.ContainsFunc(req.Compare, func(c *pb.Compare) bool { return !m.holds(c) })
	resp, ops := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: ok}, req.Failure
	if ok {
		ops = req.Success
	}
	for _, op := range ops {
		out := &pb.ResponseOp{}
		var err error
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			if dry {
				err = m.checkPut(r.RequestPut)
				break
			}
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: m.put(r.RequestPut)}
		case *pb.RequestOp_RequestDeleteRange:
			if !dry {
				out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: m.delete(r.RequestDeleteRange)}
			}
		case *pb.RequestOp_RequestRange:
			if dry && r.RequestRange.Revision < 0 && r.RequestRange.Revision < m.compact {
				err = rpctypes.ErrGRPCCompacted
				break
			}
			var rr *pb.RangeResponse
			rr, err = m.rangeKeys(r.RequestRange)
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: rr}
		case *pb.RequestOp_RequestTxn:
			var tr *pb.TxnResponse
			tr, err = m.txn(r.RequestTxn, dry)
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: tr}
		}
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, out)
	}
	return resp, nil
}
