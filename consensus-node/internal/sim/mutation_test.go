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

// mutations are the broken rules, and within how many seeds the simulation must see each.
var mutations = []struct {
	name  string
	rule  mutation
	seeds int
}{
	{"answers before the sync", answerBeforeSync, 2000},
	{"votes before the sync", voteBeforeSync, 2000},
	{"cuts above the durable index", cutAboveDurable, 2000},
	{"commits changes without their index", tornIndex, 2000},
	{"reads without asking", readAtOnce, 2000},
	{"reads before it has applied", readBeforeApplied, 2000},
	{"uses ids of reads again", reusedReadIDs, 2000},
	{"refuses what is open", unknownIsRefused, 2000},
	{"forgets a received image", lostImage, 2000},
}

// TestMutations breaks one rule after the other and must see each.
func TestMutations(t *testing.T) {
	seed := firstSeed(t)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			for n := range m.seeds {
				if r := simulate(seed+uint64(n), m.rule, *ticksFlag, inMemory); r.failure != "" {
					t.Logf("seen with seed %d, the number %d: %s", seed+uint64(n), n+1, r.failure)
					return
				}
			}
			t.Errorf("not seen within %d seeds from %d", m.seeds, seed)
		})
	}
}
