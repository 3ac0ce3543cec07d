package runner

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Layout is what a Runner runs. Processes start tier by tier in this order, each
// tier together and only when the one before is ready, and stop in the opposite
// order.
type Layout struct {
	Tiers [][]Process
	// Clients are the URLs for etcd clients, for the ready line.
	Clients []string
}

// Process is one program with all it needs to start again the same way.
type Process struct {
	Name string
	Path string   // the program
	Args []string // without the program's name
	Env  []string // added to the Runner's own environment
	// Dir is made before each start and is where its data lies.
	Dir string
	// Files are written before each start, by path.
	Files map[string]string
	// Metrics is the URL that is printed beside the pid.
	Metrics string
	// Ready is asked with GET until it answers 200; empty: ready once started.
	Ready string
}

// Config says where a cluster's programs, data and ports are.
type Config struct {
	Bin          string // folder of the programs
	Data         string // folder with one folder per process
	Host         string // IP address that everything listens on; empty: 127.0.0.1
	Ports        PortPlan
	OTLPEndpoint string // host:port, --otlp-endpoint of every service; empty: no traces
	// Extra are flags added to the processes of that name.
	Extra map[string][]string
	// Via are ports of relays, by name: where the others reach the process of that name (its peer port; the bus's client
	// port) in place of the port that it listens on.
	Via map[string]int
}

// The names of the processes are fixed: scripts and `make cluster-start` use them.

func nodeNames() []string  { return []string{"n1", "n2", "n3"} }
func hubNames() []string   { return []string{"hub1", "hub2"} }
func leaseNames() []string { return []string{"lease1", "lease2"} }
func proxyNames() []string { return []string{"proxy1", "proxy2"} }

// Split is the layout of `make cluster`: the bus, then the nodes, then the
// watch-hubs and lease-services, then the proxies.
func Split(cfg Config) Layout {
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	tiers := make([][]Process, 4)
	tiers[0] = []Process{cfg.nats()}
	for _, name := range nodeNames() {
		tiers[1] = append(tiers[1], cfg.node(name))
	}
	for _, name := range hubNames() {
		tiers[2] = append(tiers[2], cfg.inner(name, "watch-hub"))
	}
	for _, name := range leaseNames() {
		tiers[2] = append(tiers[2], cfg.inner(name, "lease-service"))
	}
	for _, name := range proxyNames() {
		tiers[3] = append(tiers[3], cfg.proxy(name))
	}
	return Layout{Tiers: tiers, Clients: cfg.urls(clientPort, proxyNames()...)}
}

func clientPort(p Ports) int { return p.Client }
func peerPort(p Ports) int   { return p.Peer }
func adminPort(p Ports) int  { return p.Admin }

func (c Config) addr(port int) string { return net.JoinHostPort(c.Host, strconv.Itoa(port)) }

// urls are the http URLs of one kind of port of the named processes.
func (c Config) urls(of func(Ports) int, names ...string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = "http://" + c.addr(of(c.Ports[name]))
	}
	return out
}

func (c Config) urlList(of func(Ports) int, names ...string) string {
	return strings.Join(c.urls(of, names...), ",")
}

func (c Config) natsURL() string {
	return "nats://" + c.addr(c.reached("nats", c.Ports["nats"].Client))
}

// reached is the port at which the others reach a process that listens on port.
func (c Config) reached(name string, port int) int {
	if via, ok := c.Via[name]; ok {
		return via
	}
	return port
}

// reachedList are the peer URLs of the named processes as the others know them.
func (c Config) reachedList(names ...string) string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = "http://" + c.addr(c.reached(name, c.Ports[name].Peer))
	}
	return strings.Join(out, ",")
}

// nats is the bus. A slow subscriber misses messages instead of holding up the
// publisher: whoever reads the feed fills its gaps from a consensus node.
func (c Config) nats() Process {
	dir := filepath.Join(c.Data, "nats")
	conf := filepath.Join(dir, "nats.conf")
	metrics := "http://" + c.addr(c.Ports["nats"].Metrics)
	return Process{
		Name: "nats", Path: filepath.Join(c.Bin, "nats-server"),
		Args: append([]string{"--config", conf}, c.Extra["nats"]...),
		Dir:  dir, Metrics: metrics + "/varz", Ready: metrics + "/healthz",
		Files: map[string]string{conf: fmt.Sprintf(
			"server_name: nats\nlisten: %q\nhttp: %q\nno_fast_producer_stall: true\nwrite_deadline: \"10s\"\n",
			c.addr(c.Ports["nats"].Client), c.addr(c.Ports["nats"].Metrics))},
	}
}

func (c Config) node(name string) Process {
	members := make([]string, 0, 3)
	for _, n := range nodeNames() {
		members = append(members, n+"="+c.reachedList(n))
	}
	dir := filepath.Join(c.Data, name)
	return c.service(name, "consensus-node", dir,
		"--data-dir", dir,
		"--listen-peer-urls", c.urlList(peerPort, name),
		"--initial-advertise-peer-urls", c.reachedList(name),
		"--initial-cluster", strings.Join(members, ","),
		"--initial-cluster-state", "new",
		"--initial-cluster-token", "holdfast-local",
		"--listen-admin-urls", c.urlList(adminPort, name),
		"--advertise-client-urls", c.urlList(clientPort, proxyNames()...),
		"--nats-url", c.natsURL())
}

// inner is a watch-hub or a lease-service: both stand between proxies and nodes.
func (c Config) inner(name, program string) Process {
	return c.service(name, program, filepath.Join(c.Data, name),
		"--nats-url", c.natsURL(),
		"--consensus-endpoints", c.reachedList(nodeNames()...),
		"--listen-peer-urls", c.urlList(peerPort, name),
		"--advertise-peer-urls", c.reachedList(name))
}

func (c Config) proxy(name string) Process {
	return c.service(name, "proxy", filepath.Join(c.Data, name),
		"--listen-client-urls", c.urlList(clientPort, name),
		"--consensus-endpoints", c.reachedList(nodeNames()...))
}

// service adds what every service of ours takes.
func (c Config) service(name, program, dir string, args ...string) Process {
	metrics := "http://" + c.addr(c.Ports[name].Metrics)
	args = append([]string{"--name", name}, args...)
	args = append(args, "--listen-metrics-urls", metrics)
	if c.OTLPEndpoint != "" {
		args = append(args, "--otlp-endpoint", c.OTLPEndpoint)
	}
	return Process{
		Name: name, Path: filepath.Join(c.Bin, program), Args: append(args, c.Extra[name]...),
		Dir: dir, Metrics: metrics + "/metrics", Ready: metrics + "/health",
	}
}
