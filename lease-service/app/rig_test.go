package app_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/lease-service/app"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// bubbleClock is the time of a synctest bubble.
type bubbleClock struct {
	clock.Boottime
	start time.Time
}

func (c bubbleClock) Now() time.Duration { return time.Hour + time.Since(c.start) }

// rig is a consensus node and the instances around it, in a bubble whose time moves only when everything waits.
type rig struct {
	t      *testing.T
	node   *node
	direct *direct.Conn
	bus    *bus.Memory
	starts uint64
}

// inBubble runs a test with a rig; withBus says whether there is a bus.
func inBubble(t *testing.T, withBus bool, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, node: newNode(), direct: direct.New("node")}
		r.bus = bus.NewMemory(bus.Limits{})
		connection := r.bus.Connect()
		if withBus {
			r.node.bus = connection
		}
		consensusv1.RegisterConsensusServer(r.direct, r.node)
		// The context of a test ends before its clean-up, which still needs the node.
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		var running sync.WaitGroup
		running.Go(func() { r.node.run(ctx) })
		t.Cleanup(func() {
			cancel()
			running.Wait()
			r.direct.Close()
			require.NoError(t, connection.Close())
		})
		test(t, r)
	})
}

// link is an instance's connection to the node, which can be cut.
type link struct {
	*direct.Conn
	cut *atomic.Bool
	// still, if set, has calls wait for their end, as at a process that was stopped; it counts those that do.
	still *still
}

type still struct {
	stopped atomic.Bool
	waiting atomic.Int64
}

func (s *still) wait(ctx context.Context) error {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

var errCut = status.Error(codes.Unavailable, "cut off")

func (l link) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if l.cut.Load() {
		return errCut
	}
	if l.still != nil && l.still.stopped.Load() {
		return l.still.wait(ctx)
	}
	return l.Conn.Invoke(ctx, method, args, reply, opts...)
}

func (l link) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	return l.Conn.NewStream(ctx, desc, method, opts...)
}

func (link) Close() error { return nil }

// instance is one start of a lease-service.
type instance struct {
	t        *testing.T
	instance *app.Instance
	keeper   leasev1.KeeperClient
	cut      atomic.Bool
	second   still // the connection to the node's second address
	stop     func()
}

// start runs an instance and waits until it serves.
func (r *rig) start(name string) *instance {
	r.t.Helper()
	i := r.launch(name, false)
	i.until(5*time.Second, "serving", i.instance.Serving)
	return i
}

// launch runs an instance, cut off from the node or not.
func (r *rig) launch(name string, cut bool) *instance {
	r.t.Helper()
	i := &instance{t: r.t}
	i.cut.Store(cut)
	config := app.NewConfig()
	config.Name = name
	config.ConsensusEndpoints = []string{"http://node:1"}
	deps := app.Dependencies{
		Logger: slog.New(slog.DiscardHandler), Clock: bubbleClock{start: time.Now()},
		Dial: func(address string) (app.Conn, error) {
			switch address {
			case "node:1":
				return link{Conn: r.direct, cut: &i.cut}, nil
			case "node:2":
				return link{Conn: r.direct, cut: &i.cut, still: &i.second}, nil
			}
			return nil, errors.New("no such node")
		},
	}
	if r.node.bus != nil {
		deps.Bus = r.bus.Connect()
	}
	r.starts++
	deps.Incarnation = r.starts
	var err error
	i.instance, err = app.New(config, deps)
	require.NoError(r.t, err)
	served := direct.New(fmt.Sprintf("%s-%d", name, r.starts))
	i.instance.Register(served)
	i.keeper = leasev1.NewKeeperClient(served)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	group := lifecycle.NewGroup(deps.Logger, 0, i.instance.Parts()...)
	go func() { ended <- group.Run(ctx) }()
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
		i.instance.Close()
		served.Close()
		if deps.Bus != nil {
			_ = deps.Bus.Close()
		}
	})
	r.t.Cleanup(i.stop)
	return i
}

// until waits for a condition in the time of the bubble, and fails past a bound.
func (i *instance) until(within time.Duration, what string, is func() bool) {
	i.t.Helper()
	until(i.t, within, what, is)
}

func until(t *testing.T, within time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// keepAlive sends one keepalive on a stream of its own and gives the answer.
func (i *instance) keepAlive(lease int64) *leasev1.KeepAliveAnswer {
	i.t.Helper()
	return i.keepAlives(lease)[0]
}

// keepAlives sends keepalives in one batch and gives the answers in their order.
func (i *instance) keepAlives(leases ...int64) []*leasev1.KeepAliveAnswer {
	i.t.Helper()
	asked := make([]*leasev1.KeepAlive, len(leases))
	for n, lease := range leases {
		asked[n] = &leasev1.KeepAlive{Id: uint64(n + 1), Lease: lease}
	}
	return i.ask(asked...)
}

// tell tells of a client's revoke.
func (i *instance) tell(ask leasev1.Ask, lease int64, ticket uint64) leasev1.Outcome {
	i.t.Helper()
	return i.ask(&leasev1.KeepAlive{Id: 1, Lease: lease, Ask: ask, Ticket: ticket})[0].GetOutcome()
}

// ask sends one batch and gives the answers in its order; ids count from 1.
func (i *instance) ask(asked ...*leasev1.KeepAlive) []*leasev1.KeepAliveAnswer {
	i.t.Helper()
	ctx, cancel := context.WithCancel(i.t.Context())
	defer cancel()
	stream, err := i.keeper.KeepAlives(ctx)
	require.NoError(i.t, err)
	require.NoError(i.t, stream.Send(&leasev1.KeepAliveBatch{KeepAlives: asked}))
	answers := make([]*leasev1.KeepAliveAnswer, len(asked))
	for got, taken := 0, uint64(0); got < len(asked); {
		message, err := stream.Recv()
		require.NoError(i.t, err)
		for _, answer := range message.GetAnswers() {
			require.Nil(i.t, answers[answer.GetId()-1], "answered twice")
			answers[answer.GetId()-1] = answer
			got++
		}
		if len(message.GetAnswers()) > 0 {
			taken++
			require.NoError(i.t, stream.Send(&leasev1.KeepAliveBatch{Taken: taken}))
		}
	}
	return answers
}
