package fault

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

var (
	durationFlag = flag.Duration("duration", 0, "how long processes are killed; each is killed once in any case")
	seedFlag     = flag.Uint64("seed", 0, "seed of the order of the kills; 0 takes HOLDFAST_SEED or a new one")
	onlyFlag     = flag.String("only", "", "kill these processes alone, for example hub1,proxy2")
)

func TestMain(m *testing.M) { os.Exit(framework.Main(m, framework.SplitPrograms()...)) }

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if text := os.Getenv("HOLDFAST_SEED"); s == 0 && text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed=%d)", s, s)
	return s
}

// run is the workload at work.
type run struct {
	*framework.Cluster
	client       *clientv3.Client // over both proxies
	acknowledged acknowledgements
	histories    []*history
	kept         leases
	abandoned    leases

	mu   sync.Mutex
	lost []string // leases that were kept alive and went
}

func TestKills(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	c := framework.Split(t, framework.Options{})
	r := &run{Cluster: c, client: c.Client(t)}
	first, err := r.client.Put(t.Context(), "first", "first")
	require.NoError(t, err)

	ctx, stopAll := context.WithCancel(t.Context())
	writing, stopWriting := context.WithCancel(ctx)
	var writers, others sync.WaitGroup
	defer func() {
		stopAll()
		writers.Wait()
		others.Wait()
	}()
	r.watchers(ctx, t, &others, first.Header.Revision)
	r.leases(ctx, t, &others)
	const writerCount = 4
	for i := range writerCount {
		client := c.Client(t)
		writers.Go(func() { write(writing, client, i, &r.acknowledged) })
	}
	r.kills(ctx, t, rng)
	r.progress(ctx, t, "at the end")
	stopWriting()
	writers.Wait()
	r.check(ctx, t, first.Header.Revision)
}

// watchers watch everything, two through each proxy.
func (r *run) watchers(ctx context.Context, t *testing.T, wg *sync.WaitGroup, from int64) {
	t.Helper()
	for i, endpoint := range r.Endpoints() {
		for n := range 2 {
			h := newHistory(fmt.Sprintf("watcher %d through proxy%d", n+1, i+1))
			client := r.ClientAt(t, endpoint)
			r.histories = append(r.histories, h)
			wg.Go(func() { watch(ctx, client, from, h) })
		}
	}
}

// leases grants leases that are kept alive from now on.
func (r *run) leases(ctx context.Context, t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	const count = 6
	for i := range count {
		id, err := r.kept.grant(ctx, r.client, fmt.Sprintf("kept/%d", i), keptTTLS)
		require.NoError(t, err)
		client := r.client
		if i >= count/2 {
			client = r.ClientAt(t, r.Endpoints()[i%2])
		}
		wg.Go(func() {
			keep(ctx, client, id, func(text string) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.lost = append(r.lost, text)
			})
		})
	}
}

// kills kills each process once in an order of chance, and goes on for as long as asked.
func (r *run) kills(ctx context.Context, t *testing.T, rng *rand.Rand) {
	t.Helper()
	names := r.Processes()
	if *onlyFlag != "" {
		names = strings.Split(*onlyFlag, ",")
	}
	kills := 0
	for begun := time.Now(); kills == 0 || time.Since(begun) < *durationFlag; {
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			r.progress(ctx, t, "before the kill of "+name)
			_, err := r.abandoned.grant(ctx, r.client, fmt.Sprintf("abandoned/%d", kills), abandonedTTLS)
			require.NoError(t, err)
			at := time.Now()
			r.Kill(t, name, syscall.SIGKILL) //nolint:contextcheck // the test bounds it
			// The others must go on without it before it comes back.
			r.progress(ctx, t, "without "+name)
			without := time.Since(at)
			for time.Since(at) < downFor(name) {
				r.progress(ctx, t, "without "+name)
			}
			r.Start(t, name) //nolint:contextcheck // the test bounds it
			kills++
			t.Logf("%s killed; writes and watches went on after %v; it was back after %v", name, without.Round(time.Millisecond), time.Since(at).Round(time.Millisecond))
		}
	}
}

// downFor is how long a process stays away at least. Leases move to another lease-service only after the time in which
// theirs might still come back.
func downFor(name string) time.Duration {
	if strings.HasPrefix(name, "lease") {
		return 8 * time.Second
	}
	return 1500 * time.Millisecond
}

// progressTimeout bounds how long writes may stand still after one process was killed: an election, and the time in which
// clients find another proxy.
const progressTimeout = 20 * time.Second

// progress waits until further writes have been acknowledged, and seen by the watchers whose proxy runs.
func (r *run) progress(ctx context.Context, t *testing.T, when string) {
	t.Helper()
	const more = 20
	ctx, cancel := context.WithTimeout(ctx, progressTimeout)
	defer cancel()
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	start, _ := r.acknowledged.count()
	for {
		now, _ := r.acknowledged.count()
		if now >= start+more {
			break
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.Fail(t, "writes stand still", "%s: %d acknowledged", when, now-start)
		}
	}
	head := r.newest()
	for _, h := range r.histories {
		if !r.proxyRuns(h) {
			continue
		}
		r.caughtUp(ctx, t, h, head, when)
	}
}

