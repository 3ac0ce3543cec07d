package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Rows of etcd's meta bucket that say how far compaction is. A restart carries
// on what is scheduled and not finished.
const (
	MetaBucket          = "meta"
	ScheduledCompactKey = "scheduledCompactRev"
	FinishedCompactKey  = "finishedCompactRev"
)

// compactRow is a compact revision as etcd stores it.
func compactRow(rev int64) []byte {
	return mvcc.AppendBucketKey(nil, mvcc.Revision{Main: rev}, false)
}

func (s *step) compact(req *pb.CompactionRequest) (answer, error) {
	if err := s.m.kv.Compact(req.Revision); err != nil {
		return decided(err)
	}
	s.res.Batch.put(MetaBucket, []byte(ScheduledCompactKey), compactRow(req.Revision))
	resp := &pb.CompactionResponse{Header: s.header()}
	return s.answered(resp, resp.Header), nil
}

// Compacting says whether CompactStep has something to do.
func (m *Machine) Compacting() bool { return m.kv.Compacting() || m.finished < m.kv.CompactRevision() }

// CompactStep frees up to limit revisions that compactions made unreadable.
// Its Batch has the index and term of the last entry; done says that nothing
// is left to do, and then the Batch also notes the compaction as finished.
// A View taken before still needs what the Batch drops.
func (m *Machine) CompactStep(limit int) (b Batch, done bool) {
	m.view = nil
	b.Index, b.Term = m.index, m.term
	b.Drop, done = m.kv.CompactStep(limit)
	if rev := m.kv.CompactRevision(); done && m.finished < rev {
		m.finished = rev
		b.put(MetaBucket, []byte(FinishedCompactKey), compactRow(rev))
	}
	return b, done
}
