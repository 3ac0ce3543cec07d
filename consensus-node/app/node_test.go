package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// testConfig is a node of one member on a free port, with its data in dir.
func testConfig(t *testing.T, dir string, args ...string) *Config {
	t.Helper()
	cfg := NewConfig()
	set := config.NewSet(Program)
	cfg.DeclareMember(set)
	args = append([]string{"--name=n1", "--data-dir=" + dir, "--heartbeat-interval=20", "--election-timeout=200"}, args...)
	_, err := set.Parse(config.Source{Args: args})
	require.NoError(t, err)
	require.NoError(t, cfg.Finish())
	cfg.logSegmentBytes = 1 << 20
	cfg.healthInterval = 100 * time.Millisecond
	return cfg
}

// running is a node at work with both bindings of its contract.
type running struct {
	*Node
	direct, network grpc.ClientConnInterface
	stop            func()
}

// run starts a node of one member and stops it with the test, if stop did not before.
func runNode(t *testing.T, cfg *Config) *running {
	t.Helper()
	n, err := Open(cfg, Dependencies{Logger: slog.New(slog.DiscardHandler), Tracers: noop.NewTracerProvider()})
	require.NoError(t, err)
	inProcess := direct.New(Program)
	n.RegisterConsensus(inProcess)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpcserver.New(grpcserver.Config{Logger: slog.New(slog.DiscardHandler), Internal: true, GraceMax: 10 * time.Millisecond}, listener)
	n.Register(server)
	group := lifecycle.NewGroup(slog.New(slog.DiscardHandler), 0, append(n.Parts(), server.Part("server"))...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- group.Run(ctx) }()
	conn, err := grpcclient.Dial(grpcclient.Config{}, listener.Addr().String())
	require.NoError(t, err)
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		inProcess.Close()
		_ = conn.Close()
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, n.Close())
	}
	t.Cleanup(stop)
	waitCtx, cancelWait := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelWait()
	require.NoError(t, n.Healthy(waitCtx))
	return &running{Node: n, direct: inProcess, network: conn, stop: stop}
}

// caller speaks the Calls contract as a proxy does, one call at a time.
type caller struct {
	t      *testing.T
	stream consensusv1.Consensus_CallsClient
	id     uint64
	taken  uint64
}

func newCaller(t *testing.T, conn grpc.ClientConnInterface) *caller {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&consensusv1.CallBatch{Hello: &consensusv1.Hello{Version: 1, Name: "test"}}))
	first, err := stream.Recv()
	require.NoError(t, err)
	require.NotZero(t, first.GetHello().GetClusterId())
	require.NotZero(t, first.GetHello().GetMemberId())
	return &caller{t: t, stream: stream}
}

// do sends the calls as one batch and gives their answers by id.
func (c *caller) do(calls ...*consensusv1.Call) []*consensusv1.Answer {
	c.t.Helper()
	first := c.id + 1
	for _, call := range calls {
		c.id++
		call.Id = c.id
	}
	require.NoError(c.t, c.stream.Send(&consensusv1.CallBatch{Taken: c.taken, Calls: calls}))
	answers := make([]*consensusv1.Answer, len(calls))
	for missing := len(calls); missing > 0; {
		batch, err := c.stream.Recv()
		require.NoError(c.t, err)
		if len(batch.GetAnswers()) > 0 {
			c.taken++
		}
		for _, answer := range batch.GetAnswers() {
			answers[answer.GetId()-first] = answer
			missing--
		}
		require.NoError(c.t, c.stream.Send(&consensusv1.CallBatch{Taken: c.taken}))
	}
	return answers
}

func call(t *testing.T, method consensusv1.Method, request proto.Message) *consensusv1.Call {
	t.Helper()
	data, err := proto.Marshal(request)
	require.NoError(t, err)
	return &consensusv1.Call{Method: method, Request: data}
}