func (r *run) newest() int64 {
	r.acknowledged.mu.Lock()
	defer r.acknowledged.mu.Unlock()
	newest := int64(0)
	for _, c := range r.acknowledged.writes {
		newest = max(newest, c.Revision)
	}
	return newest
}

// proxyRuns tells whether the proxy that a watcher uses runs.
func (r *run) proxyRuns(h *history) bool {
	return slices.ContainsFunc(r.Running(), func(name string) bool { return strings.HasSuffix(h.name, name) })
}

// caughtUp waits until the watcher has seen the revision.
func (r *run) caughtUp(ctx context.Context, t *testing.T, h *history, revision int64, when string) {
	t.Helper()
	for {
		last, changed, ended := h.last()
		require.NoError(t, ended, "%s: %s", h.name, when)
		if last >= revision {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(t, "a watcher stands still", "%s, %s: it has seen all up to %d of %d", h.name, when, last, revision)
		}
	}
}

// abandonedTimeout is how long the last abandoned lease may live on when its owner was killed: the takeover, its TTL and a
// little more.
const abandonedTimeout = 45 * time.Second

// check holds the record against the promises.
func (r *run) check(ctx context.Context, t *testing.T, from int64) {
	t.Helper()
	r.leasesGone(ctx, t)
	head := r.settled(ctx, t)
	acknowledged, unknown := r.acknowledged.count()
	t.Logf("%d writes acknowledged, %d unknown, %d revisions", acknowledged, unknown, head)
	for _, h := range r.histories {
		bounded, cancel := context.WithTimeout(ctx, progressTimeout)
		r.caughtUp(bounded, t, h, head, "at the end")
		cancel()
		seen := h.changes()
		assert.Empty(t, checkOrder(seen, from, head), h.name)
		assert.Empty(t, checkAcknowledged(r.acknowledged.writes, seen), h.name)
		assert.Empty(t, checkOnce(seen), h.name)
	}
	// What is stored is what the histories say.
	stored, err := r.client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(head))
	require.NoError(t, err)
	got := map[string]string{}
	for _, kv := range stored.Kvs {
		got[string(kv.Key)] = string(kv.Value)
	}
	want := final(r.histories[0].changes())
	assert.True(t, maps.Equal(want, got), "stored %v, but the history makes %v", got, want)
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Empty(t, r.lost, "leases that were kept alive")
	for key, id := range r.kept.keys {
		assert.Contains(t, got, key, "the key of lease %x, which was kept alive", id)
	}
	r.nodesAgree(ctx, t, head)
}

// leasesGone waits until all leases that nobody keeps are gone, with their keys.
func (r *run) leasesGone(ctx context.Context, t *testing.T) {
	t.Helper()
	bounded, cancel := context.WithTimeout(ctx, abandonedTimeout)
	defer cancel()
	gone := r.client.Watch(bounded, "abandoned/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	for {
		left, err := r.client.Get(bounded, "abandoned/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		require.NoError(t, err)
		if len(left.Kvs) == 0 {
			break
		}
		if _, ok := <-gone; !ok {
			require.Fail(t, "leases that nobody keeps live on", "%d keys are left, %s the first", len(left.Kvs), left.Kvs[0].Key)
		}
	}
	list, err := r.client.Leases(bounded)
	require.NoError(t, err)
	for _, l := range list.Leases {
		for key, id := range r.abandoned.keys {
			require.NotEqual(t, id, l.ID, "the lease of %s is still there", key)
		}
	}
}

// settled is the head revision once nobody writes any more.
func (r *run) settled(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	got, err := r.client.Get(ctx, "\x00")
	require.NoError(t, err)
	return got.Header.Revision
}

// nodesAgree asks each node on its own port for the hash of what it stores up to the revision.
func (r *run) nodesAgree(ctx context.Context, t *testing.T, revision int64) {
	t.Helper()
	hashes := map[string]string{}
	for _, name := range []string{"n1", "n2", "n3"} {
		maintenance := pb.NewMaintenanceClient(framework.Dial(t, fmt.Sprintf("127.0.0.1:%d", r.Ports[name].Admin)))
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			h, err := maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
			if !assert.NoError(c, err) { // it may not have applied that far
				return
			}
			hashes[name] = fmt.Sprintf("%08x at %d, compacted %d", h.Hash, h.HashRevision, h.CompactRevision)
		}, progressTimeout, 10*pause)
	}
	assert.Equal(t, hashes["n1"], hashes["n2"])
	assert.Equal(t, hashes["n1"], hashes["n3"])
}
