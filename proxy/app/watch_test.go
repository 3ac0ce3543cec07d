package app_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

func create(t *testing.T, stream pb.Watch_WatchClient, request *pb.WatchCreateRequest) {
	t.Helper()
	require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}))
}

func progress(t *testing.T, stream pb.Watch_WatchClient) {
	t.Helper()
	require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

func recv(t *testing.T, stream pb.Watch_WatchClient) *pb.WatchResponse {
	t.Helper()
	response, err := stream.Recv()
	require.NoError(t, err)
	return response
}

// collect reads events until one of the revision came, and gives the revisions by watch id.
func collect(t *testing.T, stream pb.Watch_WatchClient, watches int, until int64) map[int64][]int64 {
	t.Helper()
	got := map[int64][]int64{}
	for done := 0; done < watches; {
		response := recv(t, stream)
		require.False(t, response.Canceled)
		for _, ev := range response.Events {
			got[response.WatchId] = append(got[response.WatchId], ev.Kv.ModRevision)
			if ev.Kv.ModRevision == until {
				done++
			}
		}
	}
	return got
}

func sequence(from, to int64) (list []int64) {
	for r := from; r <= to; r++ {
		list = append(list, r)
	}
	return list
}

func TestWatch(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.addHub("h1")
		for range 5 {
			r.world.put("a", "old", nil)
		}
		r.ready()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := pb.NewWatchClient(r.client).Watch(ctx)
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a")})
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
		for id := range int64(2) {
			response := recv(t, stream)
			require.True(t, response.Created)
			require.Equal(t, id, response.WatchId)
			require.EqualValues(t, 6, response.Header.Revision)
			require.EqualValues(t, clusterID, response.Header.ClusterId)
		}
		require.Equal(t, map[int64][]int64{1: sequence(3, 6)}, collect(t, stream, 1, 6))
		for range 10 {
			r.world.put("a", "new", nil)
		}
		require.Equal(t, map[int64][]int64{0: sequence(7, 16), 1: sequence(7, 16)}, collect(t, stream, 2, 16))

		// Other keys move the position along, and progress says so for all watches at once.
		head := r.world.put("other", "x", nil)
		require.Eventually(t, func() bool {
			progress(t, stream)
			response := recv(t, stream)
			require.Empty(t, response.Events)
			return response.WatchId == -1 && response.Header.Revision == head
		}, 5*time.Second, time.Millisecond)

		require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: 1},
		}}))
		response := recv(t, stream)
		require.True(t, response.Canceled)
		require.EqualValues(t, 1, response.WatchId)
		cancel()
		_, err = stream.Recv()
		require.Error(t, err)
	})
}

func TestCompactedWatch(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.ready()
		r.world.mu.Lock()
		r.world.compact = 2
		r.world.mu.Unlock()
		stream, err := pb.NewWatchClient(r.client).Watch(t.Context())
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1})
		require.True(t, recv(t, stream).Created)
		response := recv(t, stream)
		require.True(t, response.Canceled)
		require.EqualValues(t, 2, response.CompactRevision)
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.Error(t, err, "the end of the client's side ends the stream")
	})
}

