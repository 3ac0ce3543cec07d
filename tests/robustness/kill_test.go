package robustness

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// downShortest and downLongest bound how long a process stays away after the system was seen to go on without it.
const (
	downShortest = 200 * time.Millisecond
	downLongest  = 2500 * time.Millisecond
	// takeover is how long one lease-service stays away in addition: its leases move only after the time in which it might
	// still acknowledge keepalives.
	takeover = 6 * time.Second
)

// away kills processes, sees that the rest goes on if it must, and starts them again.
func (r *run) away(t *testing.T, rng *rand.Rand, goesOn bool, names ...string) {
	t.Helper()
	t.Logf("  kill -9 of %v", names)
	for _, name := range names {
		r.Kill(t, name, syscall.SIGKILL)
	}
	if goesOn {
		r.progress(t, fmt.Sprintf("without %v", names), names...)
	}
	d := duration(rng, downShortest, downLongest)
	if len(names) == 1 && strings.HasPrefix(names[0], "lease") {
		d += takeover
	}
	r.last(t, d)
	if goesOn {
		r.progress(t, fmt.Sprintf("still without %v", names), names...)
	}
	r.StartAll(t, names...)
}

func killNode(t *testing.T, r *run, rng *rand.Rand) { r.away(t, rng, true, pick(rng, r.names())) }

// killLeader measures what a failover costs too.
func killLeader(t *testing.T, r *run, rng *rand.Rand) {
	name := r.leader(t).name
	at := r.Now()
	r.away(t, rng, true, name)
	r.gaps = append(r.gaps, fmt.Sprintf("failover: kill -9 of the leader %s at %v: %v without an acknowledged write", name,
		at.Round(time.Millisecond), r.gap(at).Round(time.Millisecond)))
}

// gap is the longest time without an acknowledged write that began at a time or held it.
func (r *run) gap(from time.Duration) (longest time.Duration) {
	var returns []time.Duration
	for _, op := range r.Ops() {
		if op.Outcome == 0 && op.Request.Writes() {
			returns = append(returns, op.Return)
		}
	}
	slices.Sort(returns)
	for i := 1; i < len(returns); i++ {
		if returns[i] > from {
			longest = max(longest, returns[i]-returns[i-1])
		}
	}
	return longest
}

func killAllNodes(t *testing.T, r *run, rng *rand.Rand) { r.away(t, rng, false, r.names()...) }

func killService(t *testing.T, r *run, rng *rand.Rand) { r.away(t, rng, true, pick(rng, r.services)) }

// killTwoServices may take both of a kind, and then what only they do stands still.
func killTwoServices(t *testing.T, r *run, rng *rand.Rand) {
	first, second := pickTwo(rng, r.services)
	both := func(a, b string) bool { return (first == a && second == b) || (first == b && second == a) }
	r.away(t, rng, !both("hub1", "hub2") && !both("proxy1", "proxy2"), first, second)
}

// terminate ends a process as an operator does.
func terminate(t *testing.T, r *run, rng *rand.Rand) {
	name := pick(rng, r.Processes())
	t.Logf("  SIGTERM to %s", name)
	r.Kill(t, name, syscall.SIGTERM)
	r.Wait(t, name)
	if !r.oracle() && name != "nats" {
		require.Equal(t, 0, r.ExitCode(t, name), "exit code of %s after SIGTERM", name)
	}
	r.progress(t, "without "+name, name)
	r.Start(t, name)
}

// pause stops a process, as a debugger, a slow disk or a busy machine does, for less or more than an election takes.
func pause(t *testing.T, r *run, rng *rand.Rand) { r.stop(t, rng, pick(rng, r.Processes())) }

func pauseLeader(t *testing.T, r *run, rng *rand.Rand) { r.stop(t, rng, r.leader(t).name) }

func pauseBus(t *testing.T, r *run, rng *rand.Rand) { r.stop(t, rng, "nats") }

func (r *run) stop(t *testing.T, rng *rand.Rand, name string) {
	t.Helper()
	d := duration(rng, 100*time.Millisecond, 1500*time.Millisecond)
	if rng.IntN(2) == 0 {
		d = duration(rng, 1500*time.Millisecond, 5*time.Second)
	}
	t.Logf("  %s stands still for %v", name, d.Round(time.Millisecond))
	r.Kill(t, name, syscall.SIGSTOP)
	defer r.Kill(t, name, syscall.SIGCONT)
	r.last(t, d)
}

// busOutage is longer than the bus's clients keep anything for it.
func busOutage(t *testing.T, r *run, rng *rand.Rand) {
	r.Kill(t, "nats", syscall.SIGKILL)
	for begun, d := time.Now(), duration(rng, 8*time.Second, 12*time.Second); time.Since(begun) < d; {
		r.progress(t, "without NATS")
	}
	r.Start(t, "nats")
}
