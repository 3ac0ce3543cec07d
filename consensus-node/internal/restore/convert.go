package restore

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// firstTerm is the term of the entry that a restored log begins behind; its index is the number of members. Both are as etcd's.
const firstTerm = 1

// conversion makes the rows of a new cluster from those of an old one.
type conversion struct {
	plan   Plan
	latest mvcc.Revision // stored
}

// importOf says what becomes of the snapshot's rows.
func (c *conversion) importOf(mapBytes int) (store.Import, error) {
	var rows []store.Row
	for _, m := range c.plan.Members {
		key, value, err := member.Row(m)
		if err != nil {
			return store.Import{}, err
		}
		rows = append(rows, store.Row{Bucket: member.Bucket, Key: key, Value: value})
	}
	return store.Import{
		Row: c.row, End: func() []store.Row { return append(rows, c.raised()...) },
		Index: c.index(), Term: firstTerm, ConfState: c.confState(), MapBytes: mapBytes,
	}, nil
}

func (c *conversion) index() uint64 { return uint64(len(c.plan.Members)) }

func (c *conversion) confState() *raftpb.ConfState {
	conf := &raftpb.ConfState{}
	for _, m := range c.plan.Members {
		conf.Voters = append(conf.Voters, m.ID)
	}
	return conf
}

// row decides over one row of the snapshot.
func (c *conversion) row(bucket string, key, value []byte) (stored []byte, keep bool, err error) {
	switch bucket {
	case store.BucketKey:
		rev, _, err := mvcc.ParseBucketKey(key)
		if err != nil {
			return nil, false, err
		}
		c.latest = rev
		if c.latest.Main > math.MaxInt64-c.plan.bump() {
			return nil, false, refuse("--bump-revision %d is too large: the latest revision is %d", c.plan.BumpRevision, rev.Main)
		}
	case lease.Bucket:
		l, err := lease.ParseRow(key, value)
		if err != nil {
			return nil, false, err
		}
		// What was left of it belongs to clocks that are gone, and the number of its grant to a sequence that begins anew.
		_, stored = lease.Row(lease.Lease{ID: l.ID, TTLS: l.TTLS})
		return stored, true, nil
	case member.Bucket, member.RemovedBucket, member.ClusterBucket:
		return nil, false, nil // the new cluster agrees on its members and version anew
	}
	return value, true, nil
}

// raised are the rows that raise the revision: an entry without a key, far above what clients have seen, and a compaction at it. So a
// client that saw revisions which the snapshot lacks is told that they are compacted, instead of waiting for what was already.
func (c *conversion) raised() []store.Row {
	if c.plan.BumpRevision == 0 {
		return nil
	}
	rev := mvcc.Revision{Main: c.latest.Main + c.plan.bump()}
	return []store.Row{
		{Bucket: store.BucketKey, Key: mvcc.AppendBucketKey(nil, rev, false), Value: []byte{}},
		store.ScheduledCompact(rev.Main),
	}
}

// checkPlan reports a plan that is the caller's mistake.
func checkPlan(p Plan) error {
	for _, m := range p.Members {
		if m.ID == p.Self {
			return nil
		}
	}
	return fmt.Errorf("restore: member %x is not in the plan", p.Self)
}