func read[T any, M interface {
	*T
	proto.Message
}](t *testing.T, answer *consensusv1.Answer) M {
	t.Helper()
	require.Zero(t, answer.GetCode(), answer.GetMessage())
	m := M(new(T))
	require.NoError(t, proto.Unmarshal(answer.GetResponse(), m))
	return m
}

// TestContract is the one suite for both bindings of the Consensus contract.
func TestContract(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	for name, conn := range map[string]grpc.ClientConnInterface{"direct": node.direct, "network": node.network} {
		t.Run(name, func(t *testing.T) {
			t.Run("calls", func(t *testing.T) { suiteCalls(t, conn, name) })
			t.Run("errors", func(t *testing.T) { suiteErrors(t, conn) })
			t.Run("hello", func(t *testing.T) { suiteHello(t, conn) })
			t.Run("feed and history", func(t *testing.T) { suiteFeed(t, conn, name) })
			t.Run("join", func(t *testing.T) { suiteJoin(t, conn) })
			t.Run("leases", func(t *testing.T) { suiteLeases(t, conn, name) })
		})
	}
}

func suiteCalls(t *testing.T, conn grpc.ClientConnInterface, key string) {
	t.Helper()
	c := newCaller(t, conn)
	// A batch of writes: each gets its own revision, in order.
	answers := c.do(
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key), Value: []byte("1")}),
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key), Value: []byte("2"), PrevKv: true}),
		call(t, consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("nothing")}),
	)
	first, second := read[pb.PutResponse](t, answers[0]), read[pb.PutResponse](t, answers[1])
	require.Equal(t, first.GetHeader().GetRevision()+1, second.GetHeader().GetRevision())
	require.Equal(t, "1", string(second.GetPrevKv().GetValue()))
	require.Zero(t, read[pb.DeleteRangeResponse](t, answers[2]).GetDeleted())
	require.NotZero(t, first.GetHeader().GetMemberId())

	// Reads see it: linearizable, serializable from a revision on, and as a fence.
	serializable := call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte(key), Serializable: true})
	serializable.MinRevision = second.GetHeader().GetRevision()
	answers = c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte(key)}), serializable,
		call(t, consensusv1.Method_METHOD_FENCE, &consensusv1.FenceRequest{}))
	for _, answer := range answers[:2] {
		require.Equal(t, "2", string(read[pb.RangeResponse](t, answer).GetKvs()[0].GetValue()))
	}
	require.GreaterOrEqual(t, read[consensusv1.FenceResponse](t, answers[2]).GetRevision(), second.GetHeader().GetRevision())
}

func suiteErrors(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	c := newCaller(t, conn)
	for _, tc := range []struct {
		name string
		call *consensusv1.Call
		code codes.Code
		text string
	}{
		{"empty key", call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{}), codes.InvalidArgument, "etcdserver: key is not provided"},
		{"future revision", call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("a"), Revision: 1 << 40}), codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"unknown lease", call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("a"), Lease: 77}), codes.NotFound, "etcdserver: requested lease not found"},
		{"too large", call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 2<<20)}), codes.InvalidArgument, "etcdserver: request is too large"},
		{"no method", call(t, consensusv1.Method_METHOD_UNSPECIFIED, &pb.RangeRequest{}), codes.Unimplemented, "METHOD_UNSPECIFIED is not implemented yet"},
	} {
		answer := c.do(tc.call)[0]
		require.Equal(t, tc.code, codes.Code(answer.GetCode()), tc.name)
		require.Equal(t, tc.text, answer.GetMessage(), tc.name)
	}
	broken := &consensusv1.Call{Method: consensusv1.Method_METHOD_PUT, Request: []byte{0xff, 0xff}}
	require.Equal(t, codes.InvalidArgument, codes.Code(c.do(broken)[0].GetCode()))
}

