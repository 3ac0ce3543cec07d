package framework

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

const (
	host              = "127.0.0.1"
	standaloneProgram = "holdfast"
)

func localURL(port int) string { return fmt.Sprintf("http://%s:%d", host, port) }

func freePorts(tb testing.TB) runner.PortPlan {
	tb.Helper()
	ports, err := runner.FreePorts(tb.Context(), host)
	if err != nil {
		tb.Fatal(err)
	}
	return ports
}

// Split is the split system: NATS, three nodes, two watch-hubs, two lease-services and two proxies.
func Split(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	ports, data := freePorts(tb), options.data(tb)
	extra := map[string][]string{}
	for name, args := range options.Extra {
		extra[name] = slices.Clone(args)
	}
	for _, proxy := range []string{"proxy1", "proxy2"} {
		extra[proxy] = append(extra[proxy], options.Args...)
	}
	bin, via := filepath.Dir(Program(tb, "proxy")), map[string]int{}
	for name, p := range ports {
		if name == "nats" {
			via[name] = options.via(tb, name, p.Client)
		} else if p.Peer != 0 {
			via[name] = options.via(tb, name, p.Peer)
		}
	}
	layout := runner.Split(runner.Config{
		Bin: bin, Data: data, Host: host, Ports: ports,
		OTLPEndpoint: options.OTLPEndpoint, Extra: extra, Via: via,
	})
	layout = without(layout, options.Without)
	for _, tier := range layout.Tiers {
		for _, p := range tier {
			Program(tb, filepath.Base(p.Path))
		}
	}
	options.prepare(tb, layout)
	return start(tb, &Cluster{Name: "split", Data: data, Ports: ports, layout: layout, via: options.via, reached: via})
}

// Standalone is one bin/holdfast, named s1.
func Standalone(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	return members(tb, "standalone", standaloneProgram, 1, ours(options), options)
}

// StandaloneCluster is three bin/holdfast, named s1, s2 and s3.
func StandaloneCluster(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	return members(tb, "standalone-cluster", standaloneProgram, 3, ours(options), options)
}

// Etcd is one real etcd, named s1.
func Etcd(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	return members(tb, "etcd", "etcd", 1, append([]string{"--log-level", "error"}, options.Args...), options)
}

func ours(options Options) []string {
	args := slices.Clone(options.Args)
	if options.OTLPEndpoint != "" {
		args = append(args, "--otlp-endpoint", options.OTLPEndpoint)
	}
	return args
}

// members runs count processes of a program that takes etcd's flags, as one cluster.
func members(tb testing.TB, runtime, program string, count int, args []string, options Options) *Cluster {
	tb.Helper()
	// The names in the plan of free ports that lend theirs: what they are called there does not matter here.
	lenders := []string{"n1", "n2", "n3"}[:count]
	path, plan, data := Program(tb, program), freePorts(tb), options.data(tb)
	ports, via := runner.PortPlan{}, map[string]int{}
	var names, initial, clients, reached []string
	for i, lender := range lenders {
		name := fmt.Sprintf("s%d", i+1)
		lent := plan[lender]
		ports[name] = runner.Ports{Client: lent.Admin, Peer: lent.Peer}
		names = append(names, name)
		via[name] = options.via(tb, name, lent.Peer)
		reached = append(reached, localURL(via[name]))
		initial = append(initial, name+"="+reached[i])
		clients = append(clients, localURL(lent.Admin))
	}
	tier := make([]runner.Process, 0, count)
	for i, name := range names {
		peer, dir := localURL(ports[name].Peer), filepath.Join(data, name)
		flags := append([]string{
			"--name", name, "--data-dir", dir,
			"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", reached[i],
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
			"--initial-cluster-token", "holdfast-tests",
		}, args...)
		tier = append(tier, runner.Process{
			Name: name, Path: path, Args: append(flags, options.Extra[name]...), Dir: dir, Ready: clients[i] + "/health?exclude=CORRUPT&exclude=NOSPACE", // an alarm is no reason to take a member for down
		})
	}
	layout := runner.Layout{Tiers: [][]runner.Process{tier}, Clients: clients}
	options.prepare(tb, layout)
	return start(tb, &Cluster{
		Name: runtime, Data: data, Ports: ports, saysReady: program == standaloneProgram, layout: layout, via: options.via, reached: via,
	})
}
