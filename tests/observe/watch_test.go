package observe

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// The metrics of watches move with what they stand for, at the hubs and at the proxies of the split system.
func TestWatchMetricsMove(t *testing.T) {
	c := framework.Split(t, framework.Options{})
	hubs := []string{localURL(c.Ports["hub1"].Metrics), localURL(c.Ports["hub2"].Metrics)}
	proxies := []string{localURL(c.Ports["proxy1"].Metrics), localURL(c.Ports["proxy2"].Metrics)}
	becomes := func(what string, holds func(hubs, proxies metrics) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return holds(scrape(t, hubs...), scrape(t, proxies...)) }, patience, pause/5, what)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	watches := watchesOn(ctx, t, c, 5, 2)
	becomes("two streams with five watches each", func(hubs, proxies metrics) bool {
		return proxies.sum("etcd_debugging_mvcc_watcher_total") == 10 && proxies.sum("etcd_debugging_mvcc_watch_stream_total") == 2 &&
			hubs.sum("holdfast_watch_hub_watchers") == 10 && hubs.sum("holdfast_watch_hub_live_watchers") == 10 &&
			hubs.sum("holdfast_watch_hub_streams") == 4
	})

	before, sent := scrape(t, hubs...), scrape(t, proxies...)
	kv := pb.NewKVClient(c.Conn(t, c.Endpoints()[0]))
	const puts = 20
	var last int64
	put := func(i int) {
		t.Helper()
		r, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "w%d", i%5), Value: make([]byte, 1000)})
		require.NoError(t, err)
		last = r.GetHeader().GetRevision()
	}
	for i := range puts {
		put(i)
	}
	becomes("each hub has all, and each watch had its own", func(hubs, proxies metrics) bool {
		grown := hubs.since(before)
		return grown.sum("holdfast_watch_window_revisions") == 2*puts && grown.sum("holdfast_watch_window_bytes") >= 2*puts*1000 &&
			hubs.sum("holdfast_watch_hub_position_revision") == float64(2*last) && hubs.sum("holdfast_watch_lag_revisions") == 0 &&
			grown.sum("holdfast_watch_deliveries_total") > 0 && grown.sum("holdfast_watch_revisions_total") > 0 &&
			proxies.since(sent).sum("etcd_debugging_mvcc_events_total") == 2*puts
	})

	// A hub that stands still: its proxies see how far it is behind, and for how long.
	c.Kill(t, "hub1", syscall.SIGSTOP)
	require.Eventually(t, func() bool {
		put(0)
		now := scrape(t, proxies...)
		return now.sum("holdfast_watch_proxy_lag_revisions") > 0 && now.sum("holdfast_watch_proxy_lag_seconds") > 0
	}, patience, pause)
	c.Kill(t, "hub1", syscall.SIGCONT)

	// Without the bus each hub counts a gap.
	before = scrape(t, hubs...)
	c.Kill(t, "nats", syscall.SIGKILL)
	becomes("the bus is gone", func(hubs, _ metrics) bool {
		return hubs.since(before).by("holdfast_watch_gaps_total", "cause")["disconnect"] == 2
	})
	put(0)
	becomes("nothing is behind", func(hubs, proxies metrics) bool {
		return hubs.sum("holdfast_watch_lag_revisions") == 0 && hubs.sum("holdfast_watch_lag_seconds") == 0 &&
			hubs.sum("holdfast_watch_hub_position_revision") == float64(2*last) &&
			proxies.sum("holdfast_watch_proxy_lag_revisions") == 0 && proxies.sum("holdfast_watch_proxy_lag_seconds") == 0
	})

	// A hub that is lost: its watches go to the other.
	c.Kill(t, "hub1", syscall.SIGKILL)
	require.Eventually(t, func() bool {
		left := scrape(t, hubs[1])
		return left.sum("holdfast_watch_hub_watchers") == 10 && scrape(t, proxies...).by("holdfast_watch_moved_total", "cause")["hub_lost"] > 0
	}, patience, pause)
	cancel()
	watches.Wait()
	require.Eventually(t, func() bool {
		return scrape(t, proxies...).sum("etcd_debugging_mvcc_watcher_total") == 0 && scrape(t, hubs[1]).sum("holdfast_watch_hub_watchers") == 0
	}, patience, pause)
}

// watchesOn opens so many watches on each of so many streams, the streams on different proxies, and takes what they get until the context
// ends.
func watchesOn(ctx context.Context, t *testing.T, c *framework.Cluster, watches, streams int) *sync.WaitGroup {
	t.Helper()
	var all sync.WaitGroup
	for s := range streams {
		stream, err := pb.NewWatchClient(c.Conn(t, c.Endpoints()[s%len(c.Endpoints())])).Watch(ctx)
		require.NoError(t, err)
		for w := range watches {
			require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
				CreateRequest: &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "w%d", w)},
			}}))
			created, err := stream.Recv()
			require.NoError(t, err)
			require.True(t, created.GetCreated())
		}
		all.Go(func() {
			for err := error(nil); err == nil; {
				_, err = stream.Recv()
			}
		})
	}
	return &all
}
