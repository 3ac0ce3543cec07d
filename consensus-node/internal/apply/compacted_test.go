package apply_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// A transaction that reads what was compacted fails as a whole before it writes anything, and alike on the node that somebody waits on and
// on one where the read itself would be left out, wherever the steps of the compaction are. (etcd#18667: there the two parted.)
func TestCompactedReadInATxnFailsAlikeEverywhere(t *testing.T) {
	ops := func(revision int64) []*pb.RequestOp {
		return []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b"), Value: []byte("1")}}},
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), Revision: revision}}},
		}
	}
	nested := func(revision int64) []*pb.RequestOp {
		return []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops(revision)}}}}
	}
	for _, waits := range []bool{true, false} {
		for _, steps := range []bool{true, false} {
			for _, wrap := range []func(int64) []*pb.RequestOp{ops, nested} {
				m, db := apply.New(), newDatabase()
				m.Waits = func(uint64) bool { return waits }
				for range 3 {
					step(t, m, db, putCommand(t, &pb.PutRequest{Key: []byte("a")}))
				}
				compact := &journalv1.Command{Command: &journalv1.Command_Compact{Compact: marshal(t, &pb.CompactionRequest{Revision: 3})}}
				step(t, m, db, compact)
				if steps {
					b, _ := m.CompactStep(100)
					db.store(t, b)
				}
				txn := func(revision int64) apply.Result {
					return step(t, m, db, &journalv1.Command{Command: &journalv1.Command_Txn{Txn: marshal(t, &pb.TxnRequest{Success: wrap(revision)})}})
				}
				failed := txn(2)
				require.Equal(t, rpctypes.ErrGRPCCompacted, failed.Outcomes[0].Err)
				require.Empty(t, failed.Batch.Writes)
				require.Empty(t, failed.Revisions)
				require.EqualValues(t, 4, m.View().KV.Revision())
				done := txn(3)
				require.NoError(t, done.Outcomes[0].Err)
				require.Len(t, done.Batch.Writes, 1)
			}
		}
	}
}
