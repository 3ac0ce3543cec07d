package robustness

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/tests/relay"
)

const (
	cutShortest = 500 * time.Millisecond
	cutLongest  = 5 * time.Second
)

// cut cuts links for a while: half of the time as a network that drops packets, else as one that refuses. The rest goes
// on meanwhile; without are the processes that need not.
func (r *run) cut(t *testing.T, rng *rand.Rand, links []relay.Link, without ...string) {
	t.Helper()
	mode := relay.Held
	if rng.IntN(2) == 0 {
		mode = relay.Refused
	}
	r.cutAs(t, rng, mode, links, without...)
}

func (r *run) cutAs(t *testing.T, rng *rand.Rand, mode relay.Mode, links []relay.Link, without ...string) {
	t.Helper()
	how := map[relay.Mode]string{relay.Held: "held", relay.Refused: "refused"}[mode]
	d := duration(rng, cutShortest, cutLongest)
	t.Logf("  %s for %v: %v", how, d.Round(time.Millisecond), links)
	defer r.network.Mend()
	r.network.Set(mode, links...)
	at := r.Now()
	// Shorter ones may end before they are found out.
	if d > (cutShortest+cutLongest)/2 {
		r.progress(t, "while it is cut", without...)
		t.Logf("  after %v all went on without it", (r.Now() - at).Round(time.Millisecond))
	}
	r.last(t, d-(r.Now()-at))
}

// isolateNode cuts a node off from all other processes.
func isolateNode(t *testing.T, r *run, rng *rand.Rand) {
	name := pick(rng, r.names())
	r.cut(t, rng, between([]string{name}, r.others(name)), name)
}

// isolateLeader cuts the leader off from the other nodes alone: the rest may still ask it.
func isolateLeader(t *testing.T, r *run, rng *rand.Rand) {
	name := r.leader(t).name
	r.cut(t, rng, between([]string{name}, r.names()), name)
}

// deafLeader lets the leader speak and hears nothing back.
func deafLeader(t *testing.T, r *run, rng *rand.Rand) {
	name := r.leader(t).name
	r.cutAs(t, rng, relay.Held, oneWay(r.others(name), []string{name}), name)
}

// muteLeader lets the leader hear and say nothing.
func muteLeader(t *testing.T, r *run, rng *rand.Rand) {
	name := r.leader(t).name
	r.cutAs(t, rng, relay.Held, oneWay([]string{name}, r.others(name)), name)
}

// cutLink cuts the link between two nodes, both ways or one; one that is refused would end both.
func cutLink(t *testing.T, r *run, rng *rand.Rand) {
	first, second := pickTwo(rng, r.names())
	if rng.IntN(2) == 0 {
		r.cutAs(t, rng, relay.Held, oneWay([]string{first}, []string{second}), first, second)
		return
	}
	r.cut(t, rng, between([]string{first}, []string{second}), first, second)
}

// cutService cuts a service off from one node, or from everything.
func cutService(t *testing.T, r *run, rng *rand.Rand) {
	name := pick(rng, r.services)
	if rng.IntN(2) == 0 {
		r.cut(t, rng, between([]string{name}, r.others(name)), name)
		return
	}
	r.cut(t, rng, between([]string{name}, []string{pick(rng, r.names())}), name)
}

// cutHub cuts a hub off from everything: the streams that it served go on from the other.
func cutHub(t *testing.T, r *run, rng *rand.Rand) {
	name := pick(rng, []string{"hub1", "hub2"})
	r.cut(t, rng, between([]string{name}, r.others(name)), name)
}

// cutBus cuts the bus off from one process, or from all.
func cutBus(t *testing.T, r *run, rng *rand.Rand) {
	others := r.others("nats")
	if rng.IntN(2) == 0 {
		others = []string{pick(rng, others)}
	}
	r.cut(t, rng, between([]string{"nats"}, others))
}

// killAndCut kills one process while another is cut off.
func killAndCut(t *testing.T, r *run, rng *rand.Rand) {
	killed, cut := pickTwo(rng, r.Processes())
	done := make(chan struct{})
	links := between([]string{cut}, r.others(cut))
	mode := pick(rng, []relay.Mode{relay.Held, relay.Refused})
	d := duration(rng, cutShortest, cutLongest)
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
