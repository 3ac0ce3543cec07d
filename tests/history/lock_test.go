package history_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/history"
)

func TestCheckLocks(t *testing.T) {
	hold := func(lock, client string, from, until time.Duration) history.Hold {
		return history.Hold{Lock: lock, Client: client, From: from * time.Second, Until: until * time.Second}
	}
	one := []history.Hold{hold("b", "x", 4, 6), hold("a", "y", 3, 5), hold("a", "x", 1, 3), hold("a", "z", 5, 9)}
	require.Empty(t, history.CheckLocks(one))
	require.Len(t, history.CheckLocks(append(one, hold("b", "y", 5, 7))), 1)
	// The long hold counts, not the one before.
	require.Len(t, history.CheckLocks(append(one, hold("a", "w", 6, 7), hold("a", "w", 8, 10))), 2)
}

func TestCheckLate(t *testing.T) {
	l := &history.Lease{ID: 1, GrantCall: time.Second}
	l.Granted(history.Done, 5*time.Second)
	l.Tried(3 * time.Second)
	late := func() []history.Violation {
		return history.CheckLate([]*history.Lease{l}, func(ttl, renewed, _ time.Duration) time.Duration { return renewed + ttl + 2*time.Second })
	}
	require.Empty(t, late(), "nobody saw it gone")
	l.Went(history.Gone{At: 11 * time.Second, How: "second sign"})
	require.Len(t, late(), 1)
	l.Went(history.Gone{At: 10 * time.Second, How: "first sign"})
	require.Empty(t, late())
	l.Tried(2 * time.Second)
	require.Empty(t, late(), "a time before the last says nothing")
}
