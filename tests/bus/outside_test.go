package bus

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/tests/framework"
)

// freeAddress is an address that nobody listened on a moment ago. It comes from the kernel's range, from which the
// framework takes none for the other ports of the process.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", host+":0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

// A subscriber outside of a standalone process hears its changes at the address of --bus-listen.
func TestChangesForOutsiders(t *testing.T) {
	address := freeAddress(t)
	c := framework.Standalone(t, framework.Options{Args: []string{"--bus-listen", address}})
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := client.MemberList(ctx)
	require.NoError(t, err)
	cluster := members.Header.GetClusterId()

	outside := connect(t, address, bus.Limits{})
	defer func() { require.NoError(t, outside.Close()) }()
	require.Eventually(t, outside.Connected, patience, tick, "the embedded server takes connections")
	f := follow(t, outside, cluster)
	// Heartbeats come while nothing is written. From the first one on nothing may be missing.
	f.position = f.next(ctx).GetHeadRevision()

	first, err := client.Put(ctx, "a", "1")
	require.NoError(t, err)
	second, err := client.Put(ctx, "a", "2")
	require.NoError(t, err)
	third, err := client.Delete(ctx, "a")
	require.NoError(t, err)
	txn, err := client.Txn(ctx).Then(clientv3.OpPut("b", "3"), clientv3.OpPut("c", "4")).Commit()
	require.NoError(t, err)

	f.until(ctx, txn.Header.GetRevision())
	require.Equal(t, []string{
		fmt.Sprintf("%d put a=1 before 0", first.Header.GetRevision()),
		fmt.Sprintf("%d put a=2 before %d", second.Header.GetRevision(), first.Header.GetRevision()),
		fmt.Sprintf("%d delete a before %d", third.Header.GetRevision(), second.Header.GetRevision()),
		fmt.Sprintf("%d put b=3 before 0", txn.Header.GetRevision()),
		fmt.Sprintf("%d put c=4 before 0", txn.Header.GetRevision()),
	}, f.heard)
}

// follower keeps the position of a subscriber by the rule of the feed.
type follower struct {
	t        *testing.T
	cluster  uint64
	messages chan bus.Message
	position int64
	heard    []string
}

// messagesMax bounds what waits; a standalone process publishes about ten heartbeats a second.
const messagesMax = 10_000

func follow(t *testing.T, b bus.Bus, cluster uint64) *follower {
	t.Helper()
	f := &follower{t: t, cluster: cluster, messages: make(chan bus.Message, messagesMax)}
	subject := fmt.Sprintf("holdfast.%016x.changes", cluster)
	_, err := b.Subscribe(subject, func(m bus.Message) { f.messages <- m }, func(cause bus.Cause) {
		if cause != bus.Reconnect { // the first connection may be told of late
			t.Errorf("messages may have been lost: %s", cause)
		}
	})
	require.NoError(t, err)
	return f
}

// next is the next message. Each says which format and cluster it is of.
func (f *follower) next(ctx context.Context) *feedv1.Message {
	f.t.Helper()
	select {
	case m := <-f.messages:
		message := &feedv1.Message{}
		require.NoError(f.t, proto.Unmarshal(m.Payload, message))
		require.EqualValues(f.t, 1, message.GetVersion())
		require.Equal(f.t, f.cluster, message.GetClusterId())
		require.NotZero(f.t, message.GetPublisher())
		require.NotZero(f.t, message.GetPublisherRun())
		require.True(f.t, message.GetHasLeader())
		return message
	case <-ctx.Done():
		require.FailNow(f.t, "no message on the bus")
		return nil
	}
}

// until takes messages in until the position reaches a revision.
func (f *follower) until(ctx context.Context, revision int64) {
	f.t.Helper()
	for f.position < revision {
		message := f.next(ctx)
		if message.GetLastRevision() <= f.position {
			continue
		}
		require.LessOrEqual(f.t, message.GetPreviousRevision(), f.position, "a hole in the feed")
		require.GreaterOrEqual(f.t, message.GetHeadRevision(), message.GetLastRevision())
		require.False(f.t, message.GetBodyLess(), "small changes come with their body")
		for _, r := range message.GetRevisions() {
			if r.GetRevision() > f.position {
				f.take(r)
			}
		}
		f.position = message.GetLastRevision()
	}
}

func (f *follower) take(r *feedv1.Revision) {
	f.t.Helper()
	for _, e := range r.GetEvents() {
		kv := &mvccpb.KeyValue{}
		require.NoError(f.t, proto.Unmarshal(e.GetKv(), kv))
		require.Equal(f.t, string(e.GetKey()), string(kv.GetKey()))
		require.Equal(f.t, r.GetRevision(), kv.GetModRevision())
		what := fmt.Sprintf("put %s=%s", kv.GetKey(), kv.GetValue())
		if e.GetDeleted() {
			what = fmt.Sprintf("delete %s", kv.GetKey())
		}
		f.heard = append(f.heard, fmt.Sprintf("%d %s before %d", r.GetRevision(), what, e.GetPreviousModRevision()))
	}
}

// While nobody watches, a node tells several changes at a time; while somebody does, each as it comes.
func TestChangesAreGatheredWhileNobodyWatches(t *testing.T) {
	address := freeAddress(t)
	c := framework.Standalone(t, framework.Options{Args: []string{"--bus-listen", address}})
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	members, err := client.MemberList(ctx)
	require.NoError(t, err)
	outside := connect(t, address, bus.Limits{})
	defer func() { require.NoError(t, outside.Close()) }()
	require.Eventually(t, outside.Connected, patience, tick, "the embedded server takes connections")
	f := follow(t, outside, members.Header.GetClusterId())
	f.position = f.next(ctx).GetHeadRevision()

	// told puts one after the other, and counts the messages that they came in.
	told := func() (messages int) {
		t.Helper()
		const puts = 50
		var last int64
		for range puts {
			put, err := client.Put(ctx, "k", "v")
			require.NoError(t, err)
			last = put.Header.GetRevision()
		}
		for f.position < last {
			m := f.next(ctx)
			if m.GetLastRevision() > f.position {
				require.LessOrEqual(t, m.GetPreviousRevision(), f.position, "a hole in the feed")
				messages, f.position = messages+1, m.GetLastRevision()
			}
		}
		return messages
	}
	for told() > 25 { // nodes take some seconds to believe that nobody watches
		require.NoError(t, ctx.Err())
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := client.Watch(watching, "k", clientv3.WithCreatedNotify())
	<-events
	require.Greater(t, told(), 25)
}
