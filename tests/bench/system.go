package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// The systems; etcd is the one that the others are compared with.
const (
	etcd       = "etcd"
	standalone = "standalone"
	split      = "split"
)

func systemNames() []string { return []string{etcd, standalone, split} }

const (
	host         = "127.0.0.1"
	startTimeout = 60 * time.Second
	stopGrace    = 10 * time.Second
)

// system is one way to serve etcd's API.
type system struct {
	programs []string
	// nodes is how many nodes it can have.
	nodes  []int
	layout func(s settings, data string, nodes int, ports runner.PortPlan) runner.Layout
}

func systemNamed(name string) (system, error) {
	switch name {
	case etcd:
		return system{programs: []string{"etcd"}, nodes: []int{1, 3}, layout: members("etcd")}, nil
	case standalone:
		return system{programs: []string{"holdfast"}, nodes: []int{1, 3}, layout: members("holdfast")}, nil
	case split:
		return system{
			programs: []string{"nats-server", "consensus-node", "watch-hub", "lease-service", "proxy"},
			nodes:    []int{3}, layout: splitLayout,
		}, nil
	default:
		return system{}, fmt.Errorf("unknown system %q: there are %s", name, strings.Join(systemNames(), ", "))
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
			for _, process := range slices.Concat(sys.layout(s, "", r.nodes, runner.DefaultPorts()).Tiers...) {
				if _, err := os.Stat(process.Path); err != nil && !seen[process.Path] {
					seen[process.Path] = true
					errs = append(errs, fmt.Errorf("%s needs a program that is not built (make build), or leave it out with -systems: %w", name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// splitLayout is the system of `make cluster`.
func splitLayout(s settings, data string, _ int, ports runner.PortPlan) runner.Layout {
	layout := runner.Split(runner.Config{Bin: s.bin, Data: data, Host: host, Ports: ports})
	for i, tier := range layout.Tiers {
		layout.Tiers[i] = slices.DeleteFunc(tier, func(p runner.Process) bool { return slices.Contains(s.without, p.Name) })
	}
	return layout
}

// members makes the layout of a program that takes etcd's flags, and gets no others than those a cluster needs.
func members(program string) func(settings, string, int, runner.PortPlan) runner.Layout {
	return func(s settings, data string, nodes int, ports runner.PortPlan) runner.Layout {
		url := func(port int) string { return fmt.Sprintf("http://%s:%d", host, port) }
		// The plan names the nodes of the split system; here their admin ports are for clients.
		names := []string{"n1", "n2", "n3"}[:nodes]
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
				Args: []string{
					"--name", name, "--data-dir", dir,
					"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
					"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
					"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
					"--initial-cluster-token", "holdfast-bench",
				},
			})
		}
		return runner.Layout{Tiers: [][]runner.Process{tier}, Clients: clients}
	}
}

// running is a system that serves.
type running struct {
	cluster   *runner.Runner
	endpoints []string // host:port of each
	data      string
}

// start starts a system with fresh data and waits until it is ready; the caller stops it.
func start(ctx context.Context, s settings, name string, nodes int, output io.Writer) (*running, error) {
	sys, err := systemNamed(name)
	if err != nil {
		return nil, err
	}
	ports, err := runner.FreePorts(ctx, host)
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(s.data, "holdfast-bench-")
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	layout := sys.layout(s, data, nodes, ports)
	if err := pinLayout(s, layout); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	r := &running{cluster: runner.New(layout, runner.Options{Output: output, Grace: stopGrace}), data: data}
	for _, client := range layout.Clients {
		r.endpoints = append(r.endpoints, strings.TrimPrefix(client, "http://"))
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := r.cluster.Start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	return r, nil
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

// stop ends all processes and deletes their data.
func (r *running) stop(ctx context.Context) error {
	return errors.Join(r.cluster.Stop(context.WithoutCancel(ctx)), os.RemoveAll(r.data))
}

// usage is what all processes have taken up to now. One that has ended makes it an error: its share would be missing.
func (r *running) usage() (usage, error) {
	var sum usage
	for _, p := range r.cluster.Processes() {
		if !p.Running {
			return sum, fmt.Errorf("%s has ended", p.Name)
		}
		u, err := usageOf(p.PID)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", p.Name, err)
		}
		sum.cpuSeconds += u.cpuSeconds
		sum.peakBytes += u.peakBytes
	}
	return sum, nil
}
