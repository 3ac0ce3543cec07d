package compose

import (
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/history"
)

//nolint:gochecknoglobals // flags
var (
	composeFlag = flag.Bool("compose", false, "run the system of docker-compose.yml; needs a Docker engine and the images")
	jaegerFlag  = flag.Bool("jaeger", true, "ask Jaeger for traces; without it everything else is checked")
	seedFlag    = flag.Uint64("seed", 0, "the chance of the clients (0: another one each time)")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !*composeFlag {
		fmt.Println("the system of docker-compose.yml runs with -compose alone: make test-compose")
		return
	}
	os.Exit(m.Run())
}

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s = rand.Uint64()
	}
	if text := os.Getenv("HOLDFAST_SEED"); text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d", s)
	return s
}

// TestWholeSystem is one run of everything: the start, the proxies scaled, each service killed and cut off in turn, all under one load,
// and then requests that are found in Jaeger.
func TestWholeSystem(t *testing.T) {
	e := newEngine(t)
	defer e.down(t)
	begun := time.Now()
	e.up(t, usual())
	for _, service := range []string{"haproxy", "jaeger", "nats"} {
		if service == "jaeger" && !*jaegerFlag {
			continue
		}
		e.healthy(t, e.containers(t, service)[0])
	}
	t.Logf("everything is up and healthy after %v, clients at %s", time.Since(begun).Round(time.Second), e.address("HOLDFAST_CLIENT_PORT"))

	l := startLoad(t, e.address("HOLDFAST_CLIENT_PORT"), seed(t))
	defer l.stopReaders()
	l.progress(t, "at the start")
	e.spread(t, 3)
	e.scale(t, l)
	e.changesAreSentOnce(t, l)
	for _, fault := range []struct {
		name string
		do   func(t *testing.T, service, container string) (mend func())
	}{{"killed", e.kill}, {"cut off", e.cut}} {
		for _, service := range []string{"proxy", "watch-hub", "lease-service", "nats", "jaeger", "leader", "follower", "haproxy"} {
			e.without(t, l, service, fault.name, fault.do)
		}
	}
	l.finish(t)
	if *jaegerFlag { // last: the record holds all writes that there are
		e.requestsAreFound(t)
	}
}

// requestsAreFound finds each kind of request in Jaeger, across the services that it went through.
func (e *engine) requestsAreFound(t *testing.T) {
	t.Helper()
	client := (&load{address: e.address("HOLDFAST_CLIENT_PORT")}).dial(t, "traced")
	leaveTraces(t, client.Client)
	e.traced(t, "proxy", "etcdserverpb.KV/Put", "proxy", "consensus-node", "watch-hub")
	e.traced(t, "proxy", "etcdserverpb.KV/Range", "proxy", "consensus-node")
	e.traced(t, "proxy", "etcdserverpb.Lease/LeaseKeepAlive", "proxy", "lease-service")
	e.traced(t, "lease-service", "expire leases", "proxy", "consensus-node", "watch-hub", "lease-service")
}

// without takes one container of the service away, sees that everything goes on, and gives it back. Without the balancer nothing can.
func (e *engine) without(
	t *testing.T, l *load, service, how string, do func(t *testing.T, service, container string) (mend func()),
) {
	t.Helper()
	switch service {
	case "leader", "follower":
		service = e.member(t, l.client, service == "leader")
	case "jaeger":
		if !*jaegerFlag {
			return
		}
	}
	container, begun := e.containers(t, service)[0], time.Now()
	mend := do(t, service, container)
	if service != "haproxy" {
		l.progress(t, service+" "+how)
	}
	gone := time.Since(begun)
	mend()
	l.progress(t, service+" is back, having been "+how)
	e.healthy(t, container)
	t.Logf("%s %s: writes and watches went on within %v, and all was back after %v", service, how,
		gone.Round(10*time.Millisecond), time.Since(begun).Round(10*time.Millisecond))
}

// member is the name of the member that leads, or of one that does not; members are named for their services.
func (e *engine) member(t *testing.T, client *clientv3.Client, leads bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	status, err := client.Status(ctx, client.Endpoints()[0])
	require.NoError(t, err)
	members, err := client.MemberList(ctx)
	require.NoError(t, err)
	for _, m := range members.Members {
		if (m.ID == status.Leader) == leads {
			return m.Name
		}
	}
	require.Fail(t, "no such member", "leads %v of %v", leads, members.Members)
	return ""
}

