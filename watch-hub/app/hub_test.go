package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/watch-hub/app"
)

// rig is a real hub before fake consensus nodes, all in a bubble with its own time.
type rig struct {
	t      *testing.T
	world  *world
	memory *bus.Memory
	nodes  map[uint64]*direct.Conn
	hub    *direct.Conn
	reg    *prometheus.Registry
	stop   context.CancelFunc
	ended  chan error
}

// wire is a direct connection whose owner closes it.
type wire struct{ *direct.Conn }

func (wire) Close() error { return nil }

// inBubble runs a test with a hub; before it starts, prepare may change the world.
func inBubble(t *testing.T, withBus bool, prepare func(*world), test func(*rig)) {
	t.Helper()
	bubble(t, withBus, nil, prepare, test)
}

// inBubbleTraced is inBubble with a bus and a tracer.
func inBubbleTraced(t *testing.T, tracers trace.TracerProvider, test func(*rig)) {
	t.Helper()
	bubble(t, true, tracers, nil, test)
}

func bubble(t *testing.T, withBus bool, tracers trace.TracerProvider, prepare func(*world), test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, memory: bus.NewMemory(bus.Limits{}), nodes: map[uint64]*direct.Conn{}, hub: direct.New("hub"), reg: prometheus.NewRegistry()}
		deps := app.Dependencies{Logger: slog.New(slog.DiscardHandler), Metrics: r.reg, Dial: r.dial, Tracers: tracers}
		var publisher bus.Bus
		if withBus {
			publisher, deps.Bus = r.memory.Connect(), r.memory.Connect()
		}
		r.world = newWorld(publisher)
		for id := uint64(1); id <= 2; id++ {
			r.nodes[id] = direct.New(address(id))
			consensusv1.RegisterConsensusServer(r.nodes[id], &node{world: r.world, id: id})
		}
		if prepare != nil {
			prepare(r.world)
		}
		cfg := app.NewConfig()
		cfg.Name, cfg.Address, cfg.ConsensusEndpoints = "hub1", "hub1:2380", []string{"http://" + address(1)}
		cfg.WatchBufferBytes = 1 << 20
		h, err := app.New(cfg, deps)
		require.NoError(t, err)
		h.Register(r.hub)
		ctx, cancel := context.WithCancel(t.Context())
		r.stop, r.ended = cancel, make(chan error, 1)
		go r.world.beat(ctx)
		go func() { r.ended <- h.Run(ctx) }()
		r.eventually(h.Following)
		test(r)
		cancel()
		require.NoError(t, <-r.ended)
		r.hub.Close()
		for _, n := range r.nodes {
			n.Close()
		}
		for _, b := range []bus.Bus{publisher, deps.Bus} {
			if b != nil {
				require.NoError(t, b.Close())
			}
		}
	})
}

func (r *rig) dial(address string) (app.Conn, error) {
	for id, conn := range r.nodes {
		if address == fmt.Sprintf("n%d:2380", id) {
			return wire{conn}, nil
		}
	}
	return nil, status.Error(codes.Unavailable, "no such node")
}

// eventually waits for a condition, in the bubble's time.
func (r *rig) eventually(condition func() bool) {
	r.t.Helper()
	for range 2000 {
		synctest.Wait()
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	require.Fail(r.t, "the condition did not come true within ten seconds")
}

func (r *rig) client(name string) *client {
	c := newClient(r.t, r.hub, name)
	go c.receive()
	return c
}

// sees waits until a registration is live at or above a revision and has got exactly these.
func (r *rig) sees(c *client, id uint64, revision int64, want ...string) {
	r.t.Helper()
	r.eventually(func() bool {
		_, joined, position := c.at(id)
		return joined && position >= revision
	})
	got, _, _ := c.at(id)
	require.Equal(r.t, want, got)
}

func (r *rig) metric(name, label string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	require.NoError(r.t, err)
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || (len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label)) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func all(id uint64, next int64) *watchv1.Registration {
	return &watchv1.Registration{Id: id, Key: []byte("a"), RangeEnd: []byte("z"), NextRevision: next}
}

func TestLiveToSeveralProxies(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		a, b := r.client("proxy1"), r.client("proxy2")
		a.watch(all(1, 1))
		a.watch(&watchv1.Registration{Id: 2, Key: []byte("k"), NextRevision: 1})
		b.watch(all(1, 1))
		b.watch(all(2, 3)) // of the future
		r.sees(a, 2, 0)
		r.world.put("k")
		r.world.put("m")
		r.world.put("k")
		r.sees(a, 1, 3, "k=v1", "m=v2", "k=v3")
		r.sees(a, 2, 3, "k=v1", "k=v3")
		r.sees(b, 1, 3, "k=v1", "m=v2", "k=v3")
		r.sees(b, 2, 3, "k=v3")
		a.unwatch(1)
		synctest.Wait()
		r.world.put("m")
		r.sees(a, 2, 4, "k=v1", "k=v3")
		require.Equal(t, "hub1:2380", r.world.announcement("hub1").GetAddress())
		require.Equal(t, consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB, r.world.announcement("hub1").GetKind())
		time.Sleep(time.Second)
		require.InDelta(t, 3, r.metric("holdfast_watch_hub_watchers", ""), 0)
		require.InDelta(t, 2, r.metric("holdfast_watch_hub_streams", ""), 0)
		require.InDelta(t, 0, r.metric("holdfast_watch_lag_revisions", ""), 0)
		a.cancel()
		r.eventually(func() bool { return r.metric("holdfast_watch_hub_watchers", "") == 2 })
	})
}

