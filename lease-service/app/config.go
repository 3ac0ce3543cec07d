package app

import (
	"github.com/spf13/pflag"

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

	// What follows is declared by DeclareProcess, for an instance that is a process of its own.

	ListenPeerURLs    *config.URLs
	ListenMetricsURLs *config.URLs
	NATSURL           string
	OTLPEndpoint      string
	LogLevel          *config.LogLevel
	endpoints         *config.URLs
}

const (
	defaultName    = "lease-service"
	defaultPeerURL = "http://localhost:2390"
)

// NewConfig gives the defaults.
func NewConfig() *Config {
	return &Config{
		Name:              defaultName,
		AdvertisePeerURLs: config.NewURLs(config.Advertise, defaultPeerURL),
		ListenPeerURLs:    config.NewURLs(config.Listen, defaultPeerURL),
		ListenMetricsURLs: config.NewURLs(config.Listen),
		LogLevel:          config.NewLogLevel(),
		endpoints:         config.NewURLs(config.Advertise),
	}
}

// DeclareProcess declares the flags of an instance that is a process of its own.
func (c *Config) DeclareProcess(set *config.Set) {
	set.Group("Lease service", func(f *pflag.FlagSet) {
		f.StringVar(&c.Name, "name", defaultName, "name of this instance, unlike that of any other")
		f.Var(c.endpoints, "consensus-endpoints", "peer URLs of consensus nodes, http://host:port,...; others are learned from them")
		f.Var(c.ListenPeerURLs, "listen-peer-urls", "URLs to listen on for proxies")
		f.Var(c.AdvertisePeerURLs, "advertise-peer-urls", "URL under which proxies reach this instance")
		f.StringVar(&c.NATSURL, "nats-url", "", "NATS servers that carry the change feed, nats://host:port,... (none: direct streams only)")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(c.ListenMetricsURLs, "listen-metrics-urls", "URLs that serve /metrics and /health")
		f.StringVar(&c.OTLPEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.Var(c.LogLevel, "log-level", "debug, info, warn, error, panic or fatal")
	})
}

// Finish fills in what depends on other settings and checks them. The error is of kind failure.Config.
func (c *Config) Finish() error {
	if len(c.ConsensusEndpoints) == 0 && c.endpoints != nil {
		c.ConsensusEndpoints = c.endpoints.Strings()
	}
	switch {
	case c.Name == "":
		return failure.New(failure.Config, "--name is empty: give this instance a name")
	case len(c.ConsensusEndpoints) == 0:
		return failure.New(failure.Config, "--consensus-endpoints is missing: name the peer URL of at least one consensus node")
	case len(c.AdvertisePeerURLs.List()) == 0:
		return failure.New(failure.Config, "--advertise-peer-urls is empty: proxies need a URL to reach this instance")
	}
	return nil
}

// address is where proxies reach the instance, host:port.
func (c *Config) address() string { return c.AdvertisePeerURLs.HostPorts()[0] }