// scale changes the number of proxies under load: more of them get calls, and fewer of them cost nobody one.
func (e *engine) scale(t *testing.T, l *load) {
	t.Helper()
	replicas := usual()
	replicas["proxy"] = 5
	e.up(t, replicas)
	l.progress(t, "with two more proxies")
	e.spread(t, 5)
	before := l.unknown()
	replicas["proxy"] = 2
	e.up(t, replicas)
	l.progress(t, "with two proxies")
	require.Len(t, e.containers(t, "proxy"), 2)
	require.Equal(t, before, l.unknown(), "calls whose outcome was lost while proxies drained")
	replicas["proxy"] = 3
	e.up(t, replicas)
	l.progress(t, "with three proxies again")
}

// changesAreSentOnce takes a proxy away that has passed changes on and has no answers for them yet. Whoever sent them is told that their
// outcome is not known; neither the balancer nor the client's own gRPC may send them again.
func (e *engine) changesAreSentOnce(t *testing.T, l *load) {
	t.Helper()
	const changes = 60
	leader := e.member(t, l.client, true)
	pause, unpause := []string{"docker", "pause"}, []string{"docker", "unpause"}
	for _, m := range []string{"consensus-1", "consensus-2", "consensus-3"} {
		if m != leader {
			pause, unpause = append(pause, e.containers(t, m)...), append(unpause, e.containers(t, m)...)
		}
	}
	c, proxy := l.dial(t, "once"), e.containers(t, "proxy")[0]

	// Without its followers the leader takes changes into its log and can answer none.
	e.must(t, pause...)
	var calls sync.WaitGroup
	var unknown atomic.Int64
	for i := range changes {
		put := history.Action{Kind: history.Put, Key: fmt.Sprintf("once/%d", i), Value: fmt.Sprintf("once-%d", i)}
		calls.Go(func() {
			if op := l.Do(t.Context(), c, history.Request{Then: []history.Action{put}}); op.Outcome == history.Unknown {
				unknown.Add(1)
			}
		})
	}
	e.sent(t, changes)
	e.must(t, "docker", "kill", proxy)
	e.must(t, unpause...)
	calls.Wait()
	e.must(t, "docker", "start", proxy)
	l.progress(t, "after a proxy died with changes under way")
	e.healthy(t, proxy)

	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	stored, err := c.Get(ctx, "once/", clientv3.WithPrefix())
	require.NoError(t, err)
	for _, kv := range stored.Kvs {
		require.EqualValues(t, 1, kv.Version, "%s was put more than once", kv.Key)
	}
	require.Positive(t, unknown.Load(), "the proxy died without a change")
	t.Logf("a proxy died: of %d changes the outcome of %d was not known, and %d were carried out, each once", changes, unknown.Load(), len(stored.Kvs))
}

// sent waits until so many calls are under way to proxies.
func (e *engine) sent(t *testing.T, changes int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	for {
		under := 0
		for _, row := range e.servers(ctx, t) {
			if row.backend == "proxies-changes" {
				under += row.current
			}
		}
		if under >= changes {
			return
		}
		require.NoError(t, ctx.Err(), "%d of %d changes are under way", under, changes)
		time.Sleep(pollPause / 10)
	}
}

// spread waits until the balancer has sent calls to so many proxies.
func (e *engine) spread(t *testing.T, proxies int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	for {
		calls := e.calls(ctx, t)
		busy := 0
		for _, n := range calls {
			if n > 0 {
				busy++
			}
		}
		if busy >= proxies {
			t.Logf("calls since the start of the balancer, by proxy: %v", calls)
			return
		}
		require.NoError(t, ctx.Err(), "%d of %d proxies get calls: %v", busy, proxies, calls)
		time.Sleep(pollPause)
	}
}

// calls are how many each proxy that is up was sent.
func (e *engine) calls(ctx context.Context, t *testing.T) map[string]int {
	t.Helper()
	calls := map[string]int{}
	for _, s := range e.servers(ctx, t) {
		calls[s.name] += s.total
	}
	return calls
}

// server is a proxy that is up as one of the balancer's backends has it: calls under way, and all since the balancer's start.
type server struct {
	backend, name  string
	current, total int
}

// servers is what the balancer itself counts.
func (e *engine) servers(ctx context.Context, t *testing.T) (all []server) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.address("HOLDFAST_BALANCER_PORT")+"/;csv", http.NoBody)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	rows, err := csv.NewReader(response.Body).ReadAll()
	require.NoError(t, err)
	column := map[string]int{}
	for i, name := range rows[0] {
		column[strings.TrimPrefix(name, "# ")] = i
	}
	for _, row := range rows[1:] {
		if !strings.HasPrefix(row[column["pxname"]], "proxies") || row[column["svname"]] == "BACKEND" || row[column["status"]] != "UP" {
			continue
		}
		current, err := strconv.Atoi(row[column["scur"]])
		require.NoError(t, err)
		total, err := strconv.Atoi(row[column["stot"]])
		require.NoError(t, err)
		all = append(all, server{backend: row[column["pxname"]], name: row[column["svname"]], current: current, total: total})
	}
	return all
}