func TestCatchUpFromHistoryAndWindow(t *testing.T) {
	old := func(w *world) {
		for i := range 20 {
			w.put([]string{"k", "m"}[i%2])
		}
	}
	inBubble(t, true, old, func(r *rig) {
		c := r.client("proxy1")
		for id := uint64(1); id <= 50; id++ {
			c.watch(&watchv1.Registration{Id: id, Key: []byte("k"), NextRevision: 15})
		}
		for id := uint64(1); id <= 50; id++ {
			r.sees(c, id, 20, "k=v15", "k=v17", "k=v19")
		}
		r.world.put("k")
		r.sees(c, 50, 21, "k=v15", "k=v17", "k=v19", "k=v21")
		histories := r.world.histories
		require.Less(t, histories, 10, "one fetch serves many registrations")
		c.watch(&watchv1.Registration{Id: 60, Key: []byte("k"), NextRevision: 21})
		r.sees(c, 60, 21, "k=v21")
		require.Equal(t, histories, r.world.histories, "what the window holds is not fetched")
	})
}

func TestPreviousValues(t *testing.T) {
	old := func(w *world) { w.put("k"); w.put("m") }
	inBubble(t, true, old, func(r *rig) {
		c := r.client("proxy1")
		c.watch(&watchv1.Registration{Id: 1, Key: []byte("k"), NextRevision: 3, PreviousKv: true})
		c.watch(all(2, 3))
		c.watch(&watchv1.Registration{Id: 3, Key: []byte("a"), RangeEnd: []byte("z"), NextRevision: 1, PreviousKv: true})
		r.sees(c, 1, 2)
		r.world.put("k") // its previous value is older than the window
		r.world.put("k")
		r.world.put("m")
		r.sees(c, 1, 5, "k=v3(v1)", "k=v4(v3)")
		r.sees(c, 2, 5, "k=v3", "k=v4", "m=v5")
		r.sees(c, 3, 5, "k=v1", "m=v2", "k=v3(v1)", "k=v4(v3)", "m=v5(v2)")
	})
}

// Lost messages are noticed by the next one, or by a heartbeat if they were the last, and fetched.
func TestLostMessagesAreFetched(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 1))
		r.sees(c, 1, 0)
		n := 0
		r.world.do(func() {
			r.world.drop = func(m *feedv1.Message) bool { n++; return len(m.GetRevisions()) > 0 && n%3 == 0 }
		})
		var want []string
		for i := range 100 {
			key := fmt.Sprintf("k%d", i%7)
			revision := r.world.put(key)
			want = append(want, fmt.Sprintf("%s=v%d", key, revision))
		}
		r.sees(c, 1, 100, want...)
		require.Positive(t, r.metric("holdfast_watch_gaps_total", "hole"))
		r.world.do(func() { r.world.drop = func(m *feedv1.Message) bool { return len(m.GetRevisions()) > 0 } })
		r.world.put("last")
		r.sees(c, 1, 101, append(want, "last=v101")...)
		require.Positive(t, r.metric("holdfast_watch_backfills_total", "heartbeat"))
	})
}

func TestBusGoesAndComesBack(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 1))
		r.world.put("a")
		r.sees(c, 1, 1, "a=v1")
		r.memory.SetDown(true)
		r.world.put("b")
		r.sees(c, 1, 2, "a=v1", "b=v2")
		time.Sleep(time.Second)
		r.world.put("c")
		start := time.Now()
		r.sees(c, 1, 3, "a=v1", "b=v2", "c=v3")
		require.Less(t, time.Since(start), 50*time.Millisecond, "a direct stream brings what is new at once")
		require.Positive(t, r.metric("holdfast_watch_gaps_total", "disconnect"))
		r.memory.SetDown(false)
		time.Sleep(5 * time.Second)
		r.world.put("d")
		r.sees(c, 1, 4, "a=v1", "b=v2", "c=v3", "d=v4")
	})
}

