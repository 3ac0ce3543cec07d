package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// An operation counts as one during a commit if a database was written between its begin and its end.
func TestOperationsDuringCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{open: true}
		time.Sleep(time.Second)
		m.recordAt(1, 10*time.Millisecond)
		m.committed(time.Now())
		time.Sleep(20 * time.Millisecond)
		m.recordAt(0, 10*time.Millisecond) // began after it
		m.recordAt(1, 40*time.Millisecond)
		got, err := figures(m, []span{{after: sample{at: time.Now()}}})
		require.NoError(t, err)
		require.InDelta(t, 40, got.CommitP99Ms, 1)
		require.EqualValues(t, 1, m.inCommits.total)
		require.InDeltaSlice(t, []float64{10, 40}, got.EndpointP99Ms, 1)
		require.InDeltaSlice(t, []float64{10, 10}, got.EndpointP50Ms, 1)
		m.forget(0.99)
		require.Zero(t, m.inCommits.total)
	})
}

func TestCommitsAreSeen(t *testing.T) {
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "not there")}
	require.NoError(t, os.WriteFile(paths[0], []byte("1"), 0o600))
	m := &meter{}
	seen := func() time.Time {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.lastCommit
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchCommits(t.Context(), paths, m)
	}()
	t.Cleanup(func() { <-done })
	for at, round := time.Now(), 0; round < 3; round++ {
		before := seen()
		require.Eventually(t, func() bool {
			at = at.Add(time.Second)
			require.NoError(t, os.Chtimes(paths[0], at, at))
			return seen().After(before)
		}, 10*time.Second, 3*time.Millisecond)
	}
}
