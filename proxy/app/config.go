package app

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/proxy/internal/fanout"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Config is what a proxy is told. Flags have etcd's names and defaults where the thing is etcd's.
type Config struct {
	// Name stands in the announcements and logs of the other services.
	Name string
	// ListenClientURLs are bound unless Dependencies bring listeners.
	ListenClientURLs *config.URLs
	// AdvertiseClientURLs are told when the proxy is ready.
	AdvertiseClientURLs *config.URLs
	// ConsensusEndpoints are peer URLs of consensus nodes, in order of preference for serializable reads; further
	// members are learned from them.
	ConsensusEndpoints []string
	// Own is the host:port of the consensus node in whose process the proxy runs; empty for a process of its own. That node
	// answers reads, and what is asked of one member.
	Own string
	// ElectionMs is the election timeout of the cluster in milliseconds: it bounds calls and, three times over, streams
	// that require a leader.
	ElectionMs uint
	// RequestBytesMax is the largest request in bytes, without gRPC's overhead.
	RequestBytesMax uint
	// WatchBufferBytes bounds the events that wait for one client stream.
	WatchBufferBytes uint
	// WatchNotifyInterval is the time between notices to idle watches that asked for them.
	WatchNotifyInterval time.Duration
	// RemovalTime is how long a lease-service that is not heard of may acknowledge keepalives; 0 is the cluster's
	// default.
	RemovalTime time.Duration
	Metrics     *config.Choice
	// DrainDelay is how long a proxy that is to end goes on as ever after its health says no: what balances calls must notice before
	// connections are asked to go.
	DrainDelay time.Duration
	// DrainTimeout bounds how long calls and streams may go on after that; 0 is the server's default.
	DrainTimeout time.Duration
	// ConnectionAgeMax is when a client is asked to connect again; 0 is never. ConnectionGrace is how long its streams may stay; 0 is
	// without bound.
	ConnectionAgeMax, ConnectionGrace time.Duration

	// What follows is declared by DeclareProcess, for a proxy that is a process of its own.

	ListenMetricsURLs *config.URLs
	Profiles          bool // serve profiles on the client and metrics URLs
	OTLPEndpoint      string
	OTLPSampleRatio   float64
	LogLevel          *config.LogLevel
	endpoints         *config.URLs
}

// Defaults that etcd has too, and our own.
const (
	defaultClientURL    = "http://localhost:2379"
	defaultElectionMs   = 1000
	defaultRequestBytes = 1_572_864
	defaultWatchBuffer  = 16 << 20
	// requestOverhead is what gRPC may add to a request, as etcd allows it.
	requestOverhead = 512 << 10
	// requestBase and two election timeouts bound a call, as in etcd.
	requestBase = 5 * time.Second
	// defaultDrain is what a stop takes where clients watch.
	defaultDrain = time.Second
	// watchBufferMin is room for one response.
	watchBufferMin = 1 << 20
)

// NewConfig gives the defaults.
func NewConfig() *Config {
	return &Config{
		ListenClientURLs:    config.NewURLs(config.Listen, defaultClientURL),
		AdvertiseClientURLs: config.NewURLs(config.Advertise, defaultClientURL),
		ElectionMs:          defaultElectionMs,
		RequestBytesMax:     defaultRequestBytes,
		WatchBufferBytes:    defaultWatchBuffer,
		WatchNotifyInterval: fanout.NotifyIntervalDefault,
		Metrics:             config.NewChoice("basic", "extensive"),
		ListenMetricsURLs:   config.NewURLs(config.Listen),
		LogLevel:            config.NewLogLevel(),
		endpoints:           config.NewURLs(config.Advertise),
	}
}

// DeclareClients declares the flags of the client side, which standalone has too.
func (c *Config) DeclareClients(set *config.Set) {
	set.Group("Clients", func(f *pflag.FlagSet) {
		f.Var(c.ListenClientURLs, "listen-client-urls", "URLs to listen on for clients")
		f.UintVar(&c.WatchBufferBytes, "watch-buffer-bytes", defaultWatchBuffer,
			"events in bytes that wait for one watch stream; past it a slow client's watches catch up later")
		f.DurationVar(&c.WatchNotifyInterval, "watch-progress-notify-interval", fanout.NotifyIntervalDefault,
			"time between progress notices to idle watches that asked for them")
	})
}

