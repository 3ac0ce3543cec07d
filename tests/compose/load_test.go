package compose

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
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	opPause = 15 * time.Millisecond
	// recoverTimeout bounds how long writes and watches may stand still after a fault: an election, the time in which a silent
	// connection is found broken, and a slow machine.
	recoverTimeout = 45 * time.Second
	keptTTL        = 60 * time.Second
	goneTimeout    = workload.LeaseTTLMax + 30*time.Second
	checkTimeout   = 2 * time.Minute
)

// load is clients that write, read, watch and hold leases, all through the load balancer.
type load struct {
	*workload.Workload
	address          string
	client           *clientv3.Client
	watches          []*history.Watch
	writers, readers sync.WaitGroup
	stopWriters      context.CancelFunc
	stopReaders      context.CancelFunc
}

func startLoad(t *testing.T, address string, seed uint64) *load {
	t.Helper()
	l := &load{Workload: workload.New(seed), address: address}
	l.client = l.dial(t, "test").Client
	reading, stopReaders := context.WithCancel(t.Context())
	writing, stopWriters := context.WithCancel(reading)
	l.stopReaders, l.stopWriters = stopReaders, stopWriters
	for i := range 3 {
		c, h := l.dial(t, fmt.Sprintf("watch%d", i)), workload.Everything(fmt.Sprintf("watcher %d", i), i == 0)
		l.watches = append(l.watches, h)
		progress := time.Duration(i%2) * 500 * time.Millisecond
		l.readers.Go(func() { l.Watch(reading, c, h, progress) })
	}
	for i := range 2 {
		wait, err := l.Keep(reading, l.dial(t, fmt.Sprintf("keep%d", i)), keptTTL)
		require.NoError(t, err)
		l.readers.Go(wait)
	}
	for i := range 4 {
		c := l.dial(t, fmt.Sprintf("kv%d", i))
		l.writers.Go(func() { l.KV(writing, c, opPause) })
	}
	for i := range 3 {
		c := l.dial(t, fmt.Sprintf("lease%d", i))
		l.writers.Go(func() { l.HoldLeases(writing, c) })
	}
	return l
}

// dial is a client with one connection, to the load balancer.
func (l *load) dial(t *testing.T, name string) workload.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{l.address}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		})},
		// The balancer may be cut off without a word, too.
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return workload.Client{Client: client, Name: name}
}

// progress waits until further writes were acknowledged and every watch has delivered them.
func (l *load) progress(t *testing.T, when string) {
	t.Helper()
	const more = 20
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	start, changed := l.Acknowledged()
	for now := start; now < start+more; now, changed = l.Acknowledged() {
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(t, "writes stand still", "%s: %d acknowledged in %v", when, now-start, recoverTimeout)
		}
	}
	l.caughtUp(ctx, t, l.Newest(), when)
}

// caughtUp waits until every watch has delivered all up to the revision.
func (l *load) caughtUp(ctx context.Context, t *testing.T, revision int64, when string) {
	t.Helper()
	for _, h := range l.watches {
		for {
			seen, changed := h.Seen()
			require.NoError(t, h.Ended(), "%s: %s", h.Name, when)
			if seen >= revision {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				require.Fail(t, "a watch stands still", "%s, %s: it has delivered all up to %d of %d", h.Name, when, seen, revision)
			}
		}
	}
}

// unknown counts the operations whose outcome their clients do not know.
func (l *load) unknown() (n int) {
	for _, op := range l.Ops() {
		if op.Outcome == history.Unknown {
			n++
		}
	}
	return n
}

// finish ends the clients and holds what they were told against the promises.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.stopWriters()
	l.writers.Wait()
	l.leasesGone(t)
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	stored, err := l.client.Get(ctx, "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	l.caughtUp(ctx, t, stored.Header.Revision, "at the end")
	for _, lease := range l.Leases() {
		if lease.Kept() {
			alive, err := l.Alive(ctx, l.client, lease)
			require.NoError(t, err)
			require.True(t, alive, "lease %x was kept alive and is gone", lease.ID)
		}
	}
	l.stopReaders()
	l.readers.Wait()
	joined, violations := history.Check(l.Record, checkTimeout)
	require.Equal(t, stored.Header.Revision, joined.Head(), "the watches saw every revision that the store has")
	state, _ := joined.At(joined.Head())
	require.Equal(t, state.Range("\x00", "\x00"), workload.Keys(stored.Kvs), "the store holds what the events make")
	for _, v := range violations {
		t.Errorf("VIOLATION %v", v)
	}
	l.summary(t)
}

// leasesGone waits until no lease is left that nobody keeps.
func (l *load) leasesGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), goneTimeout)
	defer cancel()
	for {
		left, err := l.Left(ctx, l.client)
		if err == nil && len(left) == 0 {
			return
		}
		require.NoError(t, ctx.Err(), "leases that nobody keeps live on: %d, %v", len(left), err)
		time.Sleep(pollPause)
	}
}

func (l *load) summary(t *testing.T) {
	t.Helper()
	outcomes, texts, renewals := map[history.Outcome]int{}, map[string]int{}, 0
	ops := l.Ops()
	for _, op := range ops {
		outcomes[op.Outcome]++
		if op.Outcome != history.Done {
			texts[op.Code.String()+": "+op.Err]++
		}
	}
	for _, lease := range l.Leases() {
		renewals += lease.Renewals()
	}
	t.Logf("%d operations: %d done, %d refused, %d unknown; %d revisions; %d leases with %d keepalives acknowledged", len(ops),
		outcomes[history.Done], outcomes[history.NotDone], outcomes[history.Unknown], l.Newest(), len(l.Leases()), renewals)
	var lines []string
	for text, count := range texts {
		lines = append(lines, fmt.Sprintf("%6d %s", count, text))
	}
	slices.Sort(lines)
	t.Logf("what clients were told instead of an answer:\n%s", strings.Join(lines, "\n"))
}
