package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Stream notes who was asked for what, and answers as the test says.
func (n *node) Stream(request *consensusv1.StreamCall, stream consensusv1.Consensus_StreamServer) error {
	call := request.GetCall()
	n.world.note("%d %s from %d", n.id, call.GetMethod(), call.GetMinRevision())
	n.mu.Lock()
	streamed := n.streamed
	n.mu.Unlock()
	if streamed == nil {
		return status.Error(codes.Unimplemented, "the test did not expect this")
	}
	return streamed(call, stream)
}

func (n *node) onStream(f func(*consensusv1.Call, consensusv1.Consensus_StreamServer) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streamed = f
}

func part(t *testing.T, m proto.Message, revision int64) *consensusv1.StreamPart {
	t.Helper()
	data, err := proto.Marshal(m)
	require.NoError(t, err)
	return &consensusv1.StreamPart{Response: data, Revision: revision}
}

// sends makes a node answer with these blobs, and then the error.
func sends(t *testing.T, err error, blobs ...string) func(*consensusv1.Call, consensusv1.Consensus_StreamServer) error {
	t.Helper()
	return func(_ *consensusv1.Call, stream consensusv1.Consensus_StreamServer) error {
		for _, blob := range blobs {
			if err := stream.Send(part(t, &pb.SnapshotResponse{Blob: []byte(blob)}, 0)); err != nil {
				return err
			}
		}
		return err
	}
}

// fences answers fences with the world's revision.
func fences(t *testing.T, n *node) {
	t.Helper()
	n.on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
		if call.GetMethod() != consensusv1.Method_METHOD_FENCE {
			return nil, false
		}
		data, err := proto.Marshal(&consensusv1.FenceResponse{Revision: 7})
		if err != nil {
			t.Error(err)
		}
		return &consensusv1.Answer{Response: data, Revision: 7}, true
	})
}

// snapshot reads a snapshot to its end.
func snapshot(r *rig) (blobs []string, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := pb.NewMaintenanceClient(r.client).Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(r.t, err)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return blobs, nil
		}
		if err != nil {
			return blobs, err
		}
		blobs = append(blobs, string(m.GetBlob()))
	}
}

// behind is what a node says that does not hold what it should.
func behind(*consensusv1.Call, consensusv1.Consensus_StreamServer) error {
	return rpctypes.ErrGRPCTimeout
}

// followersKnown waits until the proxy would ask each follower, and gives how many notes that made: it is ready with one node.
func followersKnown(t *testing.T, r *rig) (notes int) {
	t.Helper()
	for _, follower := range r.nodes[1:] {
		for _, n := range r.nodes {
			n.onStream(behind)
		}
		follower.onStream(sends(t, nil, "known"))
		got, err := snapshot(r) // goes from one to the next until one answers
		require.NoError(t, err)
		require.Equal(t, []string{"known"}, got)
	}
	return len(r.world.notes())
}

// A snapshot comes from a follower that holds all that was acknowledged, from the leader where no follower does.
func TestSnapshotSparesTheLeader(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(3)
		r.ready()
		fences(t, r.nodes[0])
		before := followersKnown(t, r)
		r.nodes[1].onStream(sends(t, nil, "a", "b"))
		got, err := snapshot(r)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, got)
		r.nodes[1].onStream(behind)
		r.nodes[2].onStream(sends(t, nil, "c"))
		got, err = snapshot(r)
		require.NoError(t, err)
		require.Equal(t, []string{"c"}, got)
		r.nodes[2].onStream(behind)
		r.nodes[0].onStream(sends(t, nil, "d"))
		got, err = snapshot(r)
		require.NoError(t, err)
		require.Equal(t, []string{"d"}, got)
		require.Equal(t, []string{
			"2 METHOD_SNAPSHOT from 7",
			"2 METHOD_SNAPSHOT from 7", "3 METHOD_SNAPSHOT from 7",
			"2 METHOD_SNAPSHOT from 7", "3 METHOD_SNAPSHOT from 7", "1 METHOD_SNAPSHOT from 7",
		}, r.world.notes()[before:])
	})
}

// Without a leader a member answers with what it has; a client that requires a leader is refused.
func TestSnapshotWithoutLeader(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(2)
		r.ready()
		r.world.update(func(topology *consensusv1.Topology) { topology.Leader = 0 })
		r.nodes[0].onStream(sends(t, nil, "a"))
		require.Eventually(t, func() bool {
			ctx := metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
			stream, err := pb.NewMaintenanceClient(r.client).Snapshot(ctx, &pb.SnapshotRequest{})
			require.NoError(t, err)
			_, err = stream.Recv()
			return status.Convert(err).Message() == rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)
		}, 5*time.Second, 10*time.Millisecond)
		got, err := snapshot(r)
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, got)
		notes := r.world.notes()
		require.Equal(t, "1 METHOD_SNAPSHOT from 0", notes[len(notes)-1])
	})
}

