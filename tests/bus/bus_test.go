// Package bus holds what needs a real NATS server: the conformance suite of services/bus over the network, and what a
// subscriber outside of a standalone process hears.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/bus/bustest"
	"github.com/holdfastdb/holdfast/tests/framework"
)

const natsProgram = "nats-server"

func TestMain(m *testing.M) { os.Exit(framework.Main(m, natsProgram, "holdfast")) }

const (
	host = "127.0.0.1"
	// patience bounds every wait; reaching it is a failure.
	patience = 15 * time.Second
	// tick is how often a wait looks.
	tick = 5 * time.Millisecond
)

// The binding to NATS does what the one in memory does.
func TestConformance(t *testing.T) {
	bustest.Run(t, func(t *testing.T, limits bus.Limits) bustest.Server {
		t.Helper()
		// Cleaned up after everything else of the test.
		before := goleak.IgnoreCurrent()
		t.Cleanup(func() { goleak.VerifyNone(t, before) })
		s := newServer(t)
		s.start(t)
		return bustest.Server{
			Connect: func(t *testing.T) bus.Bus { t.Helper(); return s.connect(t, limits) },
			SetDown: func(t *testing.T, down bool) {
				t.Helper()
				if down {
					s.kill(t)
				} else {
					s.start(t)
				}
			},
		}
	})
}

// server is a nats-server on a port of its own, which it keeps from one life to the next.
type server struct {
	address string
	config  string
	process *exec.Cmd // nil while it is down
}

func newServer(t *testing.T) *server {
	t.Helper()
	ports, err := runner.FreePorts(t.Context(), host)
	require.NoError(t, err)
	s := &server{
		address: net.JoinHostPort(host, strconv.Itoa(ports["nats"].Client)),
		config:  filepath.Join(t.TempDir(), "nats.conf"),
	}
	// As the systems set it up: a slow subscriber loses messages of its own and stalls no publisher.
	text := fmt.Sprintf("listen: %q\nno_fast_producer_stall: true\n", s.address)
	require.NoError(t, os.WriteFile(s.config, []byte(text), 0o600))
	t.Cleanup(func() { s.kill(t) })
	return s
}

// start runs the server and waits until it listens.
func (s *server) start(t *testing.T) {
	t.Helper()
	// It outlives the context of the test, whose clean-up still uses it.
	s.process = exec.CommandContext(context.WithoutCancel(t.Context()), framework.Program(t, natsProgram), "--config", s.config)
	require.NoError(t, s.process.Start())
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", s.address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, patience, tick, "nats-server listens at %s", s.address)
}

// kill ends the server without a farewell, as a crash does.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if s.process == nil {
		return
	}
	require.NoError(t, s.process.Process.Kill())
	err := s.process.Wait()
	if _, killed := errors.AsType[*exec.ExitError](err); !killed {
		require.NoError(t, err)
	}
	s.process = nil
}

func (s *server) connect(t *testing.T, limits bus.Limits) bus.Bus {
	t.Helper()
	return connect(t, s.address, limits)
}

func connect(t *testing.T, address string, limits bus.Limits) bus.Bus {
	t.Helper()
	b, err := bus.NewNATS(bus.NATSConfig{
		URL: "nats://" + address, Name: t.Name(), Limits: limits, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return b
}

// A subscription made once the connection says that it is up missed nothing, however late the news of the connection
// is told to those made before.
func TestSubscribedOnceConnected(t *testing.T) {
	s := newServer(t)
	s.start(t)
	gaps := make(chan bus.Cause, 10)
	connected, subscribed := make(chan struct{}), make(chan struct{})
	b, err := bus.NewNATS(bus.NATSConfig{
		URL: "nats://" + s.address, Name: t.Name(), Logger: slog.New(blocksOnce{reached: connected, release: subscribed}),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	<-connected // the connection is about to tell its subscriptions
	require.True(t, b.Connected())
	messages := make(chan bus.Message, 10)
	_, err = b.Subscribe("x", func(m bus.Message) { messages <- m }, func(c bus.Cause) { gaps <- c })
	require.NoError(t, err)
	close(subscribed)
	require.NoError(t, b.Publish("x", nil, nil))
	select {
	case <-messages:
	case <-time.After(patience):
		require.FailNow(t, "what is published arrives")
	}
	s.kill(t)
	require.Equal(t, bus.Disconnect, <-gaps, "the first gap is the first interruption")
}

// blocksOnce is a log whose first record waits for release.
type blocksOnce struct{ reached, release chan struct{} }

func (h blocksOnce) Enabled(context.Context, slog.Level) bool { return true }
func (h blocksOnce) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h blocksOnce) WithGroup(string) slog.Handler            { return h }

func (h blocksOnce) Handle(context.Context, slog.Record) error {
	select {
	case <-h.release:
	default:
		close(h.reached)
		<-h.release
	}
	return nil
}
