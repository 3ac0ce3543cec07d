package robustness

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"github.com/holdfastdb/holdfast/tests/framework"
	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/relay"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	// removal is how long the owner of a lease may acknowledge keepalives that nobody hears of any more.
	removal = 2 * time.Second
	// lateQuiet is how long a lease may live on while nothing fails, and lateTrouble beyond its TTL and the removal time after something did;
	// lateSeen is what a busy machine may take to show it.
	lateQuiet   = 2 * time.Second
	lateTrouble = 5 * time.Second
	lateSeen    = 2 * time.Second

	never = time.Duration(math.MaxInt64)
)

// trouble is the time of one fault.
type trouble struct{ from, until time.Duration }

// latest is when a lease must have been seen to be gone, by the promise that it lives on for two seconds at most while nothing fails, and for
// its TTL, the removal time and five seconds after the last fault.
func (r *run) latest(ttl, renewed, gone time.Duration) time.Duration {
	by := renewed + ttl + lateQuiet
	for _, tr := range append([]trouble{{until: startGrace}}, r.troubles...) {
		if tr.from <= gone && tr.until != never && tr.until+2*ttl+removal+lateTrouble > renewed {
			by = max(by, max(renewed, tr.until)+ttl+removal+lateTrouble)
		}
		if tr.from <= gone && tr.until >= gone {
			return never
		}
	}
	return by + lateSeen
}

// startGrace is when the owners have found each other.
const startGrace = 5 * time.Second

// TestLeases lets go wrong what the owners of leases stand on, again and again, for longer than the removal time.
func TestLeases(t *testing.T) {
	for kind := range strings.SplitSeq(*systemFlag, ",") {
		t.Run(kind, func(t *testing.T) {
			withClients(t, kind, func(r *run, rng *rand.Rand) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for i := range 8 {
					c := r.dial(t, fmt.Sprintf("more%d", i), r.Endpoints()[i%len(r.Endpoints()):]...)
					r.writers.Go(func() { r.HoldLeases(ctx, c) })
				}
				// A while in which nothing fails comes first.
				r.last(t, 8*time.Second)
				r.happenEach(t, rng, leaseFaults(r.system), *durationFlag/4)
				cancel()
			})
		})
	}
}

// TestLocks has programs lock with clientv3's concurrency package while the same goes wrong: no two hold a lock at once.
func TestLocks(t *testing.T) {
	for kind := range strings.SplitSeq(*systemFlag, ",") {
		t.Run(kind, func(t *testing.T) {
			s := seed(t)
			r := startRun(t, startSystem(t, kind), s)
			ctx, cancel := context.WithCancel(t.Context())
			defer r.writers.Wait()
			defer cancel()
			var mu sync.Mutex
			var holds []history.Hold
			for i := range 9 {
				c := r.dial(t, fmt.Sprintf("locker%d", i), r.Endpoints()[i%len(r.Endpoints()):]...)
				r.writers.Go(func() {
					r.Locks(ctx, c, 3, func(h history.Hold) {
						mu.Lock()
						defer mu.Unlock()
						holds = append(holds, h)
					})
				})
			}
			// One for each endpoint: while a node is cut off, calls to it only run out of time.
			for i, endpoint := range r.Endpoints() {
				writer := r.dial(t, fmt.Sprintf("writer%d", i), endpoint)
				r.writers.Go(func() { r.KV(ctx, writer, opPause) })
			}
			r.happenEach(t, rand.New(rand.NewPCG(s, 0)), leaseFaults(r.system), *durationFlag/4)
			cancel()
			r.writers.Wait()
			t.Logf("%d times a lock was held", len(holds))
			require.NotEmpty(t, holds)
			for _, v := range history.CheckLocks(holds) {
				if why := knownWeakness(history.Violation{Check: "lease"}); r.oracle() {
					t.Logf("KNOWN WEAKNESS of etcd (%s): %v", why, v)
					continue
				}
				t.Errorf("VIOLATION %v", v)
			}
		})
	}
}

// owners are the processes that own leases.
func (s *system) owners() []string {
	if s.standalone() {
		return s.names()
	}
	return []string{"lease1", "lease2"}
}

