package control_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/deploy/cluster/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPath is short enough for a socket, however long the test's name.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// serve answers on path until the test ends; only n1 is known.
func serve(t *testing.T, path string) {
	t.Helper()
	l, err := control.Listen(t.Context(), path)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		control.Serve(ctx, l, func(_ context.Context, name string) (int, error) {
			if name != "n1" {
				return 0, errors.New("no such process\nat all")
			}
			return 42, nil
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func TestAsk(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	said, err := control.Ask(t.Context(), path, "n1")
	require.NoError(t, err)
	require.Equal(t, "n1 pid 42", said)
	_, err = control.Ask(t.Context(), path, "n9")
	require.EqualError(t, err, "no such process; at all")
}

func TestAskWithoutCluster(t *testing.T) {
	_, err := control.Ask(t.Context(), socketPath(t), "n1")
	require.ErrorContains(t, err, "no cluster is running there")
}

func TestOneClusterPerSocket(t *testing.T) {
	path := socketPath(t)
	serve(t, path)
	_, err := control.Listen(t.Context(), path)
	require.ErrorContains(t, err, "a cluster is running already")
}

func TestSocketOfAKilledClusterIsReplaced(t *testing.T) {
	path := socketPath(t)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	serve(t, path)
	_, err := control.Ask(t.Context(), path, "n1")
	require.NoError(t, err)
}
