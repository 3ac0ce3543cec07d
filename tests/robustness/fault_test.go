package robustness

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/tests/relay"
)

// fault is something that goes wrong with a system, and what must go on meanwhile.
type fault struct {
	name string
	// on tells on which systems it can happen; nil: all.
	on func(*system) bool
	// happen makes it happen and returns when it is over.
	happen func(t *testing.T, r *run, rng *rand.Rand)
}

func split(s *system) bool     { return !s.standalone() }
func cuts(*system) bool        { return relay.Identifies() }
func splitCuts(s *system) bool { return split(s) && cuts(s) }
func hasDisk(s *system) bool   { return s.disk != nil }

// faults are all of them.
func faults() []fault {
	return append([]fault{
		{"kill-node", nil, killNode},
		{"kill-leader", nil, killLeader},
		{"kill-all-nodes", nil, killAllNodes},
		{"kill-service", split, killService},
		{"kill-two-services", split, killTwoServices},
		{"terminate", nil, terminate},
		{"isolate-node", cuts, isolateNode},
		{"isolate-leader", cuts, isolateLeader},
		{"deaf-leader", cuts, deafLeader},
		{"mute-leader", cuts, muteLeader},
		{"cut-link", cuts, cutLink},
		{"cut-service", splitCuts, cutService},
		{"cut-hub", splitCuts, cutHub},
		{"cut-bus", splitCuts, cutBus},
		{"pause", nil, pause},
		{"pause-leader", nil, pauseLeader},
		{"pause-bus", split, pauseBus},
		{"lose-majority", nil, loseMajority},
		{"cut-all-nodes", cuts, cutAllNodes},
		{"bus-outage", split, busOutage},
		{"full-disk", hasDisk, fullDisk},
		{"move-leader", nil, moveLeader},
		{"kill-and-cut", cuts, killAndCut},
	}, memberChanges()...)
}

// memberChanges are the faults that change the member list.
func memberChanges() []fault {
	return []fault{
		{"add-learner", nil, addLearner},
		{"add-voter", nil, addVoter},
		{"remove-node", nil, removeNode},
		{"remove-leader", nil, removeLeader},
		{"replace-dead", nil, replaceDead},
		{"update-member", nil, updateMember},
		{"change-while-down", nil, changeWhileDown},
		{"change-while-cut", cuts, changeWhileCut},
	}
}

// changesMembers tells whether a fault is one of them.
func changesMembers(f fault) bool {
	return slices.ContainsFunc(memberChanges(), func(m fault) bool { return m.name == f.name })
}

// chosen are the faults of a system, less those that the flag leaves out.
func chosen(t *testing.T, s *system) (out []fault) {
	t.Helper()
	for _, f := range faults() {
		if (f.on == nil || f.on(s)) && (*onlyFlag == "" || slices.Contains(strings.Split(*onlyFlag, ","), f.name)) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no fault of %s is called %s", s.Name, *onlyFlag)
	}
	return out
}

// between two times.
func duration(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// last lets a fault go on for a while.
func (r *run) last(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// pickTwo gives two different ones.
func pickTwo[T any](rng *rand.Rand, list []T) (first, second T) {
	order := rng.Perm(len(list))
	return list[order[0]], list[order[1]]
}

// happenAll makes faults happen until the duration is over: each once in an order of chance, then again. A change of the member
// list comes first, so that each run has one.
func (r *run) happenAll(t *testing.T, rng *rand.Rand, d time.Duration) {
	t.Helper()
	r.happenEach(t, rng, chosen(t, r.system), d)
}

// during has a fault happen and notes when it did: what takes longer meanwhile, and for a while after, is no wonder.
func (r *run) during(happen func()) {
	r.troubles = append(r.troubles, trouble{from: r.Now(), until: never})
	happen()
	r.troubles[len(r.troubles)-1].until = r.Now()
}

// happenEach does that with some faults.
func (r *run) happenEach(t *testing.T, rng *rand.Rand, list []fault, d time.Duration) {
	t.Helper()
	for begun, n := time.Now(), 0; n == 0 || time.Since(begun) < d; n++ {
		if n%len(list) == 0 {
			rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			if at := slices.IndexFunc(list, changesMembers); at > 0 {
				list[0], list[at] = list[at], list[0]
			}
		}
		f := list[n%len(list)]
		r.progress(t, "before "+f.name)
		at := time.Now()
		t.Logf("%v: %s", r.Now().Round(time.Millisecond), f.name)
		r.during(func() { f.happen(t, r, rng) })
		over := time.Now()
		r.progress(t, "after "+f.name)
		t.Logf("%v: %s is over after %v, and %v later all went on", r.Now().Round(time.Millisecond), f.name,
			over.Sub(at).Round(time.Millisecond), time.Since(over).Round(time.Millisecond))
	}
}
