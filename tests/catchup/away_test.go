package catchup

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// load writes from several goroutines until it is stopped. Writers leave a little time to the machine.
type load struct {
	writes atomic.Int64
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

func startLoad(t *testing.T, client *clientv3.Client, pause time.Duration) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	const writers = 8
	for i := range writers {
		l.ended.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("load/%d/%d", i, n%50)
				var err error
				if n%7 == 6 {
					_, err = client.Delete(ctx, key)
				} else {
					_, err = client.Put(ctx, key, fmt.Sprint(n))
				}
				if err == nil {
					l.writes.Add(1)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.ended.Wait()
}

// await waits until so many more writes were acknowledged.
func (l *load) await(t *testing.T, more int64) {
	t.Helper()
	to := l.writes.Load() + more
	require.Eventually(t, func() bool { return l.writes.Load() >= to }, patience, 10*time.Millisecond)
}

// A member that is killed and misses thousands of writes, with leases, deletes and a compaction among them, catches up by snapshot while
// writes go on: it holds what the others hold, and a watch through it sees every event once and in order.
func TestMemberThatWasAway(t *testing.T) {
	for name, start := range map[string]func(*testing.T, ...string) *system{"standalone": standalone, "split": split} {
		t.Run(name, func(t *testing.T) {
			s := start(t, shortLogs()...)
			away := s.follower(t)
			client := s.ClientAt(t, s.others(away)...)
			ctx := bounded(t)
			reference, through := watch(t, client), watch(t, s.ClientAt(t, s.endpoint(away)))
			grant := func(key string, ttl int64) clientv3.LeaseID {
				lease, err := client.Grant(ctx, ttl)
				require.NoError(t, err)
				_, err = client.Put(ctx, key, "leased", clientv3.WithLease(lease.ID))
				require.NoError(t, err)
				return lease.ID
			}
			revoked := grant("lease/revoked", 600)
			grant("lease/kept", 600)
			grant("lease/expired", 3)
			put, err := client.Put(ctx, "deleted", "soon")
			require.NoError(t, err)
			position := put.Header.Revision
			through.upTo(t, position)

			s.Kill(t, away, syscall.SIGKILL)
			const missed = 3000
			l := startLoad(t, client, 0)
			l.await(t, missed/2)
			_, err = client.Delete(ctx, "deleted")
			require.NoError(t, err)
			_, err = client.Revoke(ctx, revoked)
			require.NoError(t, err)
			grant("lease/new", 600)
			_, err = client.Compact(ctx, position)
			require.NoError(t, err)
			l.await(t, missed/2)
			require.Eventually(t, func() bool { // its owner may have gone with the member that is away
				got, err := client.Get(ctx, "lease/expired")
				require.NoError(t, err)
				return got.Count == 0
			}, patience, 50*time.Millisecond)
			l.end()

			require.Zero(t, s.installs(t, away))
			l = startLoad(t, client, 5*time.Millisecond)
			began := time.Now()
			s.Start(t, away)
			l.await(t, 500)
			l.end()
			last, err := client.Get(ctx, "lease/", clientv3.WithPrefix())
			require.NoError(t, err)
			require.EqualValues(t, 2, last.Count, "the kept lease's key and the new one's")
			revision := last.Header.Revision
			s.agree(t, revision)
			t.Logf("%s agrees %v after its start, at revision %d", away, time.Since(began).Round(time.Millisecond), revision)
			require.Positive(t, s.installs(t, away), "it did not come by snapshot")
			require.Empty(t, s.images(t, away))
			require.Equal(t, reference.upTo(t, revision), through.upTo(t, revision))
			for _, node := range s.nodes {
				const bytesMax = 512 << 20 // an index of a few hundred keys, logs and windows of a few MiB, and three times that for the collector
				require.Less(t, s.peakBytes(t, node), int64(bytesMax), "%s", node)
			}
		})
	}
}
