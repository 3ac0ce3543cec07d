package differential

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (g *Generator) rangeRequest() *pb.RangeRequest {
	key := g.key()
	r := &pb.RangeRequest{Key: key, RangeEnd: g.rangeEnd(key), Serializable: g.chance(4)}
	if g.chance(3) {
		r.Revision = g.revision()
	}
	if g.chance(3) {
		r.Limit = pick(g.rng, []int64{0, 1, 2, 3, 9, 10, 11, 1000, -1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64})
	}
	if g.chance(3) {
		r.SortOrder = pg(g, pb.RangeRequest_NONE, pb.RangeRequest_ASCEND, pb.RangeRequest_DESCEND)
		r.SortTarget = pg(g, pb.RangeRequest_KEY, pb.RangeRequest_VERSION, pb.RangeRequest_CREATE, pb.RangeRequest_MOD, pb.RangeRequest_VALUE)
	}
	if g.chance(60) {
		r.SortOrder = 7
	}
	if g.chance(60) {
		r.SortTarget = 9
	}
	r.KeysOnly = g.chance(6)
	r.CountOnly = g.chance(8)
	if g.chance(8) {
		for _, bound := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
			if g.chance(2) {
				*bound = g.revision()
			}
		}
	}
	return r
}

func pg[T any](g *Generator, list ...T) T { return pick(g.rng, list) }

func (g *Generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(3)}
	if g.chance(4) {
		r.Lease = g.lease()
	}
	if g.chance(12) {
		r.IgnoreValue = true
		if !g.chance(4) {
			r.Value = nil
		}
	}
	if g.chance(12) {
		r.IgnoreLease = true
		if !g.chance(4) {
			r.Lease = 0
		}
	}
	return r
}

func (g *Generator) deleteRange() *pb.DeleteRangeRequest {
	key := g.key()
	return &pb.DeleteRangeRequest{Key: key, RangeEnd: g.rangeEnd(key), PrevKv: g.chance(2)}
}

// Bounds of a Txn that is not meant to be too large.
const (
	depthMax = 3
	fewOps   = 5
)

// txn makes a transaction, nested at most depthMax-depth deep.
func (g *Generator) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.rng.IntN(4) {
		r.Compare = append(r.Compare, g.compare())
	}
	for _, branch := range []*[]*pb.RequestOp{&r.Success, &r.Failure} {
		count := g.rng.IntN(fewOps)
		if g.chance(60) {
			count = txnOpsMax - 1 + g.rng.IntN(3)
		}
		for range count {
			*branch = append(*branch, g.requestOp(depth))
		}
	}
	if g.chance(100) {
		for len(r.Compare) <= txnOpsMax {
			r.Compare = append(r.Compare, g.compare())
		}
	}
	return r
}

func (g *Generator) requestOp(depth int) *pb.RequestOp {
	switch n := g.rng.IntN(40); {
	case n < 15:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case n < 27:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	case n < 33:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}}
	case n < 39 && depth < depthMax:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	case n < 39:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	default:
		return &pb.RequestOp{} // an operation without a request
	}
}

func (g *Generator) compare() *pb.Compare {
	key := g.key()
	c := &pb.Compare{Key: key, Result: pb.Compare_CompareResult(g.rng.IntN(4))}
	if g.chance(3) {
		c.RangeEnd = g.rangeEnd(key)
	}
	if g.chance(100) {
		c.Result = 9
	}
	target := g.rng.IntN(5)
	c.Target = pb.Compare_CompareTarget(target)
	if g.chance(50) {
		target = g.rng.IntN(6) // another than it says, or none
	}
	if g.chance(100) {
		c.Target = 9
	}
	switch target {
	case 0:
		c.TargetUnion = &pb.Compare_Version{Version: g.rng.Int64N(4)}
	case 1:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.revision()}
	case 2:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision()}
	case 3:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case 4:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()}
	}
	return c
}
