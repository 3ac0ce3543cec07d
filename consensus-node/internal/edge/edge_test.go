package edge

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/consensus-node/internal/liveness"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/credit"
	"github.com/holdfastdb/holdfast/services/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What a service says after its stream has ended does not bring it back.
func TestALateAnnouncementDoesNotStay(t *testing.T) {
	r := NewRegistry()
	id := r.add(&consensusv1.Announcement{Name: "hub", Run: 1})
	r.set(id, &consensusv1.Announcement{Name: "hub", Run: 1, Draining: true})
	require.True(t, r.list()[0].GetDraining())
	r.remove(id)
	r.set(id, &consensusv1.Announcement{Name: "hub", Run: 1})
	require.Empty(t, r.list())
}

// Of a service that is joined twice the latest start counts, until that one goes.
func TestTheLatestStartCounts(t *testing.T) {
	r := NewRegistry()
	old := r.add(&consensusv1.Announcement{Name: "hub", Run: 1})
	again := r.add(&consensusv1.Announcement{Name: "hub", Run: 2})
	require.Len(t, r.list(), 1)
	require.EqualValues(t, 2, r.list()[0].GetRun())
	r.remove(again)
	require.EqualValues(t, 1, r.list()[0].GetRun())
	changed := r.watch()
	r.remove(old)
	<-changed
	require.Empty(t, r.list())
}

// A stream takes no further batch while too many of its calls are unanswered, and goes on when they are.
func TestCallsInFlightAreBounded(t *testing.T) {
	f := newFlight(3, 100)
	require.NoError(t, f.begin(t.Context(), 2, 10))
	require.NoError(t, f.begin(t.Context(), 2, 200), "one batch may exceed the bound")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.begin(ended, 1, 1), context.Canceled)
	took := make(chan error, 1)
	go func() { took <- f.begin(t.Context(), 1, 1) }()
	f.end(10)
	f.end(0)
	select {
	case <-took:
		t.Fatal("the bytes are still too many")
	case <-time.After(20 * time.Millisecond):
	}
	f.end(200)
	require.NoError(t, <-took)
}

// A leader that was deposed and leads again knows nothing of what another leader confirmed meanwhile: it counts from its new start,
// whoever tells the keeper first.
func TestARegainedLeadershipStartsAnew(t *testing.T) {
	var now time.Duration
	l := NewLeases(func() time.Duration { return now })
	instance := &feedv1.Instance{Name: "a", Incarnation: 1}
	view := &feedv1.View{Epoch: 1, Instances: []*feedv1.Instance{instance}}
	departs := func(term uint64) (departs bool) {
		l.at(term, func(keeper *liveness.Keeper, now time.Duration) { departs = keeper.Decide(now, view) != nil })
		return departs
	}
	l.at(1, func(keeper *liveness.Keeper, now time.Duration) { keeper.Heartbeat(now, instance, false) })
	now += 10 * liveness.Removal
	require.False(t, departs(3), "another leader may just have confirmed it")
	now += liveness.Removal
	require.False(t, departs(3))
	require.False(t, departs(1), "asked with an outdated leadership nothing is decided")
	now += 2 * liveness.Margin
	require.True(t, departs(3))
	require.False(t, departs(0))
}

// stalled is a stream whose peer sends one thing and then is silent, and takes nothing.
type stalled struct {
	consensusv1.Consensus_CallsServer
	ctx    context.Context
	hello  chan *consensusv1.CallBatch
	closed chan struct{} // closed by the test when the handler has returned, as a server ends a stream
}

func (s *stalled) Context() context.Context            { return s.ctx }
func (s *stalled) Send(*consensusv1.AnswerBatch) error { return nil }
func (s *stalled) Recv() (*consensusv1.CallBatch, error) {
	select {
	case batch := <-s.hello:
		return batch, nil
	case <-s.closed:
		return nil, status.Error(codes.Canceled, "the handler has returned")
	}
}

// An answer that finds no room ends the stream at once, although its peer says nothing any more.
func TestOverflowEndsASilentStream(t *testing.T) {
	overflow := make(chan error, 1)
	lane := credit.NewLane(credit.Limits{QueueItems: 1, QueueBytes: 1, BatchItems: 1, BatchBytes: 1}, func(*consensusv1.Answer) int { return 1 })
	c := &callStream{lane: lane, flight: newFlight(10, 10), overflow: overflow}
	require.NoError(t, c.flight.begin(t.Context(), 3, 0))
	for range 3 {
		c.answer(&consensusv1.Call{}, &consensusv1.Answer{})
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(<-overflow))
}

// The end of a stream's context ends its handler, with nothing left behind.
func TestCallsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stream := &stalled{ctx: ctx, hello: make(chan *consensusv1.CallBatch, 1), closed: make(chan struct{})}
	stream.hello <- &consensusv1.CallBatch{Hello: &consensusv1.Hello{Version: ProtocolVersion}}
	ended := make(chan error, 1)
	go func() { ended <- (&Server{}).Calls(stream) }()
	cancel()
	require.NoError(t, <-ended)
	close(stream.closed)
}

// Errors of a node that ends are etcd's, not internal ones; waits end with etcd's texts.
func TestErrorsOfWaits(t *testing.T) {
	s := &Server{failures: failure.Edge{}}
	for _, tc := range []struct{ err, want error }{
		{raftnode.ErrStopped, rpctypes.ErrGRPCStopped},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), rpctypes.ErrGRPCTimeout},
		{context.Canceled, rpctypes.ErrGRPCCanceled},
		{rpctypes.ErrGRPCCompacted, rpctypes.ErrGRPCCompacted},
	} {
		require.Equal(t, tc.want.Error(), s.mapped(t.Context(), "x", tc.err).Error())
	}
}

// The limit counts what etcd counts: with 100 bytes allowed, a request of 85 is taken and one of 86 is not.
func TestRequestLimit(t *testing.T) {
	limits := Limits{RequestBytesMax: 100}
	require.False(t, limits.tooLarge(make([]byte, 85)))
	require.True(t, limits.tooLarge(make([]byte, 86)))
	limits.RequestBytesMax = 1_572_864
	require.False(t, limits.tooLarge(make([]byte, 1_572_864-17)))
	require.True(t, limits.tooLarge(make([]byte, 1_572_864-16)))
}
