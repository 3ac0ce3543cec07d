package rendezvous_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// owners returns the owner's name of each of n lease ids, spread over the
// whole range of ids.
func owners(names []string, n int) []string {
	set, out := rendezvous.New(names), make([]string, n)
	for i := range out {
		out[i] = names[set.Owner(leaseID(i))]
	}
	return out
}

// leaseID gives ids of both habits: small consecutive numbers, which clients
// choose, and large ones, which are generated.
func leaseID(i int) int64 {
	if i%2 == 0 {
		return int64(i)
	}
	return int64(i) * 0x5851f42d4c957f2d
}

func TestNoNames(t *testing.T) {
	require.Equal(t, -1, rendezvous.Owner(1, nil))
	require.Equal(t, -1, rendezvous.Set{}.Owner(1))
	require.Equal(t, 0, rendezvous.Owner(1, []string{"only"}))
}

// The answer is part of the protocol: a version that gives another one would
// reject the revokes of the owners that run beside it. The table was made by
// another implementation of the same weights.
func TestAnswersNeverChange(t *testing.T) {
	names := []string{"lease1", "lease2", "lease3"}
	want := map[int64]string{
		1: "lease1", 2: "lease1", 3: "lease1", 7587848390845461000: "lease1",
		math.MaxInt64: "lease2", -1: "lease1", math.MinInt64: "lease3",
	}
	for id, name := range want {
		require.Equal(t, name, names[rendezvous.Owner(id, names)], "lease %d", id)
	}
}

func TestOrderOfNamesDoesNotMatter(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	want := owners(names, 2000)
	slices.Reverse(names)
	require.Equal(t, want, owners(names, 2000))
}

func TestSpread(t *testing.T) {
	for _, n := range []int{2, 3, 7} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("lease%d", i+1)
		}
		const leases = 20000
		counts := map[string]int{}
		for _, owner := range owners(names, leases) {
			counts[owner]++
		}
		for _, name := range names {
			require.InEpsilon(t, leases/n, counts[name], 0.1, "%s of %d", name, n)
		}
	}
}

func TestLeaveMovesOnlyWhatTheLeaverOwned(t *testing.T) {
	before := owners([]string{"a", "b", "c", "d"}, 5000)
	after := owners([]string{"a", "c", "d"}, 5000)
	heirs := map[string]int{}
	for i := range before {
		if before[i] == "b" {
			heirs[after[i]]++
			continue
		}
		require.Equal(t, before[i], after[i], "lease %d", leaseID(i))
	}
	require.Len(t, heirs, 3, "what b owned goes to all the others")
}

func TestJoinMovesOnlyToTheJoiner(t *testing.T) {
	before := owners([]string{"a", "b", "c"}, 5000)
	after := owners([]string{"joiner", "a", "b", "c"}, 5000)
	moved := 0
	for i := range before {
		if after[i] == "joiner" {
			moved++
			continue
		}
		require.Equal(t, before[i], after[i], "lease %d", leaseID(i))
	}
	require.InEpsilon(t, 5000/4, moved, 0.1)
}
