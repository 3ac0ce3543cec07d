package app_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

func newConfig(electionMs uint) *app.Config {
	c := app.NewConfig()
	c.ElectionMs = electionMs
	return c
}

func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
}

// leasesOf gives so many leases that the owner has under the names.
func leasesOf(owner string, names []string, count int) (leases []int64) {
	for id := int64(1000); len(leases) < count; id++ {
		if names[rendezvous.Owner(id, names)] == owner {
			leases = append(leases, id)
		}
	}
	return leases
}

func TestKeepAlives(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		l1, _, _ := r.addKeeper("l1")
		r.addKeeper("l2")
		r.ready()
		names := []string{"l1", "l2"}
		stream, err := pb.NewLeaseClient(r.client).LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		mine, others := leasesOf("l1", names, 2), leasesOf("l2", names, 10)
		keep := func(id int64) { require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id})) }

		keep(mine[0])
		response, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, mine[0], response.ID)
		require.Equal(t, mine[0]%100, response.TTL)
		require.EqualValues(t, clusterID, response.Header.ClusterId)
		require.EqualValues(t, 7, response.Header.Revision)
		require.EqualValues(t, 1, response.Header.MemberId)

		// Not found is TTL 0; one that may not be acknowledged now is asked again, and holds up nobody else.
		var asked atomic.Int64
		release := make(chan struct{})
		l1.on(func(lease int64) *leasev1.KeepAliveAnswer {
			if lease == mine[0] {
				asked.Add(1)
				select {
				case <-release:
					return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_RENEWED, TtlS: 5}
				default:
					return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_UNAVAILABLE}
				}
			}
			return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_NOT_FOUND}
		})
		keep(mine[0])
		keep(mine[0])
		keep(mine[1])
		for _, id := range others {
			keep(id)
		}
		ttl := map[int64]int64{}
		for range 11 {
			response, err := stream.Recv()
			require.NoError(t, err)
			ttl[response.ID] = response.TTL
		}
		require.NotContains(t, ttl, mine[0])
		require.Contains(t, ttl, mine[1])
		require.Zero(t, ttl[mine[1]])
		require.Eventually(t, func() bool { return asked.Load() > 1 }, 5*time.Second, time.Millisecond)
		close(release)
		for range 2 {
			response, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, mine[0], response.ID)
			require.EqualValues(t, 5, response.TTL)
		}
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.Error(t, err)
	})
}

// An instance hears of revisions by its feed, but a client connection never sees them go back.
func TestKeepAliveHeaders(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		l1, _, _ := r.addKeeper("l1")
		r.ready()
		known := atomic.Int64{}
		known.Store(5)
		l1.on(func(int64) *leasev1.KeepAliveAnswer {
			return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_RENEWED, TtlS: 60, Revision: known.Load()}
		})
		stream, err := pb.NewLeaseClient(r.client).LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		header := func() int64 {
			require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 33}))
			response, err := stream.Recv()
			require.NoError(t, err)
			return response.Header.Revision
		}
		require.EqualValues(t, 5, header())
		kv := pb.NewKVClient(r.client)
		var put *pb.PutResponse
		for put.GetHeader().GetRevision() < 8 {
			put, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
			require.NoError(t, err)
		}
		require.EqualValues(t, 8, header(), "the put told more than the instance knows")
		known.Store(100)
		require.EqualValues(t, 100, header())
		// The fake node's count is the least revision that it was asked for.
		read, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
		require.NoError(t, err)
		require.EqualValues(t, 100, read.Count, "what the keepalive told binds reads, too")
		require.NoError(t, stream.CloseSend())
	})
}

// One dead owner holds up its own leases until the view gives them to another; with nobody left the stream ends.
func TestDeadOwner(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		_, _, stop1 := r.addKeeper("l1")
		l2, _, stop2 := r.addKeeper("l2")
		r.ready()
		names := []string{"l1", "l2"}
		stream, err := pb.NewLeaseClient(r.client).LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		mine, other := leasesOf("l1", names, 1)[0], leasesOf("l2", names, 1)[0]
		stop1()
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: mine}))
		for range 3 {
			require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: other}))
			response, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, other, response.ID)
		}
		// An instance that is asked in error tells the newer view; the topology says the same later.
		l2.on(func(int64) *leasev1.KeepAliveAnswer { return nil })
		r.view(func(v *feedv1.View) { v.Instances = v.Instances[1:] })
		response, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, mine, response.ID)
		stop2()
		require.Eventually(t, func() bool {
			return stream.Send(&pb.LeaseKeepAliveRequest{ID: other}) != nil
		}, 5*time.Second, time.Millisecond)
		for err == nil {
			_, err = stream.Recv()
		}
		require.Equal(t, codes.Unavailable, status.Code(err))
	})
}