func suiteHello(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	for _, hello := range []*consensusv1.Hello{nil, {Version: 99}, {Version: 1, ClusterId: 12345}} {
		stream, err := consensusv1.NewConsensusClient(conn).Calls(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&consensusv1.CallBatch{Hello: hello}))
		_, err = stream.Recv()
		require.Error(t, err)
		require.Contains(t, []codes.Code{codes.InvalidArgument, codes.FailedPrecondition}, status.Code(err))
	}
}

func suiteFeed(t *testing.T, conn grpc.ClientConnInterface, key string) {
	t.Helper()
	client := consensusv1.NewConsensusClient(conn)
	feed, err := client.Feed(t.Context(), &consensusv1.FeedRequest{Name: "test"})
	require.NoError(t, err)
	first, err := feed.Recv()
	require.NoError(t, err)
	position := first.GetLastRevision()
	c := newCaller(t, conn)
	put := read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("feed-" + key), Value: []byte("x")}))[0])
	c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("other"), Value: []byte("x")}))
	for position < put.GetHeader().GetRevision() {
		message, err := feed.Recv()
		require.NoError(t, err)
		require.LessOrEqual(t, message.GetPreviousRevision(), position)
		position = max(position, message.GetLastRevision())
	}

	history, err := client.History(t.Context(), &consensusv1.HistoryRequest{Ranges: []*consensusv1.KeyRange{{Key: []byte("feed-" + key)}}})
	require.NoError(t, err)
	var found []*feedv1.Revision
	for {
		message, err := history.Recv()
		if err != nil {
			break
		}
		found = append(found, message.GetRevisions()...)
	}
	require.Len(t, found, 1)
	require.Equal(t, put.GetHeader().GetRevision(), found[0].GetRevision())

	values, err := client.PreviousValues(t.Context(), &consensusv1.PreviousValuesRequest{Keys: []*consensusv1.KeyAt{
		{Key: []byte("feed-" + key), ModRevision: put.GetHeader().GetRevision()}, {Key: []byte("feed-" + key), ModRevision: 1},
	}})
	require.NoError(t, err)
	require.NotEmpty(t, values.GetKvs()[0])
	require.Empty(t, values.GetKvs()[1])
}

func suiteJoin(t *testing.T, conn grpc.ClientConnInterface) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	client := consensusv1.NewConsensusClient(conn)
	stream, err := client.Join(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&consensusv1.Announcement{Kind: consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB, Name: "hub", Run: 1, Address: "127.0.0.1:1"}))
	for {
		topology, err := stream.Recv()
		require.NoError(t, err)
		require.NotZero(t, topology.GetClusterId())
		if len(topology.GetServices()) > 0 && topology.GetLeader() != 0 && len(topology.GetMembers()) == 1 {
			break
		}
	}
	observing, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	observer, err := client.Join(observing)
	require.NoError(t, err)
	require.NoError(t, observer.Send(&consensusv1.Announcement{Kind: consensusv1.ServiceKind_SERVICE_KIND_PROXY, Name: "proxy"}))
	cancel() // the hub goes; the observer is told
	for {
		topology, err := observer.Recv()
		require.NoError(t, err)
		if len(topology.GetServices()) == 1 {
			require.Equal(t, "proxy", topology.GetServices()[0].GetName())
			break
		}
	}
	// Nothing changes any more, and the observer is still told that the node is there.
	for range 2 {
		before := time.Now()
		topology, err := observer.Recv()
		require.NoError(t, err)
		require.NotZero(t, topology.GetClusterId())
		require.Less(t, time.Since(before), 3*time.Second)
	}
}