// Client streams survive the loss of hubs without a gap or a repetition; with no hub they stay open.
func TestHubsComeAndGo(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		h1, stop1 := r.addHub("h1")
		r.ready()
		const streams, keys = 8, 4
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		results := make([]map[int64][]int64, streams)
		var watching, reading sync.WaitGroup
		watching.Add(streams)
		const writes = 200
		last := 1 + int64(writes) + keys
		for i := range streams {
			stream, err := pb.NewWatchClient(r.client).Watch(ctx)
			require.NoError(t, err)
			for k := range keys {
				create(t, stream, &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%d", k)})
			}
			for range keys {
				require.True(t, recv(t, stream).Created)
			}
			watching.Done()
			reading.Go(func() {
				got := map[int64][]int64{}
				for {
					response, err := stream.Recv()
					if err != nil {
						t.Error(err)
						return
					}
					for _, ev := range response.Events {
						got[response.WatchId] = append(got[response.WatchId], ev.Kv.ModRevision)
					}
					total := 0
					for _, list := range got {
						total += len(list)
					}
					if total == writes+keys {
						results[i] = got
						return
					}
				}
			})
		}
		watching.Wait()
		write := func(n int) {
			for range n {
				r.world.mu.Lock()
				next := r.world.revision + 1
				r.world.mu.Unlock()
				r.world.put(fmt.Sprintf("k%d", next%keys), "v", nil)
			}
		}
		require.Eventually(t, func() bool { return h1.registered() == streams*keys }, 5*time.Second, time.Millisecond)
		write(50)
		h1.cutStreams() // the stream breaks, the hub is still there
		write(50)
		require.Eventually(t, func() bool { return h1.registered() == streams*keys }, 5*time.Second, time.Millisecond)
		stop1() // no hub at all
		write(50)
		h2, _ := r.addHub("h2")
		r.world.update(func(t *consensusv1.Topology) { t.Services = t.Services[1:] })
		write(50)
		require.Eventually(t, func() bool { return h2.registered() == streams*keys }, 10*time.Second, time.Millisecond)
		write(keys)
		reading.Wait()
		for _, got := range results {
			seen := map[int64]bool{}
			for _, list := range got {
				require.IsIncreasing(t, list)
				for _, revision := range list {
					seen[revision] = true
				}
			}
			require.Len(t, seen, writes+keys)
			require.True(t, seen[last])
		}
	})
}

// A stream that requires a leader ends after three election timeouts without one; others stay open.
func TestLeaderLossEndsDemandingStreams(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = newConfig(100)
		r.addNodes(1)
		r.addHub("h1")
		r.ready()
		patient, err := pb.NewWatchClient(r.client).Watch(t.Context())
		require.NoError(t, err)
		create(t, patient, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, patient).Created)
		demanding, err := pb.NewWatchClient(r.client).Watch(requireLeader(t.Context()))
		require.NoError(t, err)
		create(t, demanding, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, demanding).Created)
		keep, err := pb.NewLeaseClient(r.client).LeaseKeepAlive(requireLeader(t.Context()))
		require.NoError(t, err)
		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 0, 3 })
		_, err = demanding.Recv()
		require.Equal(t, rpctypes.ErrGRPCNoLeader.Error(), err.Error())
		_, err = keep.Recv()
		require.Equal(t, rpctypes.ErrGRPCNoLeader.Error(), err.Error())
		r.world.put("a", "v", nil)
		require.Len(t, recv(t, patient).Events, 1)
		require.NoError(t, patient.CloseSend())
	})
}

// What a node said that has gone silent, without the end of any stream, does not count for long: a network that drops packets
// looks like that.
func TestSilentNodesAreNoLeader(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = newConfig(100)
		r.addNodes(1)
		r.addHub("h1")
		r.ready()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		demanding, err := pb.NewWatchClient(r.client).Watch(requireLeader(ctx))
		require.NoError(t, err)
		create(t, demanding, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, demanding).Created)
		for _, n := range r.nodes {
			n.silent.Store(true)
		}
		begun := time.Now()
		_, err = demanding.Recv()
		require.Equal(t, rpctypes.ErrGRPCNoLeader.Error(), err.Error())
		require.Less(t, time.Since(begun), 10*time.Second, "before the connection's own pings would tell")
	})
}

// Watches move away from a hub that has gone silent, without the end of any stream.
func TestSilentHubIsLeft(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		h1, _ := r.addHub("h1")
		h2, _ := r.addHub("h2")
		r.ready()
		ctx, cancel := context.WithTimeout(t.Context(), 11*time.Second) // less than the connection's own pings take to tell
		defer cancel()
		stream, err := pb.NewWatchClient(r.client).Watch(ctx)
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, stream).Created)
		require.Eventually(t, func() bool { return h1.registered()+h2.registered() == 1 }, 5*time.Second, time.Millisecond)
		silent := h1
		if h2.registered() == 1 {
			silent = h2
		}
		silent.silent.Store(true)
		r.world.put("a", "v", nil)
		require.Len(t, recv(t, stream).Events, 1)
	})
}
