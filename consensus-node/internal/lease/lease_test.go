package lease_test

import (
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

func keys(names ...string) [][]byte {
	var out [][]byte
	for _, name := range names {
		out = append(out, []byte(name))
	}
	return out
}

func TestRefusedChangesTakeNoNumber(t *testing.T) {
	table := lease.New()
	_, err := table.Grant(0, 5)
	require.Equal(t, rpctypes.ErrGRPCLeaseNotFound, err)
	_, err = table.Grant(1, lease.TTLMaxS+1)
	require.Equal(t, rpctypes.ErrGRPCLeaseTTLTooLarge, err)
	change, err := table.Grant(1, lease.TTLMaxS)
	require.NoError(t, err)
	require.EqualValues(t, 1, change.Sequence)
	_, err = table.Grant(1, 5)
	require.Equal(t, rpctypes.ErrGRPCLeaseExist, err)
	_, err = table.Revoke([]int64{2}, false, 0)
	require.Equal(t, rpctypes.ErrGRPCLeaseNotFound, err)
	_, err = table.Checkpoint(2, 1, 9)
	require.Equal(t, rpctypes.ErrGRPCLeaseNotFound, err)
	_, err = table.Checkpoint(1, lease.TTLMaxS+1, 9)
	require.Equal(t, lease.ErrRemaining, err)
	_, err = table.ChangeView(&journalv1.ViewChange{FromEpoch: 1})
	require.Equal(t, lease.ErrEpoch, err)
	require.EqualValues(t, 1, table.Sequence())
}

// Leases that go together take one number, and all of them go or none.
func TestRevokesTogether(t *testing.T) {
	table := lease.New()
	for _, id := range []int64{1, 2, -3} {
		_, err := table.Grant(id, 10)
		require.NoError(t, err)
	}
	_, err := table.Revoke([]int64{1, 9, 2}, true, 0)
	require.Equal(t, rpctypes.ErrGRPCLeaseNotFound, err)
	require.Equal(t, 3, table.Len())
	change, err := table.Revoke([]int64{-3, 1}, true, 0)
	require.NoError(t, err)
	require.EqualValues(t, 4, change.GetSequence())
	require.EqualValues(t, 4, table.Sequence())
	require.Equal(t, []int64{-3, 1}, change.GetRevoked().GetIds())
	require.True(t, change.GetRevoked().GetExpired())
	require.Equal(t, 1, table.Len())
	require.True(t, table.Exists(2))
}

func TestAttach(t *testing.T) {
	table := lease.New()
	for _, id := range []int64{1, 2, -1} {
		_, err := table.Grant(id, 10)
		require.NoError(t, err)
	}
	table.Attach(1, []byte("b"))
	table.Attach(1, []byte("a"))
	table.Attach(2, []byte("c"))
	before := table.View()
	require.Equal(t, keys("a", "b"), table.Keys(1))
	table.Attach(-1, []byte("a")) // moves
	table.Detach(2, []byte("b"))  // hangs on another
	table.Detach(2, []byte("none"))
	require.Equal(t, keys("b"), table.Keys(1))
	require.Equal(t, keys("a"), table.Keys(-1))
	_, err := table.Revoke([]int64{1}, true, 9)
	require.NoError(t, err)
	require.Empty(t, table.Keys(1))
	_, err = table.Grant(1, 10)
	require.NoError(t, err)
	require.Empty(t, table.Keys(1), "a new lease of the id has nothing of the old one")
	require.Equal(t, keys("a", "b"), before.Keys(1), "a view never changes")
}

// A key from a restored database may name a lease that is gone. A node that
// runs on and one that restarts must agree on what a new lease of that id
// holds.
func TestKeysOfLeasesThatAreGone(t *testing.T) {
	restored := func() *lease.Table {
		return lease.Restore(lease.Load{Keys: func(fn func(string, int64)) { fn("k", 7) }})
	}
	running := restored()
	_, err := running.Grant(7, 10)
	require.NoError(t, err)
	restarted := lease.Restore(lease.Load{
		Leases: []lease.Lease{{ID: 7, TTLS: 10}}, Keys: func(fn func(string, int64)) { fn("k", 7) },
	})
	require.Equal(t, restarted.Keys(7), running.Keys(7))
	require.Equal(t, keys("k"), running.Keys(7))
}

func TestPages(t *testing.T) {
	table := lease.New()
	ids := []int64{1, 2, 700, math.MaxInt64, math.MinInt64, -2, -1}
	for i := range ids {
		_, err := table.Grant(ids[len(ids)-1-i], 10)
		require.NoError(t, err)
	}
	for size := 1; size <= len(ids)+1; size++ {
		var got []int64
		after, more := int64(0), true
		for more {
			var page []lease.Lease
			page, more = table.Page(after, size)
			require.NotEmpty(t, page)
			require.LessOrEqual(t, len(page), size)
			for _, l := range page {
				got = append(got, l.ID)
			}
			after = got[len(got)-1]
		}
		require.Equal(t, ids, got, "pages of %s", strconv.Itoa(size))
		page, more := table.Page(-1, size)
		require.Empty(t, page)
		require.False(t, more)
	}
}

func TestOwns(t *testing.T) {
	table := lease.New()
	require.Nil(t, table.Owner(1))
	require.False(t, table.Owns(lease.Claim{}, 1), "an empty claim owns nothing of an empty view")
	_, err := table.ChangeView(&journalv1.ViewChange{Instances: []*feedv1.Instance{{Name: "a", Incarnation: 5}}})
	require.NoError(t, err)
	require.True(t, table.Owns(lease.Claim{Name: "a", Incarnation: 5, Epoch: 1}, 1))
	for _, claim := range []lease.Claim{
		{Name: "a", Incarnation: 5, Epoch: 0},
		{Name: "a", Incarnation: 5, Epoch: 2},
		{Name: "a", Incarnation: 4, Epoch: 1},
		{Name: "b", Incarnation: 5, Epoch: 1},
	} {
		require.False(t, table.Owns(claim, 1), "%+v", claim)
	}
	// The same instance stays alone, but the epoch moves on: what it decided
	// before is void.
	_, err = table.ChangeView(&journalv1.ViewChange{FromEpoch: 1, Instances: []*feedv1.Instance{{Name: "a", Incarnation: 5}}})
	require.NoError(t, err)
	require.False(t, table.Owns(lease.Claim{Name: "a", Incarnation: 5, Epoch: 1}, 1))
	require.Empty(t, table.Cluster().Departed)
}

// Granted again, an id has a new lease: its number in the sequence tells.
func TestGrantedSequence(t *testing.T) {
	table := lease.New()
	granted := func() uint64 {
		change, err := table.Grant(1, 5)
		require.NoError(t, err)
		l, _ := table.Get(1)
		require.Equal(t, change.Sequence, l.GrantedSequence)
		return l.GrantedSequence
	}
	require.EqualValues(t, 1, granted())
	_, err := table.Checkpoint(1, 3, 9)
	require.NoError(t, err)
	l, _ := table.Get(1)
	require.EqualValues(t, 1, l.GrantedSequence, "a checkpoint grants nothing")
	_, err = table.Revoke([]int64{1}, false, 0)
	require.NoError(t, err)
	require.EqualValues(t, 4, granted())
}

// A rest that comes late must not shorten what was granted or cleared since; a clearing is never late.
func TestLateCheckpoints(t *testing.T) {
	table := lease.New()
	mark := func(remaining int64, decided uint64) error {
		_, err := table.Checkpoint(1, remaining, decided)
		return err
	}
	_, err := table.Grant(1, 500)
	require.NoError(t, err)
	require.Equal(t, lease.ErrLate, mark(300, 0))
	require.NoError(t, mark(300, 1))
	require.Equal(t, lease.ErrLate, mark(200, 1))
	require.NoError(t, mark(0, 0))
	require.Equal(t, lease.ErrLate, mark(200, 2))
	require.NoError(t, mark(200, 3))
	l, _ := table.Get(1)
	require.Equal(t, lease.Lease{ID: 1, TTLS: 500, RemainingTTLS: 200, GrantedSequence: 1, CheckpointSequence: 4}, l)
	require.EqualValues(t, 4, lease.Restore(lease.Load{Leases: []lease.Lease{l}}).Sequence())
}

// A database that lost the sequence and not the leases goes on after them.
func TestRestoreGoesOnAfterEveryGrant(t *testing.T) {
	leases := []lease.Lease{{ID: 1, TTLS: 5, GrantedSequence: 9}, {ID: 2, TTLS: 5, GrantedSequence: 4}, {ID: 3, TTLS: 5}}
	require.EqualValues(t, 9, lease.Restore(lease.Load{Leases: leases}).Sequence())
	table := lease.Restore(lease.Load{Leases: leases, Sequence: 12})
	require.EqualValues(t, 12, table.Sequence())
	page, _ := table.Page(0, 10)
	require.Equal(t, leases, page)
}

// The bytes are those of etcd's leasepb.Lease, and two fields more.
func TestRows(t *testing.T) {
	key, value := lease.Row(lease.Lease{ID: 1, TTLS: 300, RemainingTTLS: 7})
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 0, 1}, key)
	require.Equal(t, []byte{0x08, 0x01, 0x10, 0xac, 0x02, 0x18, 0x07}, value)
	_, granted := lease.Row(lease.Lease{ID: 1, TTLS: 300, RemainingTTLS: 7, GrantedSequence: 200})
	require.Equal(t, append(slices.Clone(value), 0xa0, 0x06, 0xc8, 0x01), granted, "field 100")
	_, marked := lease.Row(lease.Lease{ID: 1, TTLS: 300, RemainingTTLS: 7, CheckpointSequence: 200})
	require.Equal(t, append(slices.Clone(value), 0xa8, 0x06, 0xc8, 0x01), marked, "field 101")
	for _, l := range []lease.Lease{
		{ID: 1, TTLS: 300, RemainingTTLS: 7},
		{ID: 2, TTLS: 300, GrantedSequence: math.MaxUint64},
		{ID: 3, TTLS: 300, RemainingTTLS: 7, GrantedSequence: 9, CheckpointSequence: math.MaxUint64},
		{ID: math.MinInt64, TTLS: lease.TTLMaxS},
		{ID: -1},
	} {
		key, value := lease.Row(l)
		got, err := lease.ParseRow(key, value)
		require.NoError(t, err)
		require.Equal(t, l, got)
		for cut := range value {
			if got, err := lease.ParseRow(key, value[:cut]); err == nil {
				require.NotEqual(t, l, got)
			} else {
				require.ErrorIs(t, err, lease.ErrRow)
			}
		}
	}
	// What a later etcd may add is passed over.
	got, err := lease.ParseRow(key, append(value, 0x22, 0x02, 'x', 'y', 0x28, 0x09))
	require.NoError(t, err)
	require.Equal(t, lease.Lease{ID: 1, TTLS: 300, RemainingTTLS: 7}, got)
	_, err = lease.ParseRow([]byte("short"), value)
	require.ErrorIs(t, err, lease.ErrRow)
}
