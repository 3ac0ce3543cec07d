package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/holdfastdb/holdfast/tests/framework"
	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/relay"
	"github.com/holdfastdb/holdfast/tests/workload"
)

// noLeaderTimeout bounds how long a watch that requires a leader may outlive the last one: three election timeouts of
// 1 s each, and what a slow machine adds.
const noLeaderTimeout = 15 * time.Second

// loseMajority kills all nodes but one.
func loseMajority(t *testing.T, r *run, rng *rand.Rand) {
	left := pick(rng, r.first)
	killed := slices.DeleteFunc(r.names(), func(name string) bool { return name == left })
	t.Logf("  kill -9 of %v", killed)
	r.withoutMajority(t, []string{left}, func() {
		for _, name := range killed {
			r.Kill(t, name, syscall.SIGKILL)
		}
	}, func() { r.StartAll(t, killed...) })
}

// cutAllNodes cuts all links between nodes.
func cutAllNodes(t *testing.T, r *run, _ *rand.Rand) {
	r.withoutMajority(t, r.names(), func() { r.network.Set(relay.Held, between(r.names(), r.names())...) }, r.network.Mend)
}

// withoutMajority sees that nothing is acknowledged while no majority of nodes can speak to each other, that watches stay
// open and idle, and that those that require a leader end. left are the nodes that still run.
func (r *run) withoutMajority(t *testing.T, left []string, lose, mend func()) {
	t.Helper()
	endpoints := r.endpointsOf(left)
	ended := requireLeader(t, endpoints[0])
	lose()
	lost := r.Now()
	select {
	case err := <-ended:
		t.Logf("  a watch that requires a leader ended after %v: %v", (r.Now() - lost).Round(time.Millisecond), err)
		require.Equal(t, codes.Unavailable, workload.Code(err), "%v", err)
	case <-time.After(noLeaderTimeout):
		require.Fail(t, "a watch that requires a leader goes on without one")
	}
	until := r.Now()
	mend()
	r.nothingDone(t, lost, until)
	r.stayedOpen(t, endpoints, lost, until)
}

// endpointsOf are the client URLs that the nodes, or whatever stands before them, serve.
func (r *run) endpointsOf(nodes []string) (out []string) {
	for _, endpoint := range r.Endpoints() {
		if !r.standalone() || slices.Contains(nodes, r.serving[endpoint]) {
			out = append(out, endpoint)
		}
	}
	return out
}

// requireLeader watches with the metadata that asks to be told when there is no leader. The channel gets how it ended.
func requireLeader(t *testing.T, endpoint string) <-chan error {
	t.Helper()
	conn := framework.Dial(t, framework.HostPort(t, endpoint))
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "hasleader", "true"))
	t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	require.NoError(t, err)
	create := &pb.WatchCreateRequest{Key: []byte("nobody writes here")}
	require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	_, err = stream.Recv()
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}

// nothingDone: what was asked for and answered between the two times was no write and no linearizable read, and nothing
// happened.
func (r *run) nothingDone(t *testing.T, from, until time.Duration) {
	t.Helper()
	for _, op := range r.Ops() {
		if op.Outcome == history.Done && op.Call > from && op.Return < until && !op.Request.Serializable {
			t.Errorf("VIOLATION acknowledged without a majority, lost from %v to %v: %v", from, until, &op)
			return
		}
	}
	// What was on its way arrives within a moment; later nothing happens, and no lease ends.
	const onItsWay = 2 * time.Second
	for revision, e := range r.firstSeen() {
		if e.at > from+onItsWay && e.at < until {
			t.Errorf("VIOLATION happened without a majority, lost from %v to %v: %d, seen first at %v: %v", from, until, revision, e.at, e.event)
			return
		}
	}
}

// sight is when a watch delivered a revision first.
type sight struct {
	at    time.Duration
	event history.Event
}

// firstSeen is that of each revision.
func (r *run) firstSeen() map[int64]sight {
	first := map[int64]sight{}
	for _, h := range r.Watches() {
		for _, d := range h.Deliveries() {
			for _, e := range d.Events {
				if before, ok := first[e.Mod]; !ok || d.At < before.at {
					first[e.Mod] = sight{d.At, e}
				}
			}
		}
	}
	return first
}

// stayedOpen: no stream through a process that ran ended meanwhile.
func (r *run) stayedOpen(t *testing.T, endpoints []string, from, until time.Duration) {
	t.Helper()
	var through []string
	for _, endpoint := range endpoints {
		through = append(through, r.serving[endpoint])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, end := range r.ends {
		if end.at > from && end.at < until && slices.Contains(through, end.through) {
			t.Errorf("VIOLATION a watch through %s ended at %v, while there was no majority from %v to %v: %v", end.through, end.at, from, until, end.err)
		}
	}
}

// moveLeader moves the leadership as an operator does.
func moveLeader(t *testing.T, r *run, rng *rand.Rand) {
	from := r.leader(t)
	to := pick(rng, r.present(from.name))
	t.Logf("  from %s to %s", from.name, to.name)
	ctx, cancel := context.WithTimeout(t.Context(), workload.OpTimeout)
	defer cancel()
	if err := from.moveLeader(ctx, to.id); err != nil {
		// The leader may have changed by itself, or may just now.
		t.Logf("  %v", err)
		require.NotEqual(t, codes.Unimplemented, workload.Code(err), "MoveLeader")
		return
	}
	r.gaps = append(r.gaps, fmt.Sprintf("leader moved from %s to %s at %v", from.name, to.name, r.Now().Round(time.Millisecond)))
}
