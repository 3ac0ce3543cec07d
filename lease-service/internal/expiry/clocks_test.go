package expiry_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
)

func TestDeadlineSaturates(t *testing.T) {
	const ttlMaxS = 9_000_000_000
	require.Equal(t, 7*time.Second, expiry.Deadline(2*time.Second, 5))
	require.Equal(t, time.Hour+ttlMaxS*time.Second, expiry.Deadline(time.Hour, ttlMaxS))
	require.EqualValues(t, math.MaxInt64, expiry.Deadline(1<<60, ttlMaxS))
	require.EqualValues(t, math.MaxInt64, expiry.Deadline(0, math.MaxInt64))
}

// The clocks against a model that looks at everything each time.
func TestRandomAgainstModel(t *testing.T) {
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 3))
	clocks, model := expiry.New(0), map[int64]expiry.Lease{}
	now := time.Duration(0)
	for step := range 40_000 {
		id := 1 + r.Int64N(40)
		known, ok := model[id]
		deadline := now + time.Duration(r.Int64N(1000))
		switch r.IntN(12) {
		case 0, 1:
			granted := uint64(1 + r.IntN(2))
			clocks.Put(id, granted, 5, 0)
			if known.Granted != granted {
				known = expiry.Lease{}
			}
			known.ID, known.TTLS, known.Granted = id, 5, granted
			model[id] = known
		case 2, 3:
			clocks.Start(id, deadline)
			switch {
			case ok && known.State == expiry.Foreign:
				known.State, known.Deadline = expiry.Live, deadline
			case ok && (known.State == expiry.Live || known.State == expiry.Stopped):
				known.Deadline = max(known.Deadline, deadline)
			}
		case 4, 5:
			require.Equal(t, known.State == expiry.Live, clocks.Renew(id, deadline))
			if known.State == expiry.Live {
				known.Deadline = max(known.Deadline, deadline)
			}
		case 6:
			clocks.Drop(id)
			known.State = expiry.Foreign
		case 7:
			_, had := clocks.Remove(id)
			require.Equal(t, ok, had)
			delete(model, id)
			continue
		case 8:
			moved := clocks.Stop(id)
			require.Equal(t, known.State == expiry.Live, moved)
			if moved {
				known.State = expiry.Stopped
			}
		case 9:
			if clocks.Resume(id) {
				require.Equal(t, expiry.Stopped, known.State)
				known.State = expiry.Live
			}
		case 10:
			if clocks.Undecide(id) {
				known.State = expiry.Live
			} else if clocks.Settle(id) {
				t.Fatal("Settle moved what Undecide did not")
			}
		case 11:
			now += time.Duration(r.Int64N(400))
			live, over := 0, 0
			for _, lease := range model {
				if lease.State == expiry.Live {
					live++
					if lease.Deadline <= now {
						over++
					}
				}
			}
			require.GreaterOrEqual(t, clocks.Overdue(now), over)
			require.LessOrEqual(t, clocks.Overdue(now), live)
			for _, due := range clocks.Due(now, 1+r.IntN(4)) {
				lease := model[due]
				require.Equal(t, expiry.Live, lease.State, "step %d of seed %d", step, seed)
				require.LessOrEqual(t, lease.Deadline, now)
				lease.State = expiry.Deciding
				model[due] = lease
			}
			continue
		}
		if ok {
			model[id] = known
		}
		lease, has := clocks.Get(id)
		require.Equal(t, model[id].ID != 0, has)
		require.Equal(t, model[id].State, lease.State, "step %d of seed %d", step, seed)
		if lease.State == expiry.Live {
			require.Equal(t, model[id].Deadline, lease.Deadline)
		}
	}
	running := 0
	for _, lease := range model {
		if lease.State != expiry.Foreign {
			running++
		}
	}
	require.Equal(t, running, clocks.Running())
	require.Equal(t, len(model), clocks.Len())
	// In the end all live ones come due, and none twice.
	live := 0
	for _, lease := range model {
		if lease.State == expiry.Live {
			live++
		}
	}
	require.Len(t, clocks.Due(now+time.Hour, 1000), live)
	require.Empty(t, clocks.Due(now+time.Hour, 1000))
}

// Many that are overdue come in the order of the table's rows, over several calls, whatever the order of their deadlines; those that are
// overdue later come after them, and those that are renewed meanwhile do not come.
func TestManyComeInTheOrderOfTheTable(t *testing.T) {
	clocks := expiry.New(0)
	add := func(id int64, deadline time.Duration) {
		clocks.Put(id, 1, 5, 0)
		clocks.Start(id, deadline)
	}
	for i, id := range []int64{7, -2, 5, 1, 3, 9, -8} {
		add(id, time.Second-time.Duration(i))
	}
	require.Equal(t, []int64{1, 3}, clocks.Due(time.Second, 2))
	add(2, 2*time.Second)
	require.True(t, clocks.Renew(7, 9*time.Second))
	clocks.Drop(5)
	clocks.Put(9, 2, 5, 0) // another lease
	clocks.Start(9, 8*time.Second)
	require.Equal(t, []int64{-8}, clocks.Due(3*time.Second, 1))
	require.Equal(t, []int64{-2, 2}, clocks.Due(3*time.Second, 5), "as the table does it, by the bits of their ids")
	require.Equal(t, []int64{7, 9}, clocks.Due(time.Minute, 5))
}

// Of very many the longest overdue are put in order first.
func TestTheLongestOverdueComeFirst(t *testing.T) {
	const count = 100_000
	clocks := expiry.New(0)
	for id := range int64(count) {
		clocks.Put(id+1, 1, 5, 0)
		clocks.Start(id+1, time.Duration(count-id)*time.Microsecond)
	}
	first := clocks.Due(time.Second, count/4)
	require.True(t, slices.IsSorted(first))
	require.Greater(t, first[0], int64(1), "a later deadline waits for the next round")
	rest := clocks.Due(time.Second, count)
	require.Len(t, rest, count-count/4)
}

func TestSweepForgetsWhatALoadDidNotName(t *testing.T) {
	clocks := expiry.New(0)
	for id := int64(1); id <= 10; id++ {
		clocks.Put(id, 1, 5, 0)
		clocks.Start(id, time.Second)
	}
	clocks.BeginLoad()
	clocks.Put(3, 1, 6, 0)
	clocks.Put(4, 2, 5, 0)
	clocks.Put(11, 3, 7, 2)
	clocks.Sweep()
	require.Equal(t, 3, clocks.Len())
	lease, _ := clocks.Get(4)
	require.Equal(t, expiry.Foreign, lease.State, "granted anew")
	lease, _ = clocks.Get(3)
	require.Equal(t, expiry.Live, lease.State)
	require.EqualValues(t, 6, lease.TTLS)
	lease, _ = clocks.Get(11)
	require.EqualValues(t, 2, lease.RestS())
	at, ok := clocks.Next()
	require.True(t, ok)
	require.Equal(t, time.Second, at)
}

// seedOf is HOLDFAST_SEED, or one of the time.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("HOLDFAST_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err)
	return seed
}
