package routing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
)

// Each transcript: new endpoints; heard (a node's topology); lost; routes (what the table says).
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var state *routing.State
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				state = routing.NewState(strings.Fields(d.Input))
				d.MaybeScanArgs(t, "own", &state.Own)
			case "heard":
				if err := state.Heard(arg(t, d, "at"), topology(t, d)); err != nil {
					return err.Error()
				}
			case "lost":
				state.Lost(arg(t, d, "at"))
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			return describe(state)
		})
	})
}

func arg(t *testing.T, d *datadriven.TestData, key string) string {
	t.Helper()
	var s string
	d.ScanArgs(t, key, &s)
	return s
}

// topology reads cluster, me, leader and term from the arguments, and one member or service per input line.
func topology(t *testing.T, d *datadriven.TestData) *consensusv1.Topology {
	t.Helper()
	top := &consensusv1.Topology{ClusterId: 0xc}
	d.MaybeScanArgs(t, "cluster", &top.ClusterId)
	d.ScanArgs(t, "me", &top.MemberId)
	d.ScanArgs(t, "leader", &top.Leader)
	d.ScanArgs(t, "term", &top.Term)
	d.MaybeScanArgs(t, "version", &top.MembersVersion)
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		switch f[0] {
		case "member":
			m := &consensusv1.Member{PeerUrls: []string{f[2]}, Learner: len(f) > 3}
			_, err := fmt.Sscan(f[1], &m.Id)
			require.NoError(t, err)
			top.Members = append(top.Members, m)
		case "hub":
			a := &consensusv1.Announcement{
				Kind: consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB,
				Name: f[1], Address: f[3], Draining: len(f) > 4,
			}
			_, err := fmt.Sscan(f[2], &a.Run)
			require.NoError(t, err)
			top.Services = append(top.Services, a)
		case "view":
			top.View = &feedv1.View{}
			_, err := fmt.Sscan(f[1], &top.View.Epoch)
			require.NoError(t, err)
		}
	}
	return top
}

func describe(state *routing.State) string {
	table := state.Table()
	var b strings.Builder
	fmt.Fprintf(&b, "leader=%d term=%d view=%d join=%v\n", table.Leader, table.Term, table.View.GetEpoch(), state.Endpoints())
	route := func(class routing.Class, hint uint64, avoid string) string {
		endpoint, ok := table.Route(class, hint, avoid)
		if !ok {
			return "none"
		}
		return endpoint
	}
	fmt.Fprintf(&b, "write=%s hint2=%s read=%s serializable=%s avoiding-a=%s\n", route(routing.Write, 0, ""),
		route(routing.Write, 2, ""), route(routing.Linearizable, 0, ""),
		route(routing.Serializable, 0, ""), route(routing.Serializable, 0, "a:1"))
	if table.Own != "" {
		fmt.Fprintf(&b, "member=%s avoiding-a=%s serves-own=%v\n", route(routing.Member, 0, ""), route(routing.Linearizable, 0, "a:1"),
			table.Serves(routing.Linearizable, table.Own))
	}
	for _, hub := range table.Hubs {
		fmt.Fprintf(&b, "hub %s run=%d at %s\n", hub.Name, hub.Run, hub.Address)
	}
	return b.String()
}

func TestNext(t *testing.T) {
	again := func(class routing.Class, o routing.Outcome) bool { return routing.Next(class, o, 2, false).Again }
	for _, class := range []routing.Class{routing.Write, routing.Linearizable, routing.Serializable} {
		require.Equal(t, routing.Step{}, routing.Next(class, routing.Answered, 1, false))
		require.True(t, again(class, routing.NotProposed))
		require.True(t, again(class, routing.NotSent))
		require.Equal(t, class != routing.Write, again(class, routing.Lost), "a lost write is never sent again")
		require.Equal(t, rpctypes.ErrGRPCRequestTooManyRequests, routing.Next(class, routing.Full, 1, false).Err)
	}
	require.Equal(t, rpctypes.ErrGRPCTimeoutDueToLeaderFail, routing.Next(routing.Write, routing.Lost, 1, false).Err)
	require.Zero(t, routing.Next(routing.Write, routing.NotProposed, 1, true).After, "the hint is followed at once, once")
	require.Positive(t, routing.Next(routing.Write, routing.NotProposed, 2, true).After)
	for attempt := 1; attempt < 100; attempt++ {
		step := routing.Next(routing.Write, routing.NotSent, attempt, false)
		require.LessOrEqual(t, step.After, routing.BackoffLongest)
		require.GreaterOrEqual(t, step.After, routing.BackoffShortest)
	}
}

func TestRefused(t *testing.T) {
	noLeader := rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)
	require.False(t, routing.Refused(routing.Write, false, codes.Unavailable, noLeader, false))
	require.True(t, routing.Refused(routing.Write, true, codes.Unavailable, noLeader, false))
	require.False(t, routing.Refused(routing.Write, true, codes.Unavailable, noLeader, true), "require-leader: at once")
	require.True(t, routing.Refused(routing.Write, true, codes.FailedPrecondition, "etcdserver: not leader", true))
	require.False(t, routing.Refused(routing.Member, true, codes.FailedPrecondition, "etcdserver: not leader", false), "no other can answer")
	require.True(t, routing.Refused(routing.Write, true, codes.OK, "", false))
	require.False(t, routing.Refused(routing.Write, true, codes.InvalidArgument, "etcdserver: key is not provided", false))
	require.False(t, routing.Refused(routing.Write, true, codes.ResourceExhausted, "etcdserver: too many requests", false))
	require.True(t, routing.Refused(routing.Linearizable, false, codes.Unavailable, "etcdserver: leader changed", false), "reads always")
	require.False(t, routing.Refused(routing.Linearizable, false, codes.OK, "", false))
}
