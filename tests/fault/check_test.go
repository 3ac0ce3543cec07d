package fault

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The checks themselves must see what is wrong.
func TestChecks(t *testing.T) {
	put := func(revision int64, key, value string) change {
		return change{Revision: revision, Key: key, Value: value}
	}
	good := []change{put(2, "a", "1"), put(3, "a", "2"), put(3, "b", "3"), put(4, "a", "4")}
	require.Empty(t, checkOrder(good, 2, 4))
	require.Empty(t, checkAcknowledged(good[1:2], good))
	require.Empty(t, checkOnce(good))
	require.Equal(t, map[string]string{"a": "4", "b": "3"}, final(good))
	require.NotContains(t, final(append(good, change{Revision: 5, Key: "a", Deleted: true})), "a")

	for name, seen := range map[string][]change{
		"hole":     {good[0], good[3]},
		"twice":    {good[0], good[0], good[1], good[2], good[3]},
		"order":    {good[1], good[0], good[2], good[3]},
		"end":      good[:3],
		"no start": good[1:],
		"again":    append(append([]change{}, good...), good[1]),
	} {
		require.NotEmpty(t, checkOrder(seen, 2, 4), name)
	}
	require.NotEmpty(t, checkAcknowledged([]change{put(3, "a", "4")}, good), "at another revision")
	require.NotEmpty(t, checkOnce(append(good, put(5, "c", "4"))))
}