// leaseFaults are those of what the owners of leases stand on, as far as a system can have them.
func leaseFaults(s *system) (out []fault) {
	for _, f := range []fault{
		{"pause-owner", nil, pauseOwner},
		{"pause-both-owners", split, pauseBothOwners},
		{"pause-leader", nil, pauseLeader},
		{"kill-owner", nil, func(t *testing.T, r *run, rng *rand.Rand) { r.away(t, rng, true, pick(rng, r.owners())) }},
		{"kill-both-owners", split, killBothOwners},
		{"cut-owner-from-nodes", splitCuts, func(t *testing.T, r *run, rng *rand.Rand) { r.cutOwner(t, rng, r.names()...) }},
		{"cut-owner-from-proxies", splitCuts, func(t *testing.T, r *run, rng *rand.Rand) { r.cutOwner(t, rng, "proxy1", "proxy2") }},
		{"cut-owner-from-proxy", splitCuts, func(t *testing.T, r *run, rng *rand.Rand) {
			r.cutOwner(t, rng, pick(rng, []string{"proxy1", "proxy2"}))
		}},
		{"cut-owner-from-bus", splitCuts, func(t *testing.T, r *run, rng *rand.Rand) { r.cutOwner(t, rng, "nats") }},
		{"deaf-owner", splitCuts, deafOwner},
		{"isolate-leader", cuts, isolateLeader},
		{"kill-leader-pause-owner", split, killLeaderPauseOwner},
	} {
		if f.on == nil || f.on(s) {
			out = append(out, f)
		}
	}
	return out
}

// longer is more than the removal time, and often more than the TTL of a lease as well.
func longer(rng *rand.Rand) time.Duration {
	return duration(rng, removal+500*time.Millisecond, 3*removal)
}

// standStill stops processes for longer than the removal time.
func (r *run) standStill(t *testing.T, rng *rand.Rand, names ...string) {
	t.Helper()
	d := longer(rng)
	t.Logf("  %v stand still for %v", names, d.Round(time.Millisecond))
	for _, name := range names {
		r.Kill(t, name, syscall.SIGSTOP)
		defer r.Kill(t, name, syscall.SIGCONT)
	}
	r.last(t, d)
}

func pauseOwner(t *testing.T, r *run, rng *rand.Rand) { r.standStill(t, rng, pick(rng, r.owners())) }

func pauseBothOwners(t *testing.T, r *run, rng *rand.Rand) { r.standStill(t, rng, r.owners()...) }

func killLeaderPauseOwner(t *testing.T, r *run, rng *rand.Rand) {
	leader := r.leader(t).name
	t.Logf("  kill -9 of %s", leader)
	r.Kill(t, leader, syscall.SIGKILL)
	r.standStill(t, rng, pick(rng, r.owners()))
	r.StartAll(t, leader)
}

// cutOwner cuts an owner off from others. Writes and watches go on.
func (r *run) cutOwner(t *testing.T, rng *rand.Rand, from ...string) {
	t.Helper()
	name := pick(rng, r.owners())
	mode := pick(rng, []relay.Mode{relay.Held, relay.Refused})
	d := longer(rng)
	links := between([]string{name}, from)
	t.Logf("  mode %d for %v: %v", mode, d.Round(time.Millisecond), links)
	defer r.network.Mend()
	r.network.Set(mode, links...)
	r.progress(t, "while it is cut", name)
	r.last(t, d)
}

// deafOwner lets an owner speak to the nodes and hear nothing back.
func deafOwner(t *testing.T, r *run, rng *rand.Rand) {
	name := pick(rng, r.owners())
	t.Logf("  %s", name)
	defer r.network.Mend()
	r.network.Set(relay.Held, oneWay(r.names(), []string{name})...)
	r.last(t, longer(rng))
}

// killBothOwners sees that without any owner grants and revokes go on, and that keepalive streams end with Unavailable and are answered again
// when one is back.
func killBothOwners(t *testing.T, r *run, _ *rand.Rand) {
	names := r.owners()
	leases := pb.NewLeaseClient(framework.Dial(t, framework.HostPort(t, r.Endpoints()[0])))
	ctx, cancel := context.WithTimeout(t.Context(), 3*recoverTimeout)
	defer cancel()
	for _, name := range names {
		r.Kill(t, name, syscall.SIGKILL)
	}
	granted, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	require.NoError(t, err, "a grant without an owner")
	require.Eventually(t, func() bool { return workload.Code(keepAliveOnce(ctx, leases, granted.ID)) == codes.Unavailable },
		recoverTimeout, pollPause, "a keepalive stream ends with Unavailable")
	for range 2 {
		other, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
		require.NoError(t, err, "a grant without an owner")
		_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: other.ID})
		require.NoError(t, err, "a revoke without an owner")
	}
	r.StartAll(t, names[0])
	require.Eventually(t, func() bool { return keepAliveOnce(ctx, leases, granted.ID) == nil }, recoverTimeout, pollPause, "answered again")
	_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: granted.ID})
	require.NoError(t, err)
	r.StartAll(t, names[1])
}

// keepAliveOnce renews a lease on a stream of its own.
func keepAliveOnce(ctx context.Context, leases pb.LeaseClient, id int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := leases.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		_, err = stream.Recv()
		return err
	}
	answer, err := stream.Recv()
	if err == nil && answer.TTL <= 0 {
		return fmt.Errorf("lease %x is gone", id)
	}
	return err
}
