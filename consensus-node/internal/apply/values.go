package apply

import (
	"fmt"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Value implements mvcc.Values: what earlier commands of the same entry wrote
// is in no store yet.
func (s *step) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	writes := s.res.Batch.Writes
	if len(writes) == 0 || rev.Less(writes[0].Rev) {
		return s.vals.Value(rev)
	}
	i := sort.Search(len(writes), func(i int) bool { return !writes[i].Rev.Less(rev) })
	if i == len(writes) || writes[i].Rev != rev {
		return nil, fmt.Errorf("apply: revision %d_%d is not among the writes of its entry", rev.Main, rev.Sub)
	}
	return writes[i].KV, nil
}

// store takes over what a request changed in the key space.
func (s *step) store(eff mvcc.Effects) {
	s.res.Ops.Add(eff.Ops)
	if eff.Revision == 0 {
		return
	}
	encoded, rev := publish(eff)
	b := &s.res.Batch
	b.Writes = append(b.Writes, eff.Writes...)
	b.Encoded = append(b.Encoded, encoded...)
	s.res.Revisions = append(s.res.Revisions, rev)
	for _, d := range eff.Detach {
		s.m.leases.Detach(d.ID, d.Key)
	}
	for _, a := range eff.Attach {
		s.m.leases.Attach(a.ID, a.Key)
	}
}
