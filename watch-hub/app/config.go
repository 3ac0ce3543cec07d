package app

import (
	"fmt"
	"net"
	"os"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Config is what a watch-hub is told. Flags have etcd's names where the thing is etcd's.
type Config struct {
	// Name is told to proxies and nodes; no two hubs may share one. Empty takes the host's name.
	Name string
	// ConsensusEndpoints are peer URLs, or host:port, of consensus nodes; further members are learned from them.
	ConsensusEndpoints []string
	// Address is where proxies reach the hub, host:port. Empty takes the first advertised, else the first listened, peer URL.
	Address string
	// WatchBufferBytes bounds the newest changes kept in memory.
	WatchBufferBytes uint

	// What follows is declared by DeclareProcess, for a hub that is a process of its own.

	ListenPeerURLs    *config.URLs
	AdvertisePeerURLs *config.URLs
	ListenMetricsURLs *config.URLs
	NATSURL           string
	Profiles          bool // serve profiles on the metrics URLs
	OTLPEndpoint      string
	LogLevel          *config.LogLevel
	endpoints         *config.URLs
}

const (
	defaultPeerURL     = "http://localhost:2380"
	defaultWatchBuffer = 64 << 20

	// WatchBufferBytesMin is the least that Config.WatchBufferBytes may be.
	WatchBufferBytesMin = 1 << 20
)

// NewConfig gives the defaults.
func NewConfig() *Config {
	return &Config{
		WatchBufferBytes:  defaultWatchBuffer,
		ListenPeerURLs:    config.NewURLs(config.Listen, defaultPeerURL),
		AdvertisePeerURLs: config.NewURLs(config.Advertise),
		ListenMetricsURLs: config.NewURLs(config.Listen),
		LogLevel:          config.NewLogLevel(),
		endpoints:         config.NewURLs(config.Advertise),
	}
}

// DeclareProcess declares the flags of a hub that is a process of its own.
func (c *Config) DeclareProcess(set *config.Set) {
	set.Group("Watch-hub", func(f *pflag.FlagSet) {
		f.StringVar(&c.Name, "name", "", "human-readable name of this hub, which no other has (default: the host's name)")
		f.Var(c.endpoints, "consensus-endpoints", "peer URLs of consensus nodes, http://host:port,...; others are learned from them")
		f.StringVar(&c.NATSURL, "nats-url", "", "NATS servers that carry the change feed, nats://host:port,... (none: direct streams only)")
		f.Var(c.ListenPeerURLs, "listen-peer-urls", "URLs to listen on for proxies")
		f.Var(c.AdvertisePeerURLs, "advertise-peer-urls", "URL to tell to proxies (default: what --listen-peer-urls says)")
		f.UintVar(&c.WatchBufferBytes, "watch-buffer-bytes", defaultWatchBuffer, "newest changes in bytes kept in memory for watches that catch up")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(c.ListenMetricsURLs, "listen-metrics-urls", "URLs that serve /metrics and /health")
		f.StringVar(&c.OTLPEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.BoolVar(&c.Profiles, "enable-pprof", false, "serve the Go runtime's profiles at /debug/pprof/ of the metrics URLs")
		f.Var(c.LogLevel, "log-level", "debug, info, warn, error, panic or fatal")
	})
}

// Finish fills in what depends on other settings and checks them. The error is of kind failure.Config.
func (c *Config) Finish() error {
	if len(c.ConsensusEndpoints) == 0 && c.endpoints != nil {
		c.ConsensusEndpoints = c.endpoints.HostPorts()
	}
	if c.Name == "" {
		host, err := config.HostName("--name")
		if err != nil {
			return err
		}
		c.Name = host
	}
	switch {
	case len(c.ConsensusEndpoints) == 0:
		return failure.New(failure.Config, "--consensus-endpoints is missing: name the peer URL of at least one consensus node")
	case c.WatchBufferBytes < WatchBufferBytesMin:
		return failure.New(failure.Config, fmt.Sprintf("--watch-buffer-bytes must be at least %d", WatchBufferBytesMin))
	}
	if c.Address == "" {
		return c.finishAddress()
	}
	return nil
}

// finishAddress finds where proxies reach the hub. An address that stands for all of the host's is no use to others, so the
// host's name takes its place.
func (c *Config) finishAddress() error {
	if advertised := c.AdvertisePeerURLs.HostPorts(); len(advertised) > 0 {
		c.Address = advertised[0]
		return nil
	}
	listened := c.ListenPeerURLs.HostPorts()
	if len(listened) == 0 {
		return failure.New(failure.Config, "--listen-peer-urls is empty: proxies could not reach this hub")
	}
	host, port, err := net.SplitHostPort(listened[0])
	if err != nil {
		return failure.Wrap(failure.Config, "--listen-peer-urls is malformed", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return failure.Wrap(failure.Config, "--advertise-peer-urls is missing and the host has no name: say where proxies reach this hub", err)
		}
	}
	c.Address = net.JoinHostPort(host, port)
	return nil
}
