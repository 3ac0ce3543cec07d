package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// traffic is a writer, a watcher and a lease that is kept alive, all at work while a cluster changes under them.
type traffic struct {
	t      *testing.T
	client *clientv3.Client
	prefix string
	leased string

	stop  context.CancelFunc // the writer's, between two writes
	end   context.CancelFunc // everything's
	wrote sync.WaitGroup     // the writer
	wg    sync.WaitGroup     // the others

	mu    sync.Mutex
	acked map[string]int64 // revisions of acknowledged writes
	seen  []*clientv3.Event
	trace []error // why the watch or the lease ended
}

const trafficTTLS = 5

// newTraffic begins. It ends with finish, or with the test.
func newTraffic(t *testing.T, client *clientv3.Client, name string) *traffic {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	writing, stop := context.WithCancel(ctx)
	tr := &traffic{t: t, client: client, prefix: key(t, name+"/"), leased: key(t, name+".leased"), stop: stop, end: end, acked: map[string]int64{}}
	t.Cleanup(tr.wg.Wait)
	t.Cleanup(tr.wrote.Wait)
	t.Cleanup(end)
	lease, err := client.Grant(bounded(t), trafficTTLS)
	require.NoError(t, err)
	put, err := client.Put(bounded(t), tr.leased, "kept", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	kept, err := client.KeepAlive(ctx, lease.ID)
	require.NoError(t, err)
	events := client.Watch(ctx, tr.prefix, clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision))
	tr.wg.Go(func() { tr.watch(ctx, events) })
	tr.wg.Go(func() {
		for range kept {
		}
		tr.fail(ctx, fmt.Errorf("the lease is kept alive no more"))
	})
	tr.wrote.Go(func() { tr.write(ctx, writing) })
	return tr
}

func (tr *traffic) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.trace = append(tr.trace, err)
}

// write puts one key after the other. What fails may have happened or not.
func (tr *traffic) write(ctx, writing context.Context) {
	const pause = 3 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for n := 0; ; n++ {
		k := fmt.Sprintf("%s%06d", tr.prefix, n)
		bounded, cancel := context.WithTimeout(ctx, timeout)
		r, err := tr.client.Put(bounded, k, "v")
		cancel()
		if err == nil {
			tr.mu.Lock()
			tr.acked[k] = r.Header.Revision
			tr.mu.Unlock()
		}
		select {
		case <-ticker.C:
		case <-writing.Done():
			return
		}
	}
}

func (tr *traffic) watch(ctx context.Context, events clientv3.WatchChan) {
	for r := range events {
		if err := r.Err(); err != nil {
			tr.fail(ctx, err)
		}
		tr.mu.Lock()
		tr.seen = append(tr.seen, r.Events...)
		tr.mu.Unlock()
	}
	tr.fail(ctx, fmt.Errorf("the watch has ended"))
}

// count is how many writes were acknowledged so far.
func (tr *traffic) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.acked)
}

// flows waits until the writer has been acknowledged some more.
func (tr *traffic) flows() {
	tr.t.Helper()
	const more = 20
	before := tr.count()
	require.Eventually(tr.t, func() bool { return tr.count() >= before+more }, 30*time.Second, 5*time.Millisecond, "no write is acknowledged")
}

// finish stops the writer and checks that every acknowledged write is there, that the watch saw each once and in order, and that the lease
// lived. It gives the last revision.
func (tr *traffic) finish() int64 {
	tr.t.Helper()
	tr.flows()
	tr.stop()
	tr.wrote.Wait()
	r, err := tr.client.Put(bounded(tr.t), tr.prefix+"~", "the last")
	require.NoError(tr.t, err)
	last := r.Header.Revision
	require.Eventually(tr.t, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.seen) > 0 && tr.seen[len(tr.seen)-1].Kv.ModRevision == last
	}, 30*time.Second, 5*time.Millisecond, "the watch stays behind")
	got, err := tr.client.Get(bounded(tr.t), tr.prefix, clientv3.WithPrefix())
	require.NoError(tr.t, err)
	stored := map[string]int64{}
	for _, kv := range got.Kvs {
		stored[string(kv.Key)] = kv.ModRevision
	}
	leased, err := tr.client.Get(bounded(tr.t), tr.leased)
	require.NoError(tr.t, err)
	require.Len(tr.t, leased.Kvs, 1, "the lease was lost")

	tr.mu.Lock()
	defer tr.mu.Unlock()
	require.Empty(tr.t, tr.trace)
	watched := map[string]int64{}
	for _, event := range tr.seen {
		watched[string(event.Kv.Key)] = event.Kv.ModRevision
	}
	require.Len(tr.t, watched, len(tr.seen), "each key was written once, and seen once")
	require.True(tr.t, slices.IsSortedFunc(tr.seen, func(a, b *clientv3.Event) int { return int(a.Kv.ModRevision - b.Kv.ModRevision) }))
	require.Equal(tr.t, stored, watched, "what is stored was seen, and nothing else")
	for k, revision := range tr.acked {
		require.Equal(tr.t, revision, stored[k], "acknowledged: %s", strings.TrimPrefix(k, tr.prefix))
	}
	tr.end()
	return last
}