// DeclareProcess declares the flags of a proxy that is a process of its own.
func (c *Config) DeclareProcess(set *config.Set) {
	set.Group("Proxy", func(f *pflag.FlagSet) {
		f.StringVar(&c.Name, "name", "", "human-readable name of this proxy (default: the host's name)")
		f.Var(c.AdvertiseClientURLs, "advertise-client-urls", "client URLs to tell when ready")
		f.Var(c.endpoints, "consensus-endpoints", "peer URLs of consensus nodes, http://host:port,...; others are learned from them")
		f.UintVar(&c.ElectionMs, "election-timeout", defaultElectionMs, "the cluster's election timeout in milliseconds")
		f.UintVar(&c.RequestBytesMax, "max-request-bytes", defaultRequestBytes, "largest request in bytes")
		f.DurationVar(&c.DrainDelay, "drain-delay", 0,
			"after SIGTERM, how long /health says no before connections are asked to go: until a load balancer has noticed")
		f.DurationVar(&c.DrainTimeout, "drain-timeout", defaultDrain,
			"how long calls and streams may go on after that; watch streams are ended then, and go on elsewhere")
		f.DurationVar(&c.ConnectionAgeMax, "max-connection-age", 0,
			"when a client is asked to connect again, so that clients behind one address spread over the proxies (0: never)")
		f.DurationVar(&c.ConnectionGrace, "max-connection-age-grace", 0,
			"how long its streams may stay on the old connection (0: until they end)")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(c.ListenMetricsURLs, "listen-metrics-urls", "URLs that serve /metrics, /health and /version")
		f.StringVar(&c.OTLPEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.Float64Var(&c.OTLPSampleRatio, "otlp-sample-ratio", 1,
			"share of the requests that are traced, from 0 to 1; a client that traces decides for its own")
		f.BoolVar(&c.Profiles, "enable-pprof", false, "serve the Go runtime's profiles at /debug/pprof/ of the client and metrics URLs")
		f.Var(c.LogLevel, "log-level", "debug, info, warn, error, panic or fatal")
		f.Var(c.Metrics, "metrics", "basic or extensive")
	})
}

// Finish fills in what depends on other settings and checks them. The error is of kind failure.Config.
func (c *Config) Finish() error {
	if len(c.ConsensusEndpoints) == 0 && c.endpoints != nil {
		c.ConsensusEndpoints = c.endpoints.Strings()
	}
	if c.Name == "" {
		host, err := config.HostName("--name")
		if err != nil {
			return err
		}
		c.Name = host
	}
	switch {
	case c.DrainDelay < 0 || c.DrainTimeout < 0 || c.ConnectionAgeMax < 0 || c.ConnectionGrace < 0:
		return failure.New(failure.Config, "--drain-delay, --drain-timeout, --max-connection-age and --max-connection-age-grace must not be negative")
	case len(c.ConsensusEndpoints) == 0:
		return failure.New(failure.Config, "--consensus-endpoints is missing: name the peer URL of at least one consensus node")
	case c.RequestBytesMax == 0:
		return failure.New(failure.Config, "--max-request-bytes must be at least 1")
	case c.WatchBufferBytes < watchBufferMin:
		return failure.New(failure.Config, fmt.Sprintf("--watch-buffer-bytes must be at least %d", watchBufferMin))
	case c.WatchNotifyInterval < fanout.NotifyIntervalShortest:
		return failure.New(failure.Config, fmt.Sprintf("--watch-progress-notify-interval must be at least %v", fanout.NotifyIntervalShortest))
	}
	// The heartbeat is the nodes' business; here the election timeout alone counts.
	return config.CheckElection(1, c.ElectionMs)
}

func (c *Config) election() time.Duration { return time.Duration(c.ElectionMs) * time.Millisecond }
