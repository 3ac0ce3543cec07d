package app_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/app"
)

// Every member is asked to defragment, one after the other, leader or not.
func TestDefragmentAsksEachMember(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(3)
		r.ready()
		maintenance := pb.NewMaintenanceClient(r.client)
		at := make(chan uint64, 3)
		for _, n := range r.nodes {
			n.on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
				if call.GetMethod() != consensusv1.Method_METHOD_DEFRAGMENT {
					return nil, false
				}
				r.world.note("n%d begins", n.id)
				at <- n.id
				time.Sleep(5 * time.Millisecond) // so that one beside it would be seen
				r.world.note("n%d ends", n.id)
				return ok(&pb.DefragmentResponse{}, 0), true
			})
		}
		response, err := maintenance.Defragment(t.Context(), &pb.DefragmentRequest{})
		require.NoError(t, err)
		require.Nil(t, response.Header, "as etcd's")
		var want []string
		for range r.nodes {
			id := <-at
			want = append(want, fmt.Sprintf("n%d begins", id), fmt.Sprintf("n%d ends", id))
		}
		require.Len(t, want, 6)
		require.Equal(t, want, r.world.notes())

		// One that fails says so, and does not keep the others from it.
		r.nodes[0].on(func(*consensusv1.Call) (*consensusv1.Answer, bool) {
			return &consensusv1.Answer{Code: uint32(codes.ResourceExhausted), Message: "no room"}, true
		})
		_, err = maintenance.Defragment(t.Context(), &pb.DefragmentRequest{})
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.ElementsMatch(t, []uint64{2, 3}, []uint64{<-at, <-at})
		r.nodes[0].on(func(*consensusv1.Call) (*consensusv1.Answer, bool) { r.nodes[0].cutStreams(); return nil, true })
		_, err = maintenance.Defragment(t.Context(), &pb.DefragmentRequest{})
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.ElementsMatch(t, []uint64{2, 3}, []uint64{<-at, <-at})
	})
}

// A compaction that waits for the disk may take as long as its client waits; others may not.
func TestAPhysicalCompactionIsNotCutShort(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.ready()
		left := make(chan time.Duration, 1)
		r.nodes[0].on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
			if call.GetMethod() != consensusv1.Method_METHOD_COMPACT {
				return nil, false
			}
			left <- time.Duration(call.GetTimeoutMs()) * time.Millisecond
			return ok(&pb.CompactionResponse{}, 0), true
		})
		kv := pb.NewKVClient(r.client)
		_, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 1})
		require.NoError(t, err)
		require.Less(t, <-left, time.Minute)
		_, err = kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 1, Physical: true})
		require.NoError(t, err)
		require.Greater(t, <-left, 24*time.Hour)
	})
}

// The time that any other call gets does not end it here either.
func TestAPhysicalCompactionOutlastsTheTimeout(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.ElectionMs = 10 // so that a call gets little more than 5 s
		r.addNodes(1)
		r.ready()
		r.nodes[0].on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
			if call.GetMethod() != consensusv1.Method_METHOD_COMPACT {
				return nil, false
			}
			time.Sleep(6 * time.Second)
			return ok(&pb.CompactionResponse{}, 0), true
		})
		_, err := pb.NewKVClient(r.client).Compact(t.Context(), &pb.CompactionRequest{Revision: 1, Physical: true})
		require.NoError(t, err)
	})
}
