package app

import (
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Config is what an instance is told.
type Config struct {
	// Name is the instance's in the view; two instances of one name take the leases away from each other.
	Name string
	// ConsensusEndpoints are peer URLs of consensus nodes; further members are learned from them.
	ConsensusEndpoints []string
	// AdvertisePeerURLs is where proxies reach the instance; the first counts.
	AdvertisePeerURLs *config.URLs

	// DriftPercent bounds how far the rates of two clocks of the cluster differ. The instance gives up so much of its right to acknowledge.
	DriftPercent uint

	// What follows is declared by DeclareProcess, for an instance that is a process of its own.

	ListenPeerURLs    *config.URLs
	ListenMetricsURLs *config.URLs
	NATSURL           string
	Profiles          bool // serve profiles on the metrics URLs
	OTLPEndpoint      string
	OTLPSampleRatio   float64
	LogLevel          *config.LogLevel
	endpoints         *config.URLs
}

const defaultPeerURL = "http://localhost:2390"

// NewConfig gives the defaults.
func NewConfig() *Config {
	return &Config{
		AdvertisePeerURLs: config.NewURLs(config.Advertise),
		DriftPercent:      uint(ownership.DriftDefault),
		ListenPeerURLs:    config.NewURLs(config.Listen, defaultPeerURL),
		ListenMetricsURLs: config.NewURLs(config.Listen),
		LogLevel:          config.NewLogLevel(),
		endpoints:         config.NewURLs(config.Advertise),
	}
}

// DeclareClock declares what an instance is told of clocks, as a process of its own or as a part of one.
func (c *Config) DeclareClock(f *pflag.FlagSet) {
	f.UintVar(&c.DriftPercent, "lease-clock-drift-percent", c.DriftPercent,
		"how far the rates of two clocks of the cluster may differ, 1 to 50; need not be equal everywhere: each process's own holds for the keepalives it answers")
}

// DeclareProcess declares the flags of an instance that is a process of its own.
func (c *Config) DeclareProcess(set *config.Set) {
	set.Group("Lease service", func(f *pflag.FlagSet) {
		f.StringVar(&c.Name, "name", "", "name of this instance, which no other has (default: the host's name)")
		f.Var(c.endpoints, "consensus-endpoints", "peer URLs of consensus nodes, http://host:port,...; others are learned from them")
		f.Var(c.ListenPeerURLs, "listen-peer-urls", "URLs to listen on for proxies")
		f.Var(c.AdvertisePeerURLs, "advertise-peer-urls", "URL to tell to proxies (default: what --listen-peer-urls says)")
		c.DeclareClock(f)
		f.StringVar(&c.NATSURL, "nats-url", "", "NATS servers that carry the change feed, nats://host:port,... (none: direct streams only)")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(c.ListenMetricsURLs, "listen-metrics-urls", "URLs that serve /metrics and /health")
		f.StringVar(&c.OTLPEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.Float64Var(&c.OTLPSampleRatio, "otlp-sample-ratio", 1, "share of the expiries that are traced, from 0 to 1")
		f.BoolVar(&c.Profiles, "enable-pprof", false, "serve the Go runtime's profiles at /debug/pprof/ of the metrics URLs")
		f.Var(c.LogLevel, "log-level", "debug, info, warn, error, panic or fatal")
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
	if drift := ownership.Drift(min(c.DriftPercent, 100)); drift < ownership.DriftLeast || drift > ownership.DriftMost {
		return failure.New(failure.Config, fmt.Sprintf("--lease-clock-drift-percent is %d: must be %d to %d", c.DriftPercent,
			ownership.DriftLeast, ownership.DriftMost))
	}
	if len(c.ConsensusEndpoints) == 0 {
		return failure.New(failure.Config, "--consensus-endpoints is missing: name the peer URL of at least one consensus node")
	}
	if len(c.AdvertisePeerURLs.List()) == 0 {
		return c.advertiseListened()
	}
	return nil
}

// advertiseListened tells proxies what the instance listens on. An address that stands for all of the host's is no use to
// others, so the host's name takes its place.
func (c *Config) advertiseListened() error {
	listened := c.ListenPeerURLs.HostPorts()
	if len(listened) == 0 {
		return failure.New(failure.Config, "--listen-peer-urls is empty: proxies could not reach this instance")
	}
	host, port, err := net.SplitHostPort(listened[0])
	if err != nil {
		return failure.Wrap(failure.Config, "--listen-peer-urls is malformed", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return failure.Wrap(failure.Config, "--advertise-peer-urls is missing and the host has no name: say where proxies reach this instance", err)
		}
	}
	return c.AdvertisePeerURLs.Set("http://" + net.JoinHostPort(host, port))
}

// address is where proxies reach the instance, host:port.
func (c *Config) address() string { return c.AdvertisePeerURLs.HostPorts()[0] }
