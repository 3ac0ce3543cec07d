package app_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A new hub takes its share of the watches that are there, and none of them misses or repeats anything.
func TestANewHubTakesItsShare(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		h1, _ := r.addHub("h1")
		r.ready()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		stream, err := pb.NewWatchClient(r.client).Watch(ctx)
		require.NoError(t, err)
		const keys = 60
		for k := range keys {
			create(t, stream, &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%d", k)})
		}
		for range keys {
			require.True(t, recv(t, stream).Created)
		}
		require.Eventually(t, func() bool { return h1.registered() == keys }, 5*time.Second, time.Millisecond)
		h2, _ := r.addHub("h2")
		const rounds = 20
		writing := make(chan struct{})
		go func() {
			defer close(writing)
			for range rounds {
				for k := range keys {
					r.world.put(fmt.Sprintf("k%d", k), "v", nil)
				}
				time.Sleep(100 * time.Millisecond) // over the time in which watches move
			}
		}()
		got := map[int64][]int64{}
		for n := 0; n < keys*rounds; {
			response := recv(t, stream)
			for _, ev := range response.Events {
				got[response.WatchId] = append(got[response.WatchId], ev.Kv.ModRevision)
				n++
			}
		}
		<-writing
		for id, revisions := range got {
			require.Len(t, revisions, rounds, "watch %d", id)
			require.IsIncreasing(t, revisions)
		}
		require.Eventually(t, func() bool { return h1.registered()+h2.registered() == keys && h2.registered() > keys/5 },
			5*time.Second, time.Millisecond)
		require.Greater(t, h1.registered(), keys/5)
	})
}

// Watches move away from a hub that speaks and does not know that it hears nothing, when others are ahead of it.
func TestAHubThatIsBehindIsLeft(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		h1, _ := r.addHub("h1")
		h2, _ := r.addHub("h2")
		r.ready()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		stream, err := pb.NewWatchClient(r.client).Watch(ctx)
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, stream).Created)
		require.Eventually(t, func() bool { return h1.registered()+h2.registered() == 1 }, 5*time.Second, time.Millisecond)
		stuck := h1
		if h2.registered() == 1 {
			stuck = h2
		}
		stuck.stuck.Store(true)
		r.world.put("a", "v", nil)
		require.Len(t, recv(t, stream).Events, 1)
	})
}
