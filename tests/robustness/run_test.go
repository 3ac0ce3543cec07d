package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"

	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	// recoverTimeout bounds how long writes and watches may stand still once a fault is over, or while one is that they
	// are to survive: an election, the time in which connections are found broken, and a slow machine.
	recoverTimeout = 30 * time.Second
	pollPause      = 20 * time.Millisecond
	opPause        = 15 * time.Millisecond
	// keptTTL is more than any fault and the recovery from it take.
	keptTTL = 45 * time.Second
	// goneTimeout is how long a lease that nobody keeps may live on when nothing fails any more: a takeover by another
	// lease-service, its TTL and a little.
	goneTimeout = workload.LeaseTTLMax + 20*time.Second
	// checkTimeout bounds the search for an order of all operations.
	checkTimeout = 2 * time.Minute
)

// run is a system with its clients.
type run struct {
	*system
	*workload.Workload
	client    *clientv3.Client // over all client URLs, for what the test itself asks
	reference []*history.Watch // over clientv3, of everything, from the first revision on
	// throughOne are those of them that use one client URL alone, by the process behind it.
	throughOne map[string][]*history.Watch

	writers, readers sync.WaitGroup
	troubles         []trouble // in their order

	mu   sync.Mutex
	ends []streamEnd
	gaps []string // what failovers cost
}

// streamEnd is the end of a bare watch stream.
type streamEnd struct {
	at      time.Duration
	through string // the process behind the client URL
	err     error
}

func startRun(t *testing.T, s *system, seed uint64) *run {
	t.Helper()
	return &run{system: s, Workload: workload.New(seed), client: s.Client(t), throughOne: map[string][]*history.Watch{}}
}

// dial is a client with a name of its own; through one URL alone its connections are told apart.
func (r *run) dial(t *testing.T, name string, endpoints ...string) workload.Client {
	t.Helper()
	c := workload.Client{Name: name}
	// Who was away for long is found again soon.
	options := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second}, MinConnectTimeout: 5 * time.Second,
	})}
	if len(endpoints) == 1 {
		c.Conns = &workload.Connections{}
		options = append(options, grpc.WithStatsHandler(c.Conns))
	}
	c.Client = r.ClientWith(t, options, endpoints...)
	return c
}

// watchers watch everything through each client URL, with and without clientv3 in between, and through all of them.
func (r *run) watchers(ctx context.Context, t *testing.T) {
	t.Helper()
	const progress = 100 * time.Millisecond
	for _, endpoint := range r.Endpoints() {
		through := r.serving[endpoint]
		c, h := r.dial(t, "watch-"+through, endpoint), workload.Everything("watcher through "+through, true)
		r.reference = append(r.reference, h)
		r.throughOne[through] = append(r.throughOne[through], h)
		r.readers.Go(func() { r.Watch(ctx, c, h, progress) })
		bare := r.dial(t, "bare-"+through, endpoint)
		r.readers.Go(func() {
			r.Bare(ctx, bare, len(through)%2 == 0, func(err error) { r.streamEnded(through, err) })
		})
	}
	c, h := r.dial(t, "watch-all", r.Endpoints()...), workload.Everything("watcher through all", false)
	r.reference = append(r.reference, h)
	r.readers.Go(func() { r.Watch(ctx, c, h, 0) })
	for i := range 2 {
		past := r.dial(t, fmt.Sprintf("past%d", i), r.Endpoints()...)
		r.readers.Go(func() { r.Past(ctx, past) })
	}
	r.readers.Go(func() { r.hash(ctx) })
}

func (r *run) streamEnded(through string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, streamEnd{r.Now(), through, err})
}

