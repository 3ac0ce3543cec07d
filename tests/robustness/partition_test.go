package robustness

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/tests/relay"
)

const (
	cutMin = 500 * time.Millisecond
	cutMax = 5 * time.Second
)

// cut cuts links for a while: half of the time as a network that drops packets, else as one that refuses.
func (r *run) cut(t *testing.T, rng *rand.Rand, links []relay.Link) {
	t.Helper()
	mode, how := relay.Held, "held"
	if rng.IntN(2) == 0 {
		mode, how = relay.Refused, "refused"
	}
	d := duration(rng, cutMin, cutMax)
	t.Logf("  %s for %v: %v", how, d.Round(time.Millisecond), links)
	defer r.network.Mend()
	r.network.Set(mode, links...)
	r.last(t, d)
}

// isolateNode cuts a node off from all other processes.
func isolateNode(r *run, t *testing.T, rng *rand.Rand) {
	name := pick(rng, r.names())
	r.cut(t, rng, between([]string{name}, r.others(name)))
}

// isolateLeader cuts the leader off from the other nodes alone: the rest may still ask it.
func isolateLeader(r *run, t *testing.T, rng *rand.Rand) {
	r.cut(t, rng, between([]string{r.names()[r.leader(t)]}, r.names()))
}

// deafLeader lets the leader speak and hears nothing back.
func deafLeader(r *run, t *testing.T, rng *rand.Rand) {
	name := r.names()[r.leader(t)]
	r.hold(t, rng, oneWay(r.others(name), []string{name}))
}

// muteLeader lets the leader hear and say nothing.
func muteLeader(r *run, t *testing.T, rng *rand.Rand) {
	name := r.names()[r.leader(t)]
	r.hold(t, rng, oneWay([]string{name}, r.others(name)))
}

// hold cuts one way; a connection that is refused would end both.
func (r *run) hold(t *testing.T, rng *rand.Rand, links []relay.Link) {
	t.Helper()
	d := duration(rng, cutMin, cutMax)
	t.Logf("  held for %v: %v", d.Round(time.Millisecond), links)
	defer r.network.Mend()
	r.network.Set(relay.Held, links...)
	r.last(t, d)
}

// cutLink cuts the link between two nodes, both ways or one.
func cutLink(r *run, t *testing.T, rng *rand.Rand) {
	first, second := pickTwo(rng, r.names())
	if rng.IntN(2) == 0 {
		r.hold(t, rng, oneWay([]string{first}, []string{second}))
		return
	}
	r.cut(t, rng, between([]string{first}, []string{second}))
}

// cutService cuts a service off from one node, or from everything.
func cutService(r *run, t *testing.T, rng *rand.Rand) {
	name := pick(rng, r.services)
	if rng.IntN(2) == 0 {
		r.cut(t, rng, between([]string{name}, r.others(name)))
		return
	}
	r.cut(t, rng, between([]string{name}, []string{pick(rng, r.names())}))
}

// cutBus cuts the bus off from one process, or from all.
func cutBus(r *run, t *testing.T, rng *rand.Rand) {
	others := r.others("nats")
	if rng.IntN(2) == 0 {
		others = []string{pick(rng, others)}
	}
	r.cut(t, rng, between([]string{"nats"}, others))
}

// killAndCut kills one process while another is cut off.
func killAndCut(r *run, t *testing.T, rng *rand.Rand) {
	killed, cut := pickTwo(rng, r.Processes())
	done := make(chan struct{})
	links := between([]string{cut}, r.others(cut))
	mode := pick(rng, []relay.Mode{relay.Held, relay.Refused})
	d := duration(rng, cutMin, cutMax)
	t.Logf("  for %v, mode %d: %v", d.Round(time.Millisecond), mode, links)
	r.network.Set(mode, links...)
	timer := time.AfterFunc(d, func() {
		r.network.Mend()
		close(done)
	})
	defer timer.Stop()
	r.away(t, rng, false, killed)
	<-done
}
