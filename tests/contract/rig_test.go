package contract

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	consensus "github.com/holdfastdb/holdfast/consensus-node/app"
	lease "github.com/holdfastdb/holdfast/lease-service/app"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	hub "github.com/holdfastdb/holdfast/watch-hub/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the suites; reaching it is a failure.
const (
	patience = 15 * time.Second
	// tick is how often a wait looks.
	tick = 5 * time.Millisecond
)

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// The revisions that are written before the node's last start. Nobody has them in memory, so they come from the store.
const (
	oldKey   = "old"
	oldFirst = 2
	oldLast  = 21
)

// services are a consensus node, a watch-hub and a lease-service in one process, behind both bindings.
type services struct {
	node  *consensus.Node
	hub   *hub.Hub
	lease *lease.Instance

	memory   *bus.Memory
	direct   *direct.Conn
	server   *grpcserver.Server
	address  string
	bindings []binding
}

// binding is a way to reach the services.
type binding struct {
	name string
	conn grpc.ClientConnInterface
}

// local is the direct binding for a service that may close its connections.
type local struct{ *direct.Conn }

func (local) Close() error { return nil }

// discarded is where the services log to.
func discarded() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs the services. They end with the test.
func start(t *testing.T) *services {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &services{memory: bus.NewMemory(bus.Limits{}), direct: direct.New("services"), address: listener.Addr().String()}
	cfg := nodeConfig(t, t.TempDir(), s.address)
	writeOld(t, cfg)

	s.server = grpcserver.New(grpcserver.Config{Logger: discarded(), Internal: true, GraceMax: 10 * time.Millisecond}, listener)
	s.node, err = consensus.Open(cfg, consensus.Dependencies{
		Logger: discarded(), Tracers: noop.NewTracerProvider(), Bus: s.connect(t), SpeakAlways: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.node.Close()) })
	s.buildHub(t)
	s.buildLease(t)
	for _, registrar := range []grpc.ServiceRegistrar{s.direct, s.server} {
		s.node.RegisterConsensus(registrar)
		s.hub.Register(registrar)
		s.lease.Register(registrar)
	}

	t.Cleanup(s.direct.Close) // after the parts: they take leave of each other
	parts := append(s.node.Parts(), s.server.Part("server"))
	parts = append(parts, s.hub.Parts()...)
	parts = append(parts, s.lease.Parts()...)
	run(t, append(parts, s.node.LastPart()))
	network, err := grpcclient.Dial(grpcclient.Config{}, s.address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, network.Close()) })
	s.bindings = []binding{{"direct", s.direct}, {"network", network}}
	require.NoError(t, s.node.Healthy(bounded(t)))
	require.Eventually(t, func() bool { return s.hub.Following() && s.lease.Serving() }, patience, tick)
	return s
}

// connect gives a service its connection to the bus.
func (s *services) connect(t *testing.T) bus.Bus {
	t.Helper()
	connection := s.memory.Connect()
	t.Cleanup(func() { require.NoError(t, connection.Close()) })
	return connection
}

func nodeConfig(t *testing.T, dir, address string) *consensus.Config {
	t.Helper()
	cfg := consensus.NewConfig()
	set := config.NewSet(consensus.Program)
	cfg.DeclareMember(set)
	url := "http://" + address
	_, err := set.Parse(config.Source{Args: []string{
		"--name=n1", "--data-dir=" + dir,
		"--listen-peer-urls=" + url, "--initial-advertise-peer-urls=" + url,
	}})
	require.NoError(t, err)
	require.NoError(t, cfg.Finish())
	return cfg
}

func (s *services) buildHub(t *testing.T) {
	t.Helper()
	cfg := hub.NewConfig()
	cfg.Name, cfg.Address, cfg.ConsensusEndpoints = "hub1", s.address, []string{s.address}
	var err error
	s.hub, err = hub.New(cfg, hub.Dependencies{
		Logger: discarded(), Metrics: prometheus.NewRegistry(), Bus: s.connect(t), Prefer: s.address,
		Dial: func(string) (hub.Conn, error) { return local{s.direct}, nil },
	})
	require.NoError(t, err)
}

func (s *services) buildLease(t *testing.T) {
	t.Helper()
	cfg := lease.NewConfig()
	cfg.Name, cfg.ConsensusEndpoints = "lease1", []string{"http://" + s.address}
	require.NoError(t, cfg.AdvertisePeerURLs.Set("http://"+s.address))
	var err error
	s.lease, err = lease.New(cfg, lease.Dependencies{
		Logger: discarded(), Bus: s.connect(t),
		Dial: func(string) (lease.Conn, error) { return local{s.direct}, nil },
	})
	require.NoError(t, err)
	t.Cleanup(s.lease.Close)
}

// run runs parts until the test ends.
func run(t *testing.T, parts []lifecycle.Part) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	group := lifecycle.NewGroup(discarded(), 0, parts...)
	go func() { ended <- group.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(stop)
	return stop
}

// writeOld runs the node alone for as long as it takes to write the old revisions.
func writeOld(t *testing.T, cfg *consensus.Config) {
	t.Helper()
	node, err := consensus.Open(cfg, consensus.Dependencies{Logger: discarded(), Tracers: noop.NewTracerProvider()})
	require.NoError(t, err)
	conn := direct.New("old")
	node.RegisterConsensus(conn)
	stop := run(t, node.Parts())
	require.NoError(t, node.Healthy(bounded(t)))
	c := newCaller(t, conn)
	for revision := oldFirst; revision <= oldLast; revision++ {
		require.EqualValues(t, revision, c.put(oldKey, fmt.Sprint(revision)))
	}
	c.close()
	conn.Close()
	stop()
	require.NoError(t, node.Close())
}

// suite is what holds for a contract, however it is reached.
type suite func(t *testing.T, s *services, conn grpc.ClientConnInterface)

// Each suite runs over each binding of the same services.
func TestContracts(t *testing.T) {
	s := start(t)
	for _, contract := range []struct {
		name   string
		suites map[string]suite
	}{
		{"consensus", consensusSuites()},
		{"hub", hubSuites()},
		{"keeper", keeperSuites()},
		{"consensus stream", streamSuites()}, // last: it compacts
	} {
		for _, b := range s.bindings {
			for name, suite := range contract.suites {
				t.Run(contract.name+"/"+b.name+"/"+name, func(t *testing.T) { suite(t, s, b.conn) })
			}
		}
	}
}

// key is a key that no other test uses.
func key(t *testing.T, suffix string) string {
	t.Helper()
	return t.Name() + "/" + suffix
}
