package app

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"

	"github.com/holdfastdb/holdfast/lease-service/internal/keeper"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	"github.com/holdfastdb/holdfast/lease-service/internal/tier"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// Conn is a connection to a consensus node, over the network or direct.
type Conn = tier.Conn

// Dependencies are what an instance is given by its process.
type Dependencies struct {
	Logger *slog.Logger
	// Tracers makes the tracer; nil turns tracing off.
	Tracers trace.TracerProvider
	// Metrics takes the metrics; nil keeps them to the instance.
	Metrics prometheus.Registerer
	// Bus carries the feed and takes the lease events; nil: direct streams alone, and no events. The instance does not
	// close it.
	Bus bus.Bus
	// Dial connects to a consensus node at host:port, without waiting for it; nil dials over the network. Standalone
	// answers for its own address with a direct binding, whose Close may do nothing.
	Dial func(address string) (Conn, error)
	// Clock is the clock of all deadlines; nil is the time since boot.
	Clock clock.Clock
	// Incarnation is a number that no other start of an instance of this name has or had; 0 takes the time. Where it is not larger
	// than that of the start before, the consensus tier waits until it knows that one to be gone.
	Incarnation uint64
}

// Instance is one lease-service. Make one with New.
type Instance struct {
	config  *Config
	tier    *tier.Tier
	service *keeper.Service
}

// New makes an instance; nothing runs yet and nothing listens. The error is of kind failure.Config.
func New(config *Config, deps Dependencies) (*Instance, error) {
	if err := config.Finish(); err != nil {
		return nil, err
	}
	if deps.Dial == nil {
		deps.Dial = dial
	}
	if deps.Clock == nil {
		deps.Clock = clock.Boottime{}
	}
	if deps.Tracers == nil {
		deps.Tracers = noop.NewTracerProvider()
	}
	if deps.Incarnation == 0 {
		deps.Incarnation = uint64(time.Now().UnixNano())
	}
	i := &Instance{config: config}
	i.tier = tier.New(tier.Config{
		Endpoints: config.ConsensusEndpoints, Dial: deps.Dial, Clock: deps.Clock, Logger: deps.Logger,
		Announcement: &consensusv1.Announcement{
			Kind: consensusv1.ServiceKind_SERVICE_KIND_LEASE_SERVICE,
			Name: config.Name, Run: deps.Incarnation, Address: config.address(),
		},
	})
	i.service = keeper.New(keeper.Config{
		Instance: &feedv1.Instance{Name: config.Name, Incarnation: deps.Incarnation, Address: config.address()},
		Tier:     i.tier, Bus: deps.Bus, Clock: deps.Clock, Drift: ownership.Drift(config.DriftPercent), Logger: deps.Logger,
		Tracer:  deps.Tracers.Tracer("github.com/holdfastdb/holdfast/lease-service"),
		Metrics: keeper.NewMetrics(deps.Metrics),
	})
	return i, nil
}

func dial(address string) (Conn, error) { return grpcclient.Dial(grpcclient.Config{}, address) }

// Register puts the service for proxies on a server, such as a direct binding. Proxies call it under the advertised address.
func (i *Instance) Register(registrar grpc.ServiceRegistrar) {
	leasev1.RegisterKeeperServer(registrar, i.service)
}

// Parts are the instance's work in the order of its start. serving, which may have none, are the parts that serve what Register
// registered: they run before the instance enters the view, and stop only after it has given its leases up.
func (i *Instance) Parts(serving ...lifecycle.Part) []lifecycle.Part {
	parts := []lifecycle.Part{
		{Name: "consensus tier", Run: i.tier.Run},
	}
	parts = append(parts, serving...)
	return append(parts, i.service.Parts()...)
}

// Close closes the connections. Call it after the Parts have ended.
func (i *Instance) Close() { i.tier.Close() }

// Serving tells whether the instance is in the view and may acknowledge keepalives.
func (i *Instance) Serving() bool { return i.service.Serving() }

// HTTP serves /health and metrics, for a port of their own. Health is 200 while the instance is Serving.
func (i *Instance) HTTP(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !i.Serving() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"health":"false","reason":"not in the view, or no heartbeat confirmed"}`)
			return
		}
		_, _ = io.WriteString(w, `{"health":"true","reason":""}`)
	})
	return telemetry.WithProfiles(i.config.Profiles, mux)
}
