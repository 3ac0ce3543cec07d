package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/config"
)

func TestFeatureGates(t *testing.T) {
	gates := config.NewFeatureGates("InitialCorruptCheck", "CompactHashCheck")
	require.False(t, gates.Enabled("InitialCorruptCheck"))
	require.NoError(t, gates.Set(" InitialCorruptCheck=true, CompactHashCheck=false"))
	require.True(t, gates.Enabled("InitialCorruptCheck"))
	require.Equal(t, "InitialCorruptCheck=true", gates.String())
	for text, want := range map[string]string{
		"InitialCorruptCheck":       `"InitialCorruptCheck" must be InitialCorruptCheck=true or InitialCorruptCheck=false`,
		"InitialCorruptCheck=maybe": `"InitialCorruptCheck=maybe" must be InitialCorruptCheck=true or InitialCorruptCheck=false`,
		"LeaseCheckpoint=true":      "LeaseCheckpoint is a feature gate of etcd that Holdfast does not support",
		"Nope=true":                 `"Nope" is no feature gate: there are InitialCorruptCheck, CompactHashCheck`,
	} {
		require.EqualError(t, gates.Set(text), want)
		require.True(t, gates.Enabled("InitialCorruptCheck"), "a failed Set changes nothing")
	}
	require.NoError(t, gates.Set(""))
	require.False(t, gates.Enabled("InitialCorruptCheck"))
}
