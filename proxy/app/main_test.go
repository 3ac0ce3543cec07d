package app_test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

func runMain(ctx context.Context, args ...string) (string, string, error) {
	var stdout, stderr bytes.Buffer
	err := app.Main(ctx, config.Source{Args: args}, &stdout, &stderr)
	return stdout.String(), stderr.String(), err
}

func TestBadInputIsOneLine(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	endpoints := "--consensus-endpoints=http://127.0.0.1:1"
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--consensus-endpoints is missing"},
		{[]string{"--consensus-endpoints=127.0.0.1:1"}, "write http://host:port"},
		{[]string{endpoints, "--drain-timeout=-1s"}, "must not be negative"},
		{[]string{endpoints, "--watch-buffer-bytes=1"}, "must be at least 1048576"},
		{[]string{endpoints, "--watch-progress-notify-interval=1ms"}, "must be at least 100ms"},
		{[]string{endpoints, "--election-timeout=60000"}, "must be at most 50000"},
		{[]string{endpoints, "--max-request-bytes=0"}, "must be at least 1"},
		{[]string{endpoints, "--client-cert-auth"}, "does not support yet"},
		{[]string{endpoints, "--listen-client-urls=http://" + taken.Addr().String()}, "the port is in use"},
		{[]string{endpoints, "--listen-client-urls=http://127.0.0.1:0", "--otlp-endpoint=nonsense"}, "must be host:port"},
	} {
		_, _, err := runMain(t.Context(), test.args...)
		require.ErrorContains(t, err, test.want)
		require.True(t, failure.Is(err, failure.Config), "%v", err)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestHelpAndVersion(t *testing.T) {
	stdout, _, err := runMain(t.Context(), "--version")
	require.NoError(t, err)
	require.Contains(t, stdout, "proxy Version: ")
	stdout, _, err = runMain(t.Context(), "--help")
	require.NoError(t, err)
	require.Contains(t, stdout, "consensus-endpoints")
}

// Without any cluster the process starts, serves its health and ends when told.
func TestProcessStartsAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := runMain(ctx, "--consensus-endpoints=http://127.0.0.1:1", "--listen-client-urls=http://127.0.0.1:0",
		"--listen-metrics-urls=http://127.0.0.1:0", "--metrics=extensive")
	require.NoError(t, err)
}
