package sim

import "testing"

// mutation is a rule that is broken on purpose.
type mutation int

const (
	none mutation = iota
	// answerBeforeSync lets acknowledgements and votes leave before the log is synced; voteBeforeSync only where no entries are written.
	answerBeforeSync
	voteBeforeSync
	// cutAboveDurable cuts the log below what is applied, not below what the database has durably.
	cutAboveDurable
	// tornIndex commits the last entry's changes without its index.
	tornIndex
	// readAtOnce reads at this node's commit index without asking; readBeforeApplied does not wait until the index is applied.
	readAtOnce
	readBeforeApplied
	// reusedReadIDs makes the ids of reads the same in each run of a process.
	reusedReadIDs
	// unknownIsRefused says "not proposed" where the outcome is open.
	unknownIsRefused
	// lostImage forgets at the start the image that the log's mark needs.
	lostImage
)

// mutations are the broken rules, and within how many seeds the simulation must see each. Where that takes rare chances, tune makes them less
// rare.
var mutations = []struct {
	name  string
	rule  mutation
	seeds int
	tune  func(*Faults)
}{
	{"answers before the sync", answerBeforeSync, 10, asDrawn},
	{"votes before the sync", voteBeforeSync, 10, asDrawn},
	{"cuts above the durable index", cutAboveDurable, 50, asDrawn},
	{"commits changes without their index", tornIndex, 10, asDrawn},
	{"reads without asking", readAtOnce, 50, asDrawn},
	{"reads before it has applied", readBeforeApplied, 50, asDrawn},
	{"uses ids of reads again", reusedReadIDs, 50, asDrawn},
	{"refuses what is open", unknownIsRefused, 100, asDrawn},
	{"forgets a received image", lostImage, 200, func(f *Faults) {
		// Images all the time, and processes that end while they install them.
		f.SnapshotCount, f.CatchUpEntries, f.Partition, f.Pause, f.Kill, f.Every, f.Voters = 1, 1, 4, 4, 6, 2*tickMoments, 3
	}},
}

// TestMutations breaks one rule after the other and must see each.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			const seed = 1 // chance that a seed sees nothing must not fail the test
			for n := range m.seeds {
				if r := simulate(uint64(seed+n), m.rule, m.tune, inMemory); r.failure != "" {
					t.Logf("seen with seed %d, the number %d: %s", seed+n, n+1, r.failure)
					return
				}
			}
			t.Errorf("not seen within %d seeds from %d", m.seeds, seed)
		})
	}
}