// others write, read, hold leases and compact.
func (r *run) clients(ctx context.Context, t *testing.T) {
	t.Helper()
	for i, endpoint := range r.Endpoints() {
		c := r.dial(t, fmt.Sprintf("one%d", i), endpoint)
		r.writers.Go(func() { r.KV(ctx, c, opPause) })
	}
	for i := range 3 {
		c := r.dial(t, fmt.Sprintf("all%d", i), r.Endpoints()...)
		r.writers.Go(func() { r.KV(ctx, c, opPause) })
	}
	for i := range 4 {
		c := r.dial(t, fmt.Sprintf("lease%d", i), r.Endpoints()[i%len(r.Endpoints()):]...)
		r.writers.Go(func() { r.HoldLeases(ctx, c) })
	}
	c := r.dial(t, "compactor", r.Endpoints()...)
	const compactEvery = 2 * time.Second
	r.writers.Go(func() { r.Compact(ctx, c, compactEvery, r.reference) })
}

// keep holds leases that must live to the end.
func (r *run) keep(ctx context.Context, t *testing.T) {
	t.Helper()
	for i := range 3 {
		c := r.dial(t, fmt.Sprintf("keep%d", i), r.Endpoints()...)
		wait, err := r.Keep(ctx, c, keptTTL)
		require.NoError(t, err)
		r.readers.Go(wait)
	}
}

// hash asks each node now and then for the hash of the same revision.
func (r *run) hash(ctx context.Context) {
	const every = time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		r.hashAt(ctx, r.Newest())
	}
}

// hashAt records what the nodes say, and how many did.
func (r *run) hashAt(ctx context.Context, revision int64) (said int) {
	for _, n := range r.present() {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		h, err := n.hash(bounded, revision)
		cancel()
		if err == nil {
			said++
			r.AddHash(history.Hash{Node: n.name, Revision: revision, Compact: h.CompactRevision, Hash: h.Hash})
		}
	}
	return said
}

// progress waits until further writes were acknowledged, and seen by the watchers whose process runs.
func (r *run) progress(t *testing.T, when string, without ...string) {
	t.Helper()
	const more = 20
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	start, changed := r.Acknowledged()
	for now := start; now < start+more; now, changed = r.Acknowledged() {
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(t, "writes stand still", "%s: %d acknowledged in %v", when, now-start, recoverTimeout)
		}
	}
	head := r.Newest()
	for through, watches := range r.throughOne {
		if slices.Contains(without, through) {
			continue
		}
		for _, h := range watches {
			r.caughtUp(ctx, t, h, head, when)
		}
	}
}

// caughtUp waits until the watch has delivered all up to the revision.
func (r *run) caughtUp(ctx context.Context, t *testing.T, h *history.Watch, revision int64, when string) {
	t.Helper()
	for {
		seen, changed := h.Seen()
		require.NoError(t, h.Ended(), "%s: %s", h.Name, when)
		if seen >= revision {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			require.Fail(t, "a watch stands still", "%s, %s: it has delivered all up to %d of %d", h.Name, when, seen, revision)
		}
	}
}

// finish ends the clients, waits for what must come to an end, and checks the record.
func (r *run) finish(t *testing.T, stopWriters, stopReaders func()) {
	t.Helper()
	stopWriters()
	r.writers.Wait()
	r.leasesGone(t)
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	got, err := r.client.Get(ctx, "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	head := got.Header.Revision
	for _, h := range r.reference {
		r.caughtUp(ctx, t, h, head, "at the end")
	}
	r.agreed(t)
	for r.hashAt(ctx, head) < len(r.present()) {
		require.NoError(t, ctx.Err(), "not all nodes tell their hash at %d", head)
	}
	r.keptLive(ctx, t)
	stopReaders()
	r.readers.Wait()
	r.check(t, head, got)
}

// leasesGone waits until all leases that nobody keeps are gone.
func (r *run) leasesGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), goneTimeout)
	defer cancel()
	for {
		left, err := r.Left(ctx, r.client)
		if err == nil && len(left) == 0 {
			return
		}
		if ctx.Err() != nil {
			require.Fail(t, "leases that nobody keeps live on", "%d of them %v after the end: %v (%v)", len(left), goneTimeout, left, err)
		}
		time.Sleep(10 * pollPause)
	}
}