// A node that does not begin is left for the next one; one that breaks off later is not made up for.
func TestSnapshotFromNodesThatFail(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(2)
		r.ready()
		fences(t, r.nodes[0])
		followersKnown(t, r)
		r.nodes[1].onStream(func(_ *consensusv1.Call, stream consensusv1.Consensus_StreamServer) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		})
		r.nodes[0].onStream(sends(t, nil, "a"))
		got, err := snapshot(r)
		require.NoError(t, err)
		require.Equal(t, []string{"a"}, got)
		r.nodes[1].onStream(sends(t, status.Error(codes.Unavailable, "read tcp 10.0.0.1: broken"), "b"))
		got, err = snapshot(r)
		require.Equal(t, []string{"b"}, got)
		require.Equal(t, rpctypes.ErrGRPCTimeoutDueToConnectionLost.Error(), err.Error(), "addresses inside stay inside")
		r.nodes[1].onStream(sends(t, rpctypes.ErrGRPCCompacted, "b"))
		_, err = snapshot(r)
		require.Equal(t, rpctypes.ErrGRPCCompacted.Error(), err.Error())
		r.nodes[1].onStream(sends(t, rpctypes.ErrGRPCCompacted))
		_, err = snapshot(r)
		require.Equal(t, rpctypes.ErrGRPCCompacted.Error(), err.Error(), "an error of the request is not tried elsewhere")
	})
}

// Who does not read stops the node's sending and nothing else; who goes away ends it.
func TestSlowReaderOfASnapshot(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.ready()
		fences(t, r.nodes[0])
		var sent atomic.Int64
		ended := make(chan struct{})
		r.nodes[0].onStream(func(_ *consensusv1.Call, stream consensusv1.Consensus_StreamServer) error {
			defer close(ended)
			blob := make([]byte, 32<<10)
			for {
				if err := stream.Send(part(t, &pb.SnapshotResponse{Blob: blob}, 0)); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := pb.NewMaintenanceClient(r.client).Snapshot(ctx, &pb.SnapshotRequest{})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.NoError(t, err)
		// It stops: nothing is sent in a while.
		before := int64(-1)
		require.Eventually(t, func() bool {
			now := sent.Load()
			stopped := now == before
			before = now
			return stopped
		}, 10*time.Second, 200*time.Millisecond)
		require.Less(t, before, int64(1000), "32 MiB lie between the node and a client that does not read")
		kv := pb.NewKVClient(r.client)
		for i := range 20 {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i)})
			require.NoError(t, err)
		}
		cancel()
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			t.Fatal("the node still sends")
		}
	})
}

// A streamed range goes where its unary sister goes, and the connection remembers its revision.
func TestRangeStreamIsRouted(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(2)
		r.ready()
		for _, n := range r.nodes {
			n.onStream(func(_ *consensusv1.Call, stream consensusv1.Consensus_StreamServer) error {
				return stream.Send(part(t, &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Count: int64(n.id)}}, 41))
			})
		}
		r.world.update(func(topology *consensusv1.Topology) { topology.Leader, topology.Term = 2, 3 })
		ask := func(request *pb.RangeRequest) int64 {
			stream, err := pb.NewKVClient(r.client).RangeStream(t.Context(), request)
			require.NoError(t, err)
			m, err := stream.Recv()
			require.NoError(t, err)
			_, err = stream.Recv()
			require.ErrorIs(t, err, io.EOF)
			return m.GetRangeResponse().GetCount()
		}
		require.EqualValues(t, 1, ask(&pb.RangeRequest{Key: []byte("k"), Serializable: true}))
		require.Eventually(t, func() bool { return ask(&pb.RangeRequest{Key: []byte("k")}) == 2 }, 5*time.Second, 10*time.Millisecond)
		require.EqualValues(t, 1, ask(&pb.RangeRequest{Key: []byte("k"), Serializable: true}))
		notes := r.world.notes()
		require.Equal(t, "1 METHOD_RANGE_STREAM from 0", notes[0])
		require.Equal(t, "1 METHOD_RANGE_STREAM from 41", notes[len(notes)-1])
	})
}