// The asked instance's view counts if it is newer than what the nodes have told.
func TestNotOwnerTellsTheView(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		l1, _, _ := r.addKeeper("l1")
		r.ready()
		// l2 is known to l1 alone.
		k2 := &keeper{world: r.world, name: "l2"}
		address := serveKeeper(t, r, k2)
		l1.on(func(int64) *leasev1.KeepAliveAnswer {
			return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_NOT_OWNER, View: &feedv1.View{
				Epoch: 99, Instances: []*feedv1.Instance{{Name: "l2", Incarnation: 1, Address: address}},
			}}
		})
		stream, err := pb.NewLeaseClient(r.client).LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 33}))
		response, err := stream.Recv()
		require.NoError(t, err)
		require.EqualValues(t, 33, response.TTL)
		require.NoError(t, stream.CloseSend())
	})
}

func TestRevokeStopsTheOwnerFirst(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.RemovalTime = 300 * time.Millisecond
		r.addNodes(1)
		r.ready()
		leases := pb.NewLeaseClient(r.client)
		_, err := leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"n1 LEASE_REVOKE"}, r.world.notes(), "no instance lives: at once")

		_, _, stop := r.addKeeper("l1")
		require.Eventually(t, func() bool {
			_, err := leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 2})
			require.NoError(t, err)
			notes := r.world.notes()
			return notes[len(notes)-2] == "l1 stop 2" && notes[len(notes)-1] == "n1 LEASE_REVOKE"
		}, 5*time.Second, time.Millisecond)

		before := len(r.world.notes())
		_, err = leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 404})
		require.Equal(t, rpctypes.ErrGRPCLeaseNotFound, err)
		require.Equal(t, []string{"l1 stop 404", "n1 LEASE_REVOKE"}, r.world.notes()[before:], "of a lease that there never is")

		// The owner is told of a revoke that came to nothing, but not of one that may still happen.
		before = len(r.world.notes())
		_, err = leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 405})
		require.Equal(t, codes.NotFound, status.Code(err))
		require.Eventually(t, func() bool { return len(r.world.notes()) == before+3 }, 5*time.Second, time.Millisecond)
		require.Equal(t, []string{"l1 stop 405", "n1 LEASE_REVOKE", "l1 resume 405"}, r.world.notes()[before:])
		_, err = leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 408})
		require.Equal(t, codes.Unavailable, status.Code(err))
		_, err = leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 2})
		require.NoError(t, err)
		require.Equal(t, []string{"l1 stop 408", "n1 LEASE_REVOKE", "l1 stop 2", "n1 LEASE_REVOKE"}, r.world.notes()[before+3:])

		stop()
		start := time.Now()
		_, err = leases.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 3})
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), 300*time.Millisecond, "until its right to acknowledge has run out")
		_, err = leases.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 3})
		require.Equal(t, codes.Unavailable, status.Code(err))
	})
}

// A lease that was revoked under a later view than the one under which its owner was stopped may have another owner that does not know yet: it
// is stopped too, before the client hears of the revoke.
func TestARevokeFollowsTheLease(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		l1, _, _ := r.addKeeper("l1")
		r.ready()
		tell := func(leaseEpoch uint64, epochs ...uint64) []string {
			r.world.mu.Lock()
			r.world.leaseEpoch = leaseEpoch
			r.world.mu.Unlock()
			l1.mu.Lock()
			l1.epochs = epochs
			l1.mu.Unlock()
			before := len(r.world.notes())
			_, err := pb.NewLeaseClient(r.client).LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 7})
			require.NoError(t, err)
			return slices.DeleteFunc(r.world.notes()[before:], func(note string) bool { return note == "l1 resume 7" }) // nobody waits for those
		}
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE"}, tell(5, 5))
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE"}, tell(5, 6))
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE", "l1 stop 7"}, tell(5, 4, 5))
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE", "l1 stop 7", "l1 stop 7"}, tell(5, 4, 4, 6), "who lags is asked again")
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE"}, tell(5), "an owner of an older version tells no epoch")
		require.Equal(t, []string{"l1 stop 7", "n1 LEASE_REVOKE"}, tell(0, 4), "nor does a node of one")
	})
}

func TestTimeToLive(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.addKeeper("l1")
		r.ready()
		leases := pb.NewLeaseClient(r.client)
		for id, want := range map[int64]int64{1: 42, 404: -1, 405: -1} {
			response, err := leases.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id})
			require.NoError(t, err)
			require.Equal(t, want, response.TTL)
			require.Equal(t, want > 0, response.GrantedTTL == 60)
			require.EqualValues(t, 1, response.Header.Revision)
		}
	})
}
