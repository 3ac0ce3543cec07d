package keeper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Calls that follow each other leave the consensus tier as much time as they took, and grow and shrink with how long they take. What
// nothing waits behind is not held up.
func TestPace(t *testing.T) {
	s := &Service{decisions: decisionLeast}
	require.Zero(t, s.paceLocked(decisionLeast-1, time.Second), "nothing waits")
	require.Equal(t, decisionLeast, s.decisions)
	for range 5 {
		require.Equal(t, callLeast-1, s.paceLocked(s.decisions, callLeast-1))
	}
	require.Equal(t, decisionMax, s.decisions, "the tier takes more")
	require.Equal(t, callMost, s.paceLocked(s.decisions, callMost))
	require.Equal(t, decisionMax, s.decisions)
	require.Equal(t, callMost+1, s.paceLocked(s.decisions, callMost+1))
	require.Equal(t, decisionMax/2, s.decisions)
	for range 5 {
		require.Equal(t, restMost, s.paceLocked(s.decisions, time.Hour))
	}
	require.Equal(t, decisionLeast, s.decisions)
}