func TestWithoutBus(t *testing.T) {
	inBubble(t, false, nil, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 1))
		r.world.put("a")
		r.sees(c, 1, 1, "a=v1")
		// The node that is followed stops applying, and another leads.
		r.world.do(func() { r.world.frozen[1] = 1; r.world.leader = 2 })
		r.world.put("b")
		r.sees(c, 1, 2, "a=v1", "b=v2")
		time.Sleep(5 * time.Second)
		r.world.put("c")
		start := time.Now()
		r.sees(c, 1, 3, "a=v1", "b=v2", "c=v3")
		require.Less(t, time.Since(start), 50*time.Millisecond, "the node that lags was left for the leader")
	})
}

func TestCompacted(t *testing.T) {
	old := func(w *world) {
		for range 10 {
			w.put("k")
		}
		w.compact = 6
	}
	inBubble(t, true, old, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 3))
		c.watch(all(2, 6))
		r.eventually(func() bool { return c.end(1) != nil })
		require.EqualValues(t, 6, c.end(1).GetCompactRevision())
		r.sees(c, 2, 10, "k=v6", "k=v7", "k=v8", "k=v9", "k=v10")
		// What the window holds is served though it is compacted.
		r.world.put("k")
		r.sees(c, 2, 11, "k=v6", "k=v7", "k=v8", "k=v9", "k=v10", "k=v11")
		r.world.do(func() { r.world.compact = 11 })
		c.watch(all(3, 11))
		r.sees(c, 3, 11, "k=v11")
		// Changes that are compacted before the hub saw them end the watches that miss them, and no others.
		r.world.do(func() {
			for revision := int64(12); revision <= 15; revision++ {
				r.world.history = append(r.world.history, &feedv1.Revision{
					Revision: revision, Events: []*feedv1.Event{{Key: []byte("k"), Kv: []byte("x")}},
				})
			}
			r.world.published, r.world.compact = 15, 15
		})
		r.eventually(func() bool { return c.end(3) != nil })
		require.EqualValues(t, 15, c.end(3).GetCompactRevision())
		c.watch(all(4, 15))
		r.sees(c, 4, 15, "k=x")
	})
}

// A proxy that takes nothing delays no other, and what it gets later has no hole that it was not told of.
func TestSlowProxyDelaysNobody(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		slow, fast := newClient(r.t, r.hub, "slow"), r.client("fast")
		slow.watch(all(1, 1))
		fast.watch(all(1, 1))
		var want []string
		r.world.pad = strings.Repeat(" ", 512<<10)
		for i := range 80 {
			r.world.put("k")
			want = append(want, fmt.Sprintf("k=v%d", i+1))
			synctest.Wait()
		}
		r.sees(fast, 1, 80, want...)
		go slow.receive()
		r.eventually(func() bool { return slow.end(1) != nil })
		require.Equal(t, "overflow", slow.end(1).GetReason())
		got, _, position := slow.at(1)
		require.Equal(t, want[:position], got)
		require.Greater(t, len(got), 32)
		slow.watch(all(2, position+1))
		r.sees(slow, 2, 80, want[position:]...)
	})
}

func TestStoppingAsksProxiesToLeave(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 1))
		r.sees(c, 1, 0)
		r.stop()
		r.eventually(c.left)
		require.True(t, r.world.announcement("hub1").GetDraining())
	})
}

// A proxy hears of its hub though there is nothing to tell, so that it can leave one that has gone silent; one that takes
// nothing is not told more and more.
func TestIdleProxyHearsOfItsHub(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		c := newClient(r.t, r.hub, "idle")
		last := time.Now()
		for range 10 {
			response, err := c.stream.Recv()
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(last), 3*time.Second)
			last = time.Now()
			c.mu.Lock()
			c.take(response)
			mark := c.taken
			c.mu.Unlock()
			require.NoError(t, c.stream.Send(&watchv1.HubRequest{Taken: mark}))
		}
		c.watch(all(1, 1))
		r.world.put("k")
		go c.receive()
		r.sees(c, 1, 1, "k=v1")
	})
}

// While somebody watches, nodes hear it: at once, and each second.
func TestNodesHearThatSomebodyWatches(t *testing.T) {
	inBubble(t, true, nil, func(r *rig) {
		var words atomic.Int64
		subject := fmt.Sprintf("holdfast.%016x.watched", uint64(clusterID))
		subscription, err := r.memory.Connect().Subscribe(subject, func(bus.Message) { words.Add(1) }, func(bus.Cause) {})
		require.NoError(r.t, err)
		defer func() { require.NoError(r.t, subscription.Unsubscribe()) }()
		c := r.client("proxy1")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Zero(r.t, words.Load())
		c.watch(all(1, 1))
		synctest.Wait()
		require.EqualValues(r.t, 1, words.Load())
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.InDelta(r.t, 5, words.Load()-1, 1) // they are said at ticks
		c.unwatch(1)
		synctest.Wait()
		before := words.Load()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Equal(r.t, before, words.Load())
	})
}
