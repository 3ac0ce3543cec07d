package edge

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// With a corrupt member etcd refuses what writes keys or leases, and nothing else. Every method is judged, so that a new one is, too.
func TestACorruptMemberBarsWrites(t *testing.T) {
	writes := map[consensusv1.Method]bool{
		consensusv1.Method_METHOD_PUT: true, consensusv1.Method_METHOD_DELETE_RANGE: true, consensusv1.Method_METHOD_TXN: true,
		consensusv1.Method_METHOD_COMPACT: true, consensusv1.Method_METHOD_LEASE_GRANT: true, consensusv1.Method_METHOD_LEASE_REVOKE: true,
	}
	for number, name := range consensusv1.Method_name {
		method := consensusv1.Method(number)
		require.NoError(t, barred(nil, method), name)
		err := barred(apply.Alarms{{Member: 5, Type: pb.AlarmType_CORRUPT}}, method)
		if writes[method] {
			require.Equal(t, rpctypes.ErrGRPCCorrupt, err, name)
		} else {
			require.NoError(t, err, name)
		}
	}
}
