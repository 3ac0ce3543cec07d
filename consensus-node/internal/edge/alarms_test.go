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
		require.NoError(t, barred(nil, method, 300), name)
		err := barred(apply.Alarms{{Member: 5, Type: pb.AlarmType_CORRUPT}}, method, 0)
		if writes[method] {
			require.Equal(t, rpctypes.ErrGRPCCorrupt, err, name)
		} else {
			require.NoError(t, err, name)
		}
	}
}

// Without space on a member what takes some is refused and nothing else; a corrupt member comes first.
func TestNoSpaceBarsWhatTakesSpace(t *testing.T) {
	full := apply.Alarms{{Member: 5, Type: pb.AlarmType_NOSPACE}}
	require.Equal(t, rpctypes.ErrGRPCNoSpace, barred(full, consensusv1.Method_METHOD_TXN, 1))
	require.NoError(t, barred(full, consensusv1.Method_METHOD_TXN, 0))
	require.NoError(t, barred(full, consensusv1.Method_METHOD_DELETE_RANGE, 0))
	both := apply.Alarms{{Member: 5, Type: pb.AlarmType_NOSPACE}, {Member: 6, Type: pb.AlarmType_CORRUPT}}
	require.Equal(t, rpctypes.ErrGRPCCorrupt, barred(both, consensusv1.Method_METHOD_PUT, 1))
}
