package mvcc

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// compareAll also says how many comparisons were made.
func (s *snapshot) compareAll(cmps []*pb.Compare, vals Values) (holds bool, made int, err error) {
	for i, c := range cmps {
		if ok, err := s.compareKeys(c, vals); !ok || err != nil {
			return false, i + 1, err
		}
	}
	return true, len(cmps), nil
}

// compareKeys holds if the comparison holds of every key of its range. Of an
// empty range it is judged as of a key whose numbers are all 0, and never
// holds for a value: the API cannot tell an empty value from none.
func (s *snapshot) compareKeys(c *pb.Compare, vals Values) (holds bool, err error) {
	holds, found := true, false
	span{c.Key, c.RangeEnd}.each(s.tree, func(_ entry, h *history) bool {
		r, ok := h.at(s.rev)
		if !ok {
			return true
		}
		found = true
		// The index keeps the lease of a key's last change only; the key may have
		// changed since the view.
		lease, stale := h.lease, h.last.rev != r.rev
		var value []byte
		if c.Target == pb.Compare_VALUE || (c.Target == pb.Compare_LEASE && stale) {
			kv, lerr := load(vals, r.rev)
			if lerr != nil {
				err = lerr
				return false
			}
			value, lease = kv.Value, kv.Lease
		}
		holds = compareOne(c, r, lease, value)
		return holds
	})
	if err != nil {
		return false, err
	}
	if !found {
		return c.Target != pb.Compare_VALUE && compareOne(c, record{}, 0, nil), nil
	}
	return holds, nil
}

// compareOne judges one key. As in etcd an unknown target compares as equal
// and an unknown operator always holds.
func compareOne(c *pb.Compare, r record, lease int64, value []byte) bool {
	order := 0
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(r.create, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(r.rev.Main, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(r.version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return true
}
