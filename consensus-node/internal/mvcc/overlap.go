package mvcc

import (
	"slices"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// touched is what a list of operations, with those nested in it, writes.
type touched struct {
	puts map[string]struct{}
	dels intervals
}

// checkOverlap returns ErrGRPCDuplicateKey if the operations put a key twice,
// or put one that they delete. Two branches of one nested transaction may put
// the same key, since only one of them runs.
//
// It finds neither more nor less than etcd: a delete nested after a nested put
// of its key is let pass, and so is any overlap with a delete up to the end of
// the key space, whose range end "\x00" etcd takes literally here.
func checkOverlap(ops []*pb.RequestOp) (touched, error) {
	t := touched{puts: make(map[string]struct{})}
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			t.dels.add(deleted(d))
		}
	}
	for _, op := range ops {
		if n := op.GetRequestTxn(); n != nil {
			if err := t.nested(n); err != nil {
				return touched{}, err
			}
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if err := t.put(string(p.Key), nil); err != nil {
				return touched{}, err
			}
		}
	}
	return t, nil
}

func (t *touched) nested(req *pb.TxnRequest) error {
	success, err := checkOverlap(req.Success)
	if err != nil {
		return err
	}
	failure, err := checkOverlap(req.Failure)
	if err != nil {
		return err
	}
	for key := range success.puts {
		if err := t.put(key, nil); err != nil {
			return err
		}
	}
	for key := range failure.puts {
		if err := t.put(key, success.puts); err != nil {
			return err
		}
	}
	for _, iv := range slices.Concat(success.dels, failure.dels) {
		t.dels.add(iv)
	}
	return nil
}

// put adds a key that must be neither deleted nor put yet, except by the other
// branch of the same transaction.
func (t *touched) put(key string, other map[string]struct{}) error {
	_, twice := t.puts[key]
	_, fine := other[key]
	if (twice && !fine) || t.dels.contain(key) {
		return rpctypes.ErrGRPCDuplicateKey
	}
	t.puts[key] = struct{}{}
	return nil
}

// interval holds the keys from begin up to and without end.
type interval struct{ begin, end string }

func deleted(req *pb.DeleteRangeRequest) interval {
	if len(req.RangeEnd) == 0 {
		return interval{string(req.Key), string(req.Key) + "\x00"}
	}
	return interval{string(req.Key), string(req.RangeEnd)}
}

// intervals are disjoint and sorted, so that many operations cost no square of
// comparisons.
type intervals []interval

func (s *intervals) add(iv interval) {
	if iv.begin >= iv.end {
		return
	}
	list := *s
	from := sort.Search(len(list), func(i int) bool { return list[i].end >= iv.begin })
	to := from
	for ; to < len(list) && list[to].begin <= iv.end; to++ {
		iv.begin, iv.end = min(iv.begin, list[to].begin), max(iv.end, list[to].end)
	}
	*s = slices.Replace(list, from, to, iv)
}

func (s intervals) contain(key string) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].end > key })
	return i < len(s) && s[i].begin <= key
}
