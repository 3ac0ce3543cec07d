package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// The systems; etcd is the one that the others are compared with.
const (
	etcd       = "etcd"
	standalone = "standalone"
	split      = "split"
)

func systemNames() []string { return []string{etcd, standalone, split} }

const host = "127.0.0.1"

// system is one way to serve etcd's API.
type system struct {
	programs []string
	// nodes is how many nodes it can have.
	nodes  []int
	layout func(s settings, r row, data string, ports runner.PortPlan) runner.Layout
	// installed is in the line that a node writes when it has put a snapshot in its state's place.
	installed string
	// owner is a process that owns leases and is no node; empty where the nodes own them.
	owner string
	// direct says that each node has an endpoint of its own, in the order of their names.
	direct bool
}

func systemNamed(name string) (system, error) {
	switch name {
	case etcd:
		return system{
			programs: []string{"etcd"}, nodes: []int{1, 3}, layout: members("etcd"), installed: "applied snapshot", direct: true,
		}, nil
	case standalone:
		return system{
			programs: []string{"holdfast"}, nodes: []int{1, 3}, layout: members("holdfast"), installed: "snapshot installed", direct: true,
		}, nil
	case split:
		return system{
			programs: []string{"nats-server", "consensus-node", "watch-hub", "lease-service", "proxy"},
			nodes:    []int{3}, layout: splitLayout, installed: "snapshot installed", owner: "lease1",
		}, nil
	case floor:
		self, err := os.Executable()
		return floorSystem(self), err
	default:
		return system{}, fmt.Errorf("unknown system %q: there are %s", name, strings.Join(append(systemNames(), floor), ", "))
	}
}

// checkPrograms says which programs are missing before anything is started.
func checkPrograms(s settings, chosen []row) error {
	var errs []error
	seen := map[string]bool{}
	for _, r := range chosen {
		for _, name := range r.systems(s.systems) {
			sys, err := systemNamed(name)
			if err != nil {
				return err
			}
			for _, process := range slices.Concat(sys.layout(s, r, "", runner.DefaultPorts()).Tiers...) {
				if _, err := os.Stat(process.Path); err != nil && !seen[process.Path] {
					seen[process.Path] = true
					errs = append(errs, fmt.Errorf("%s needs a program that is not built (make build), or leave it out with -systems: %w", name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// nodeNames are those of three nodes, on all systems; runner.Split has them too.
func nodeNames() []string { return []string{"n1", "n2", "n3"} }

// splitLayout is the system of `make cluster`.
func splitLayout(s settings, r row, data string, ports runner.PortPlan) runner.Layout {
	extra := map[string][]string{}
	for _, name := range nodeNames() {
		extra[name] = r.args
	}
	layout := runner.Split(runner.Config{Bin: s.bin, Data: data, Host: host, Ports: ports, Extra: extra})
	for i, tier := range layout.Tiers {
		layout.Tiers[i] = slices.DeleteFunc(tier, func(p runner.Process) bool { return slices.Contains(s.without, p.Name) })
	}
	return layout
}

// members makes the layout of a program that takes etcd's flags, and gets no others than those a cluster needs and the row's.
func members(program string) func(settings, row, string, runner.PortPlan) runner.Layout {
	return func(s settings, r row, data string, ports runner.PortPlan) runner.Layout {
		url := func(port int) string { return fmt.Sprintf("http://%s:%d", host, port) }
		// The plan names the nodes of the split system; here their admin ports are for clients.
		names := nodeNames()[:r.nodes]
		var initial, clients []string
		for _, name := range names {
			initial = append(initial, name+"="+url(ports[name].Peer))
			clients = append(clients, url(ports[name].Admin))
		}
		var tier []runner.Process
		for i, name := range names {
			peer, dir := url(ports[name].Peer), filepath.Join(data, name)
			tier = append(tier, runner.Process{
				Name: name, Path: filepath.Join(s.bin, program), Dir: dir, Ready: clients[i] + "/health",
				Args: append([]string{
					"--name", name, "--data-dir", dir,
					"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
					"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
					"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
					"--initial-cluster-token", "holdfast-bench",
				}, r.args...),
			})
		}
		return runner.Layout{Tiers: [][]runner.Process{tier}, Clients: clients}
	}
}

// pinLayout has all processes of the layout run on the servers' processor.
func pinLayout(s settings, layout runner.Layout) error {
	if !s.pin {
		return nil
	}
	for _, tier := range layout.Tiers {
		for i, p := range tier {
			path, args, err := pinned(s.serverCPU, p.Path, p.Args)
			if err != nil {
				return err
			}
			tier[i].Path, tier[i].Args, tier[i].Env = path, args, slices.Concat(p.Env, serverEnvironment())
		}
	}
	return nil
}
