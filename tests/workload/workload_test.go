package workload

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/tests/history"
)

// Only a refusal says that an operation was not done.
func TestOutcome(t *testing.T) {
	require.Equal(t, history.Done, outcome(nil))
	for _, err := range []error{
		rpctypes.ErrLeaseNotFound, rpctypes.ErrCompacted, rpctypes.ErrFutureRev, rpctypes.ErrTooManyRequests, rpctypes.ErrNoSpace,
		rpctypes.ErrRequestTooLarge, rpctypes.ErrDuplicateKey,
	} {
		require.Equal(t, history.NotDone, outcome(err), "%v", err)
	}
	for _, err := range []error{
		context.DeadlineExceeded, context.Canceled, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrNoLeader, rpctypes.ErrStopped, rpctypes.ErrLeaderChanged, errors.New("x"), status.Error(codes.Unavailable, "reset"),
		status.Error(codes.Internal, "x"), clientv3.ErrNoAvailableEndpoints,
	} {
		require.Equal(t, history.Unknown, outcome(err), "%v", err)
	}
	require.Equal(t, codes.DeadlineExceeded, Code(context.DeadlineExceeded))
}

// A connection counts while it is the only one.
func TestConnections(t *testing.T) {
	var none *Connections
	require.Zero(t, none.current())
	c := &Connections{}
	require.Zero(t, c.current())
	c.HandleConn(t.Context(), &stats.ConnBegin{})
	require.EqualValues(t, 1, c.current())
	c.HandleConn(t.Context(), &stats.ConnBegin{})
	require.Zero(t, c.current(), "two at once")
	c.HandleConn(t.Context(), &stats.ConnEnd{})
	require.EqualValues(t, 2, c.current())
}
