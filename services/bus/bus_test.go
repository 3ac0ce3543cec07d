package bus_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/bus/bustest"
	"github.com/holdfastdb/holdfast/services/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	bustest.Run(t, func(_ *testing.T, limits bus.Limits) bustest.Server {
		memory := bus.NewMemory(limits)
		return bustest.Server{
			Connect: func(*testing.T) bus.Bus { return memory.Connect() },
			SetDown: func(_ *testing.T, down bool) { memory.SetDown(down) },
		}
	})
}

// TestNATSWithoutServer covers what the NATS binding does with nobody there; the suite needs a server.
func TestNATSWithoutServer(t *testing.T) {
	b, err := bus.NewNATS(bus.NATSConfig{URL: "nats://127.0.0.1:1", Name: "test", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err, "a server that is not there is no error")
	require.False(t, b.Connected())
	require.ErrorIs(t, b.Publish("x", nil, nil), bus.ErrDisconnected)
	require.EqualValues(t, 1, b.Dropped())
	s, err := b.Subscribe("x", func(bus.Message) {}, func(bus.Cause) {})
	require.NoError(t, err)
	require.NoError(t, s.Unsubscribe())
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Publish("x", nil, nil), bus.ErrClosed)
}

func TestNATSNeedsAURL(t *testing.T) {
	_, err := bus.NewNATS(bus.NATSConfig{URL: "nats://127.0.0.1:port", Logger: slog.New(slog.DiscardHandler)})
	require.Error(t, err)
	require.True(t, failure.Is(err, failure.Config), "%v", err)
}