// keptLive asks for the leases that were kept alive.
func (r *run) keptLive(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, l := range r.Leases() {
		if !l.Kept() {
			continue
		}
		alive, err := r.Alive(ctx, r.client, l)
		require.NoError(t, err)
		if !alive {
			t.Errorf("lease %x of %v was kept alive and is gone", l.ID, l.TTL)
		}
	}
}

// check holds the record against the promises.
func (r *run) check(t *testing.T, head int64, stored *clientv3.GetResponse) {
	t.Helper()
	begun := time.Now()
	joined, violations := history.Check(r.Record, checkTimeout)
	if joined.Head() != head {
		violations = append(violations, history.Violation{Check: "end", Text: fmt.Sprintf("the watches saw %d revisions, the store has %d", joined.Head(), head)})
	} else {
		violations = append(violations, r.stored(joined, stored)...)
	}
	violations = append(violations, r.unclear()...)
	violations = append(violations, history.CheckLate(r.Leases(), r.latest)...)
	r.summary(t, time.Since(begun))
	for _, v := range violations {
		if why := knownWeakness(v); r.oracle() && why != "" {
			t.Logf("KNOWN WEAKNESS of etcd (%s): %v", why, v)
			continue
		}
		t.Errorf("VIOLATION %v", v)
	}
}

// knownWeakness is why etcd itself breaks a promise now and then; README.md has the whole story.
func knownWeakness(v history.Violation) string {
	switch {
	case v.Check == "lease":
		return "a leader that stood still answers keepalives before it hears that it leads no more"
	case v.Check == "watch" && strings.Contains(v.Text, "lacks its previous value"):
		return "events that are sent before the new watch is marked as wanting previous values go without"
	default:
		return ""
	}
}

// stored compares what the store holds at the end with what the events make.
func (r *run) stored(joined *history.Joined, got *clientv3.GetResponse) (violations []history.Violation) {
	state, _ := joined.At(joined.Head())
	want := state.Range("\x00", "\x00")
	if have := workload.Keys(got.Kvs); !slices.Equal(have, want) {
		violations = append(violations, history.Violation{Check: "end", Text: fmt.Sprintf("stored are %v, but the events make %v", have, want)})
	}
	return violations
}

// unclear are errors that tell a client nothing: neither whose fault it is nor whether to come again.
func (r *run) unclear() (violations []history.Violation) {
	if r.oracle() {
		return nil
	}
	for _, op := range r.Ops() {
		if op.Outcome != history.Done && (op.Code == codes.Unknown || op.Code == codes.Internal) && len(violations) < 5 {
			violations = append(violations, history.Violation{Check: "error", Text: op.String()})
		}
	}
	return violations
}

func (r *run) summary(t *testing.T, took time.Duration) {
	t.Helper()
	outcomes, texts := map[history.Outcome]int{}, map[string]int{}
	ops := r.Ops()
	for _, op := range ops {
		outcomes[op.Outcome]++
		if op.Outcome != history.Done {
			texts[op.Code.String()+": "+op.Err]++
		}
	}
	renewals := 0
	leases := r.Leases()
	for _, l := range leases {
		renewals += l.Renewals()
	}
	t.Logf("%d operations: %d done, %d refused, %d unknown; %d watches, %d leases with %d keepalives acknowledged, %d hashes; checked in %v",
		len(ops), outcomes[history.Done], outcomes[history.NotDone], outcomes[history.Unknown], len(r.Watches()), len(leases), renewals,
		len(r.Hashes()), took.Round(time.Millisecond))
	var lines []string
	for text, count := range texts {
		lines = append(lines, fmt.Sprintf("%6d %s", count, text))
	}
	slices.Sort(lines)
	t.Logf("what clients were told instead of an answer:\n%s", strings.Join(lines, "\n"))
	for _, gap := range r.gaps {
		t.Log(gap)
	}
}

// save writes the record beside the processes' output.
func (r *run) save(t *testing.T) {
	t.Helper()
	f, err := os.CreateTemp("", "holdfast-robustness-*.txt") //nolint:usetesting // it outlives the test
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, errors.Join(r.Print(f), f.Sync()))
	t.Logf("the whole record is in %s", f.Name())
}