func suiteLeases(t *testing.T, conn grpc.ClientConnInterface, name string) {
	t.Helper()
	client := consensusv1.NewConsensusClient(conn)
	c := newCaller(t, conn)
	granted := read[pb.LeaseGrantResponse](t, c.do(call(t, consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: 60}))[0])
	require.NotZero(t, granted.GetID())
	c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("leased-" + name), Lease: granted.GetID()}))

	// An instance enters the view by its heartbeat, and may expire what it owns under the epoch it was told.
	instance := &feedv1.Instance{Name: "lease-" + name, Incarnation: uint64(time.Now().UnixNano()), Address: "127.0.0.1:1"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	beat, err := client.LeaseHeartbeat(ctx, &consensusv1.LeaseHeartbeatRequest{Instance: instance})
	require.NoError(t, err)
	require.Len(t, beat.GetView().GetInstances(), 1)

	table, err := client.LeaseTable(ctx, &consensusv1.LeaseTableRequest{MinSequence: beat.GetSequence()})
	require.NoError(t, err)
	require.NotEmpty(t, table.GetLeases())
	wrong, err := client.ExpireLeases(ctx, &consensusv1.ExpireLeasesRequest{
		Ids: []int64{granted.GetID(), 4711}, Epoch: beat.GetView().GetEpoch(), Name: instance.GetName(), Incarnation: 1,
	})
	require.NoError(t, err)
	require.Equal(t, []consensusv1.ExpireOutcome{consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER, consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND}, wrong.GetOutcomes())
	right, err := client.ExpireLeases(ctx, &consensusv1.ExpireLeasesRequest{
		Ids: []int64{granted.GetID()}, Epoch: beat.GetView().GetEpoch(), Name: instance.GetName(), Incarnation: instance.GetIncarnation(),
	})
	require.NoError(t, err)
	require.Equal(t, []consensusv1.ExpireOutcome{consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED}, right.GetOutcomes())
	gone, err := client.ReadLeases(ctx, &consensusv1.ReadLeasesRequest{Ids: []int64{granted.GetID()}})
	require.NoError(t, err)
	require.Zero(t, gone.GetTtlS()[0])
	require.Zero(t, read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("leased-" + name)}))[0]).GetCount())

	left, err := client.LeaseHeartbeat(ctx, &consensusv1.LeaseHeartbeatRequest{Instance: instance, Leave: true})
	require.NoError(t, err)
	require.Empty(t, left.GetView().GetInstances())
}

// What was acknowledged is there after a restart, under the same identity.
func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := runNode(t, testConfig(t, dir))
	c := newCaller(t, node.direct)
	put := read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))[0])
	cluster, member := node.Identity()
	node.stop()

	node = runNode(t, testConfig(t, dir))
	again, self := node.Identity()
	require.Equal(t, []uint64{cluster, member}, []uint64{again, self})
	c = newCaller(t, node.direct)
	got := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k")}))[0])
	require.Equal(t, "v", string(got.GetKvs()[0].GetValue()))
	require.Equal(t, put.GetHeader().GetRevision(), got.GetKvs()[0].GetModRevision())
	require.Equal(t, put.GetHeader().GetRevision(), got.GetHeader().GetRevision())
}

func TestCompactionIsPhysicalOnRequest(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	c := newCaller(t, node.direct)
	for range 20 {
		c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))
	}
	answers := c.do(call(t, consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: 15, Physical: true}))
	read[pb.CompactionResponse](t, answers[0])
	old := c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k"), Revision: 14}))[0]
	require.Equal(t, "etcdserver: mvcc: required revision has been compacted", old.GetMessage())
	kept := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k"), Revision: 15}))[0])
	require.EqualValues(t, 15, kept.GetKvs()[0].GetModRevision())
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := runNode(t, testConfig(t, dir))
	deps := Dependencies{Logger: slog.New(slog.DiscardHandler), Tracers: noop.NewTracerProvider()}
	_, err := Open(testConfig(t, dir), deps)
	require.ErrorContains(t, err, "is in use by another process")
	node.stop()
	_, err = Open(testConfig(t, dir, "--initial-cluster-token=other", "--name=n2"), deps)
	require.ErrorContains(t, err, "belongs to another cluster")
	require.NotErrorIs(t, err, errors.ErrUnsupported)
}
