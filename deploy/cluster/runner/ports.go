package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are the TCP ports of one process; one it does not use is 0.
type Ports struct {
	Client  int // etcd clients (proxies), bus clients (nats)
	Peer    int // calls from other services
	Admin   int // a node's own Maintenance, Cluster and KV
	Metrics int // /metrics and /health
}

// portsPerCluster is how many ports DefaultPorts names.
const portsPerCluster = 24

// PortPlan gives each process its ports, by the name of the process.
type PortPlan map[string]Ports

// DefaultPorts are the fixed ports of `make cluster`:
//
//	clients  proxy1 2379, proxy2 22379; nats 4222
//	peer     n1 2380, n2 2382, n3 2384; hub1 2386, hub2 2387; lease1 2388, lease2 2389
//	admin    n1 2381, n2 2383, n3 2385
//	metrics  2390 to 2399: n1 n2 n3 hub1 hub2 lease1 lease2 proxy1 proxy2 nats
func DefaultPorts() PortPlan {
	return PortPlan{
		"nats":   {Client: 4222, Metrics: 2399},
		"n1":     {Peer: 2380, Admin: 2381, Metrics: 2390},
		"n2":     {Peer: 2382, Admin: 2383, Metrics: 2391},
		"n3":     {Peer: 2384, Admin: 2385, Metrics: 2392},
		"hub1":   {Peer: 2386, Metrics: 2393},
		"hub2":   {Peer: 2387, Metrics: 2394},
		"lease1": {Peer: 2388, Metrics: 2395},
		"lease2": {Peer: 2389, Metrics: 2396},
		"proxy1": {Client: 2379, Metrics: 2397},
		"proxy2": {Client: 22379, Metrics: 2398},
	}
}

// Shifted returns the plan with by added to every port, so that several clusters
// run beside each other.
func (p PortPlan) Shifted(by int) (PortPlan, error) {
	out := make(PortPlan, len(p))
	var errs []error
	for name, ports := range p {
		for _, port := range []*int{&ports.Client, &ports.Peer, &ports.Admin, &ports.Metrics} {
			if *port == 0 {
				continue
			}
			if *port += by; *port < 1 || *port > 65535 {
				errs = append(errs, fmt.Errorf("port %d of %s is not between 1 and 65535", *port, name))
			}
		}
		out[name] = ports
	}
	return out, errors.Join(errs...)
}

// FreePorts returns a plan of ports that were free on host a moment ago. They lie
// below the range from which the kernel picks ports for outgoing connections, so
// that between here and the start of the processes only another listener that was
// told to use the same number can take one.
func FreePorts(ctx context.Context, host string) (PortPlan, error) {
	const lowest, highest, attempts = 10000, 32000, 200
	for range attempts {
		first := lowest + rand.IntN(highest-lowest-portsPerCluster)
		if !blockFree(ctx, host, first) {
			continue
		}
		next := first
		plan := DefaultPorts()
		for name, ports := range plan {
			for _, port := range []*int{&ports.Client, &ports.Peer, &ports.Admin, &ports.Metrics} {
				if *port != 0 {
					*port = next
					next++
				}
			}
			plan[name] = ports
		}
		return plan, nil
	}
	return nil, fmt.Errorf("no %d free ports in a row on %s between %d and %d", portsPerCluster, host, lowest, highest)
}

// blockFree says whether portsPerCluster ports from first on can all be listened on
// at once.
func blockFree(ctx context.Context, host string, first int) bool {
	var lc net.ListenConfig
	for port := first; port < first+portsPerCluster; port++ {
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		defer func() { _ = l.Close() }()
	}
	return true
}
