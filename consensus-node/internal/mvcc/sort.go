package mvcc

import (
	"bytes"
	"slices"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// hitOrder sorts hits through package sort on purpose: its algorithm is not
// stable, but for equal input it makes the same exchanges wherever it runs, so
// keys that tie come out in the order in which etcd puts them.
type hitOrder struct {
	hits []hit
	less func(a, b *hit) bool
}

func (o *hitOrder) Len() int           { return len(o.hits) }
func (o *hitOrder) Swap(i, j int)      { o.hits[i], o.hits[j] = o.hits[j], o.hits[i] }
func (o *hitOrder) Less(i, j int) bool { return o.less(&o.hits[i], &o.hits[j]) }

// sortHits sorts hits, which come in key order. A target other than the key
// without an order means ascending.
func sortHits(hits []hit, target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) error {
	if err := checkSort(target, order); err != nil {
		return err
	}
	if target == pb.RangeRequest_KEY {
		if order == pb.RangeRequest_DESCEND {
			slices.Reverse(hits) // keys never tie
		}
		return nil
	}
	var by sort.Interface = &hitOrder{hits: hits, less: hitLess(target)}
	if order == pb.RangeRequest_DESCEND {
		by = sort.Reverse(by)
	}
	sort.Sort(by)
	return nil
}

func hitLess(target pb.RangeRequest_SortTarget) func(a, b *hit) bool {
	switch target {
	case pb.RangeRequest_VERSION:
		return func(a, b *hit) bool { return a.version < b.version }
	case pb.RangeRequest_CREATE:
		return func(a, b *hit) bool { return a.create < b.create }
	case pb.RangeRequest_MOD:
		return func(a, b *hit) bool { return a.rev.Main < b.rev.Main }
	case pb.RangeRequest_VALUE:
		return func(a, b *hit) bool { return bytes.Compare(a.kv.Value, b.kv.Value) < 0 }
	default:
		return func(a, b *hit) bool { return a.key < b.key }
	}
}

// checkSort returns ErrGRPCInvalidSortOption for numbers that the API does not
// name.
func checkSort(target pb.RangeRequest_SortTarget, order pb.RangeRequest_SortOrder) error {
	if _, ok := pb.RangeRequest_SortOrder_name[int32(order)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(target)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}
