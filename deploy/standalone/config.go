package main

import (
	"fmt"

	"github.com/spf13/pflag"

	consensus "github.com/holdfastdb/holdfast/consensus-node/app"
	lease "github.com/holdfastdb/holdfast/lease-service/app"
	proxy "github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// settings are the configurations of the parts, filled from one set of flags.
type settings struct {
	node  *consensus.Config
	proxy *proxy.Config
	lease *lease.Config

	listenMetrics *config.URLs
	otlpEndpoint  string
	otlpRatio     float64
	busListen     string
	logLevel      *config.LogLevel
	metrics       *config.Choice
}

// feedBuffer is a quarter of what a node of the split system keeps by default: the watch-hub of the same process misses nothing while a
// network is away, and what is kept makes each collection of garbage longer, for which puts wait. Watches that are further behind read the
// database.
const feedBuffer = 8 << 20

// declare makes the flags.
func declare(set *config.Set) *settings {
	s := &settings{
		node: consensus.NewConfig(), proxy: proxy.NewConfig(), lease: lease.NewConfig(),
		listenMetrics: config.NewURLs(config.Listen), logLevel: config.NewLogLevel(), metrics: config.NewChoice("basic", "extensive"),
	}
	s.node.FeedBufferBytes = feedBuffer
	s.node.DeclareMember(set)
	s.proxy.DeclareClients(set)
	set.Group("Leases", s.lease.DeclareClock)
	set.Group("Bus", func(f *pflag.FlagSet) {
		f.StringVar(&s.busListen, "bus-listen", "", "host:port of an embedded NATS server for outside subscribers (none: off)")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(s.listenMetrics, "listen-metrics-urls", "further URLs that serve /metrics and /health")
		f.StringVar(&s.otlpEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.Float64Var(&s.otlpRatio, "otlp-sample-ratio", 1,
			"share of the requests that are traced, from 0 to 1; a client that traces decides for its own")
		f.BoolVar(&s.proxy.Profiles, "enable-pprof", false, "serve the Go runtime's profiles at /debug/pprof/ of the client and metrics URLs")
		f.Var(s.logLevel, "log-level", "debug, info, warn, error, panic or fatal")
		f.Var(s.metrics, "metrics", "basic or extensive")
	})
	return s
}

// finish makes one whole of the parts' configurations and checks it.
func (s *settings) finish(outcome config.Outcome) error {
	if outcome.Has("listen-client-urls") && !outcome.Has("advertise-client-urls") {
		return failure.New(failure.Config, "--advertise-client-urls is required when --listen-client-urls is set: say where clients reach this node")
	}
	if err := s.node.Finish(); err != nil {
		return err
	}
	endpoints, err := s.node.PeerURLs()
	if err != nil {
		return err
	}
	p := s.proxy
	p.Name, p.AdvertiseClientURLs, p.Metrics = s.node.Name, s.node.AdvertiseClientURLs, s.metrics
	p.ElectionMs, p.RequestBytesMax, p.ConsensusEndpoints = s.node.ElectionMs, s.node.RequestBytesMax, endpoints
	if err := p.Finish(); err != nil {
		return err
	}
	own := s.node.AdvertisePeerURLs.HostPorts()
	if len(own) == 0 {
		return failure.New(failure.Config, fmt.Sprintf("--initial-advertise-peer-urls is empty: say where others reach %s", s.node.Name))
	}
	p.Own = own[0]
	l := s.lease
	l.Name, l.AdvertisePeerURLs, l.ConsensusEndpoints = s.node.Name, s.node.AdvertisePeerURLs, endpoints
	return l.Finish()
}
