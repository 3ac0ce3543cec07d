package mvcc

import (
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// ErrTxnWrites is returned by View.Txn for a transaction that may write.
var ErrTxnWrites = errors.New("mvcc: a view cannot run a transaction with writes")

// IsTxnReadOnly says whether no branch of the transaction writes, so that a
// View can run it.
func IsTxnReadOnly(req *pb.TxnRequest) bool {
	return everyOp(req, func(op *pb.RequestOp) bool {
		if op.GetRequestTxn() != nil {
			return IsTxnReadOnly(op.GetRequestTxn())
		}
		return op.GetRequestRange() != nil
	})
}

// IsTxnSerializable says whether the transaction may be answered without a
// read index. As in etcd that takes every operation of both branches to be a
// serializable range; a nested transaction is none.
func IsTxnSerializable(req *pb.TxnRequest) bool {
	return everyOp(req, func(op *pb.RequestOp) bool { return op.GetRequestRange().GetSerializable() })
}

func everyOp(req *pb.TxnRequest, holds func(*pb.RequestOp) bool) bool {
	for _, ops := range [][]*pb.RequestOp{req.GetSuccess(), req.GetFailure()} {
		for _, op := range ops {
			if !holds(op) {
				return false
			}
		}
	}
	return true
}

// Txn runs a read-only transaction. Errors are those of Range, and
// ErrTxnWrites. Nested response headers are empty, as in etcd.
func (v *View) Txn(req *pb.TxnRequest, vals Values) (*pb.TxnResponse, Ops, error) {
	if !IsTxnReadOnly(req) {
		return nil, Ops{}, ErrTxnWrites
	}
	b, err := v.choose(req, vals)
	if err != nil {
		return nil, Ops{}, err
	}
	if err := (&txnCheck{now: &v.snapshot}).branch(b); err != nil {
		return nil, Ops{}, err
	}
	// A writer without any write is the one way to run a branch.
	w := &writer{s: &State{snapshot: v.snapshot}, env: Env{Values: vals}, main: v.rev + 1}
	resp, err := w.branch(b)
	if err != nil {
		return nil, Ops{}, err
	}
	resp.Header.Revision = v.rev
	w.ops.Ranges += b.compared
	return resp, w.ops.request(), nil
}

// Txn runs a transaction. All comparisons, also those of nested transactions,
// see the state before it; its operations see each other in order. All its
// changes share one main revision; without changes the revision stays.
//
// Errors, found on the chosen branches before anything is written:
// ErrGRPCFutureRev and ErrGRPCCompacted of ranges, and those of Put.
func (s *State) Txn(req *pb.TxnRequest, env Env) (*pb.TxnResponse, Effects, error) {
	b, err := s.choose(req, env.Values)
	if err != nil {
		return nil, Effects{}, err
	}
	if err := (&txnCheck{now: &s.snapshot, leases: env.Leases}).branch(b); err != nil {
		return nil, Effects{}, err
	}
	w := s.write(env)
	resp, err := w.branch(b)
	if err != nil {
		return nil, Effects{}, err
	}
	resp.Header.Revision = w.snapshot().rev
	eff := w.finish()
	// As in etcd the comparisons are a transaction of their own.
	eff.Ops.Add(Ops{Ranges: b.compared}.request())
	return resp, eff, nil
}

// branch is the side of a transaction that its comparisons chose, with the
// branches of the transactions nested in it, in the order of their operations.
type branch struct {
	succeeded bool
	ops       []*pb.RequestOp
	nested    []branch
	compared  int // comparisons made, with those of nested ones
}

func (s *snapshot) choose(req *pb.TxnRequest, vals Values) (branch, error) {
	ok, compared, err := s.compareAll(req.GetCompare(), vals)
	if err != nil {
		return branch{}, err
	}
	b := branch{succeeded: ok, ops: req.GetFailure(), compared: compared}
	if ok {
		b.ops = req.GetSuccess()
	}
	for _, op := range b.ops {
		if _, ok := op.Request.(*pb.RequestOp_RequestTxn); !ok {
			continue
		}
		n, err := s.choose(op.GetRequestTxn(), vals)
		if err != nil {
			return branch{}, err
		}
		b.nested = append(b.nested, n)
		b.compared += n.compared
	}
	return b, nil
}

// txnCheck finds what would fail on the chosen branches before any of it runs.
type txnCheck struct {
	now    *snapshot
	leases Leases
	gone   []span // what operations before the present one delete
}

func (t *txnCheck) branch(b branch) error {
	nested := b.nested
	for _, op := range b.ops {
		var err error
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			err = t.readable(r.RequestRange)
		case *pb.RequestOp_RequestPut:
			err = t.put(r.RequestPut)
		case *pb.RequestOp_RequestDeleteRange:
			t.gone = append(t.gone, span{r.RequestDeleteRange.Key, r.RequestDeleteRange.RangeEnd})
		case *pb.RequestOp_RequestTxn:
			err = t.branch(nested[0])
			nested = nested[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *txnCheck) readable(req *pb.RangeRequest) error {
	if err := t.now.checkReadRevision(req.Revision); err != nil {
		return err
	}
	return checkSort(req.SortTarget, req.SortOrder)
}

// put also refuses ignore_value and ignore_lease of a key that the transaction
// deletes before: a delete up to the end of the key space passes etcd's check
// for overlaps, and etcd then crashes.
func (t *txnCheck) put(req *pb.PutRequest) error {
	if err := t.now.checkPut(req, t.leases); err != nil {
		return err
	}
	if req.IgnoreValue || req.IgnoreLease {
		for _, g := range t.gone {
			if g.contains(borrow(req.Key)) {
				return rpctypes.ErrGRPCKeyNotFound
			}
		}
	}
	return nil
}

// branch runs a branch that txnCheck has passed. The header stays empty: etcd
// fills only the outermost one.
func (w *writer) branch(b branch) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{
		Header:    &pb.ResponseHeader{},
		Succeeded: b.succeeded,
		Responses: make([]*pb.ResponseOp, len(b.ops)),
	}
	nested := b.nested
	for i, op := range b.ops {
		out := &pb.ResponseOp{}
		resp.Responses[i] = out
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			rr, err := w.rangeOp(r.RequestRange)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: rr}
		case *pb.RequestOp_RequestPut:
			pr, err := w.put(r.RequestPut)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: pr}
		case *pb.RequestOp_RequestDeleteRange:
			dr, err := w.deleteRange(r.RequestDeleteRange)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: dr}
		case *pb.RequestOp_RequestTxn:
			tr, err := w.branch(nested[0])
			if err != nil {
				return nil, err
			}
			nested = nested[1:]
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: tr}
		}
	}
	return resp, nil
}

func (w *writer) rangeOp(req *pb.RangeRequest) (*pb.RangeResponse, error) {
	w.ops.Ranges++
	now := w.snapshot()
	if w.env.SkipReads {
		return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: now.rev}}, nil
	}
	return now.rangeKeys(req, w, true)
}
