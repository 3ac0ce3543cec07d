package app_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/lease-service/app"
	"github.com/holdfastdb/holdfast/services/config"
)

// The drift bound is a setting with bounds.
func TestDriftIsBounded(t *testing.T) {
	for text, fine := range map[string]bool{"1": true, "10": true, "50": true, "0": false, "51": false, "18446744073709551615": false} {
		cfg := app.NewConfig()
		set := config.NewSet(app.Program)
		cfg.DeclareProcess(set)
		_, err := set.Parse(config.Source{Args: []string{
			"--lease-clock-drift-percent=" + text, "--consensus-endpoints=http://127.0.0.1:1", "--listen-peer-urls=http://127.0.0.1:1",
		}})
		require.NoError(t, err)
		if err := cfg.Finish(); fine {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, "--lease-clock-drift-percent is "+text)
		}
	}
}
