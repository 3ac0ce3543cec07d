package bus

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/tests/framework"
)

// A subscriber that knows nothing but the subject and the .proto file hears what happens to leases, with the lease sequence and the trace of
// the client's call, also when the instance that owned them is gone.
func TestLeaseEventsForOutsiders(t *testing.T) {
	address := freeAddress(t)
	c := framework.Standalone(t, framework.Options{Args: []string{"--bus-listen", address, "--otlp-endpoint", freeAddress(t)}})
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := client.MemberList(ctx)
	require.NoError(t, err)

	outside := connect(t, address, bus.Limits{})
	defer func() { require.NoError(t, outside.Close()) }()
	require.Eventually(t, outside.Connected, patience, tick, "the embedded server takes connections")
	messages := make(chan bus.Message, messagesMax)
	_, err = outside.Subscribe(fmt.Sprintf("holdfast.%016x.lease.events", members.Header.GetClusterId()),
		func(m bus.Message) { messages <- m }, func(bus.Cause) {})
	require.NoError(t, err)

	const trace = "0af7651916cd43dd8448eb211c80319c"
	traced := metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	var sequence uint64
	next := func(lease clientv3.LeaseID, kind leasev1.Kind) *leasev1.Event {
		t.Helper()
		for {
			select {
			case m := <-messages:
				event := &leasev1.Event{}
				require.NoError(t, proto.Unmarshal(m.Payload, event))
				require.EqualValues(t, 1, event.GetVersion())
				require.Equal(t, members.Header.GetClusterId(), event.GetClusterId())
				require.NotEmpty(t, event.GetInstance())
				if event.GetLease() != int64(lease) || event.GetKind() != kind {
					continue
				}
				require.GreaterOrEqual(t, event.GetSequence(), sequence)
				sequence = event.GetSequence()
				if kind == leasev1.Kind_KIND_GRANTED || kind == leasev1.Kind_KIND_REVOKED {
					require.Contains(t, m.Header.Get("traceparent"), trace, "it is part of the client's call")
				} else {
					require.NotEmpty(t, m.Header.Get("traceparent"), "it is part of the owner's trace")
				}
				return event
			case <-ctx.Done():
				require.FailNow(t, "no such event", "%s of lease %x", kind, int64(lease))
				return nil
			}
		}
	}
	// What happens just after the subscription may not be heard yet.
	require.Eventually(t, func() bool {
		_, err := client.Grant(ctx, 60)
		return err == nil && len(messages) > 0
	}, patience, tick, "events come")
	kept, err := client.Grant(traced, 60)
	require.NoError(t, err)
	granted := next(kept.ID, leasev1.Kind_KIND_GRANTED)
	require.EqualValues(t, 60, granted.GetTtlS())
	_, err = client.Put(ctx, "k", "v", clientv3.WithLease(kept.ID))
	require.NoError(t, err)
	revoked, err := client.Revoke(traced, kept.ID)
	require.NoError(t, err)
	require.Equal(t, revoked.Header.GetRevision(), next(kept.ID, leasev1.Kind_KIND_REVOKED).GetRevision())

	short, err := client.Grant(traced, 1)
	require.NoError(t, err)
	next(short.ID, leasev1.Kind_KIND_GRANTED)
	next(short.ID, leasev1.Kind_KIND_EXPIRING)
	next(short.ID, leasev1.Kind_KIND_EXPIRED)
}
