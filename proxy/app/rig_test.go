package app_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// directly serves in this process; addresses are names.
type directly struct {
	mu    sync.Mutex
	conns map[string]*direct.Conn
}

func (d *directly) serve(t *testing.T, register func(grpc.ServiceRegistrar)) (string, func()) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	address := fmt.Sprintf("direct-%d:1", len(d.conns))
	conn := direct.New(address)
	register(conn)
	d.conns[address] = conn
	t.Cleanup(conn.Close)
	return address, conn.Close
}

// borrowed is a direct connection that its user does not own.
type borrowed struct{ *direct.Conn }

func (borrowed) Close() error { return nil }

func (d *directly) dial(address string) (app.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if conn, ok := d.conns[address]; ok {
		return borrowed{conn}, nil
	}
	return nil, errRefused
}

// rig is a proxy with a fake world behind it and a client in front.
type rig struct {
	t       *testing.T
	world   *world
	binding binding
	dial    func(string) (app.Conn, error)
	nodes   []*node
	client  *grpc.ClientConn
	proxy   *app.Proxy
	config  *app.Config
	tracers trace.TracerProvider
	stop    func() // asks the proxy to end
}

// eachBinding runs a test over both bindings of the contracts.
func eachBinding(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		test(t, &rig{t: t, world: newWorld(), binding: overGRPC{}, dial: func(address string) (app.Conn, error) {
			return grpcclient.Dial(grpcclient.Config{}, address)
		}})
	})
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		d := &directly{conns: map[string]*direct.Conn{}}
		test(t, &rig{t: t, world: newWorld(), binding: d, dial: d.dial})
	})
}

// addNodes makes so many consensus nodes, the first of them leader.
func (r *rig) addNodes(count int) {
	r.t.Helper()
	for range count {
		n := newNode(r.world, uint64(len(r.nodes)+1))
		r.nodes = append(r.nodes, n)
		address, _ := r.binding.serve(r.t, func(s grpc.ServiceRegistrar) { consensusv1.RegisterConsensusServer(s, n) })
		r.world.update(func(t *consensusv1.Topology) {
			t.Leader = 1
			t.Members = append(t.Members, &consensusv1.Member{Id: n.id, PeerUrls: []string{"http://" + address}})
		})
	}
}

// addHub announces a watch-hub and gives what stops it.
func (r *rig) addHub(name string) (*hub, func()) {
	r.t.Helper()
	h := newHub(r.world, name)
	address, stop := r.binding.serve(r.t, func(s grpc.ServiceRegistrar) { watchv1.RegisterHubServer(s, h) })
	r.world.update(func(t *consensusv1.Topology) {
		t.Services = append(t.Services, &consensusv1.Announcement{
			Kind: consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB, Name: name, Run: 1, Address: address,
		})
	})
	return h, stop
}

// addKeeper puts a lease-service instance into the view.
func (r *rig) addKeeper(name string) (*keeper, *feedv1.Instance, func()) {
	r.t.Helper()
	k := &keeper{world: r.world, name: name}
	address, stop := r.binding.serve(r.t, func(s grpc.ServiceRegistrar) { leasev1.RegisterKeeperServer(s, k) })
	instance := &feedv1.Instance{Name: name, Incarnation: 1, Address: address}
	r.view(func(v *feedv1.View) { v.Instances = append(v.Instances, instance) })
	return k, instance, stop
}

func (r *rig) view(change func(v *feedv1.View)) {
	r.world.update(func(t *consensusv1.Topology) {
		if t.View == nil {
			t.View = &feedv1.View{}
		}
		t.View.Epoch++
		change(t.View)
	})
}

// start runs the proxy and connects a client.
func (r *rig) start() {
	r.t.Helper()
	listener, err := new(net.ListenConfig).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	if r.config == nil {
		r.config = app.NewConfig()
	}
	for _, member := range r.world.topology.GetMembers() {
		r.config.ConsensusEndpoints = append(r.config.ConsensusEndpoints, member.GetPeerUrls()...)
	}
	registry := prometheus.NewRegistry()
	r.proxy, err = app.New(r.t.Context(), r.config, app.Dependencies{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: registry, Tracers: r.tracers,
		MetricsHandler:  telemetry.MetricsHandler(registry),
		ClientListeners: []net.Listener{listener}, Dial: r.dial,
	})
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	ended := make(chan error, 1)
	go func() { ended <- r.proxy.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		require.NoError(r.t, <-ended)
	})
	r.client, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Fixed windows, so that a client that does not read is felt soon.
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, r.client.Close()) })
}

// ready starts the proxy and waits until it serves.
func (r *rig) ready() {
	r.t.Helper()
	r.start()
	select {
	case <-r.proxy.Ready():
	case <-time.After(5 * time.Second):
		r.t.Fatal("the proxy did not become ready")
	}
}

// serveKeeper serves an instance that is in no view.
func serveKeeper(t *testing.T, r *rig, k *keeper) string {
	t.Helper()
	address, _ := r.binding.serve(t, func(s grpc.ServiceRegistrar) { leasev1.RegisterKeeperServer(s, k) })
	return address
}
