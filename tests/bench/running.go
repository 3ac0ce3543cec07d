package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

const (
	startTimeout = 60 * time.Second
	stopGrace    = 10 * time.Second
)

// running is a system that serves.
type running struct {
	system

	cluster   *runner.Runner
	endpoints []string // host:port of each
	data      string
	names     []string                    // of the nodes
	admins    map[string]*grpc.ClientConn // to each node, where it answers for itself
	installs  *counter
	profiles  map[string]string // the address of each process that shows its profiles

	mu   sync.Mutex
	down map[string]bool // killed by us
	past map[string]usage
}

// start starts a system with fresh data and waits until it is ready; the caller stops it.
func start(ctx context.Context, s settings, r row, name string, output io.Writer) (*running, error) {
	sys, err := systemNamed(name)
	if err != nil {
		return nil, err
	}
	ports, err := runner.FreePorts(ctx, host)
	if err != nil {
		return nil, err
	}
	parent := s.data
	if r.tmpfs {
		parent = s.tmpfs
	}
	data, err := os.MkdirTemp(parent, "holdfast-bench-")
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	layout := sys.layout(s, r, data, ports)
	var profiles map[string]string
	if s.profileTo != "" {
		profiles = profileLayout(layout)
	}
	if err := pinLayout(s, layout); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	up := &running{
		system: sys, data: data, names: nodeNames()[:r.nodes], admins: map[string]*grpc.ClientConn{},
		installs: newCounter(output, sys.installed), profiles: profiles, down: map[string]bool{}, past: map[string]usage{},
	}
	up.cluster = runner.New(layout, runner.Options{Output: up.installs, Grace: stopGrace})
	for _, client := range layout.Clients {
		up.endpoints = append(up.endpoints, strings.TrimPrefix(client, "http://"))
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := up.cluster.Start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	for _, node := range up.names { // the members' clients come where a node of the split system has its administrator
		if up.admins[node], err = dial(net.JoinHostPort(host, strconv.Itoa(ports[node].Admin))); err != nil {
			return nil, errors.Join(err, up.stop(ctx))
		}
	}
	return up, nil
}

// stop ends all processes and deletes their data.
func (r *running) stop(ctx context.Context) error {
	var errs []error
	for _, conn := range r.admins {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(append(errs, r.cluster.Stop(context.WithoutCancel(ctx)), os.RemoveAll(r.data))...)
}

// placement is which endpoints the clients of a row use.
type placement int

const (
	everywhere    placement = iota // all, evenly
	atLeader                       // the leader's alone
	besideAMember                  // all but those of one follower, which may go away
)

// place gives the endpoints for a row's clients, and the name of the follower that they leave out. Behind proxies the endpoints
// are no node's, and all are used.
func (r *running) place(ctx context.Context, row row) (endpoints []string, away string, err error) {
	if row.place == everywhere {
		return r.endpoints, "", nil
	}
	leader, err := r.nodes().leader(ctx, r.names)
	if err != nil {
		return nil, "", err
	}
	endpoints, away = placed(row.place, r.endpoints, r.names, leader, r.direct)
	return endpoints, away, nil
}

func placed(where placement, all, names []string, leader string, direct bool) (endpoints []string, away string) {
	if where == besideAMember {
		away = names[(slices.Index(names, leader)+1)%len(names)]
	}
	for i, endpoint := range all {
		if !direct || (where == atLeader && names[i] == leader) || (where == besideAMember && names[i] != away) {
			endpoints = append(endpoints, endpoint)
		}
	}
	return endpoints, away
}

// nodes are the system's members, for steps.
func (r *running) nodes() nodes {
	return nodes{
		names: r.names, kill: r.kill, start: r.startAgain,
		status: func(ctx context.Context, name string) (*pb.StatusResponse, error) {
			return pb.NewMaintenanceClient(r.admins[name]).Status(ctx, &pb.StatusRequest{})
		},
	}
}

// kill ends a process the hard way and remembers what it has taken.
func (r *running) kill(ctx context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.cluster.Processes() {
		if p.Name != name {
			continue
		}
		last, err := usageOf(p.PID)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		past := r.past[name]
		r.past[name] = usage{cpuSeconds: past.cpuSeconds + last.cpuSeconds, peakBytes: max(past.peakBytes, last.peakBytes)}
	}
	r.down[name] = true
	return r.cluster.Kill(ctx, name, syscall.SIGKILL)
}

// startAgain starts a process that was killed and returns when it says that it is ready.
func (r *running) startAgain(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := r.cluster.StartAgain(ctx, name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.down, name)
	return nil
}

// usage is what all processes have taken up to now, in all their lives. One that has ended by itself makes it an error: its
// share would be missing.
func (r *running) usage() (usage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum usage
	for _, p := range r.cluster.Processes() {
		if !p.Running && !r.down[p.Name] {
			return sum, fmt.Errorf("%s has ended", p.Name)
		}
		all := r.past[p.Name]
		if p.Running {
			u, err := usageOf(p.PID)
			if err != nil {
				return sum, fmt.Errorf("%s: %w", p.Name, err)
			}
			all = usage{cpuSeconds: all.cpuSeconds + u.cpuSeconds, peakBytes: max(all.peakBytes, u.peakBytes)}
		}
		sum.cpuSeconds += all.cpuSeconds
		sum.peakBytes += all.peakBytes
	}
	return sum, nil
}

// held is what a process holds and has held in its present life, or with no name the sum of all processes.
func (r *running) held(name string) (sum usage, err error) {
	for _, p := range r.cluster.Processes() {
		if !p.Running || name != "" && p.Name != name {
			continue
		}
		u, err := usageOf(p.PID)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", p.Name, err)
		}
		sum.peakBytes += u.peakBytes
		sum.residentBytes += u.residentBytes
	}
	return sum, nil
}

// forgetPeaks makes the peaks of all processes what they hold now.
func (r *running) forgetPeaks() error {
	for _, p := range r.cluster.Processes() {
		if !p.Running {
			continue
		}
		if err := forgetPeak(p.PID); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// nodesTime is the processor time of the consensus nodes' processes, in all their lives.
func (r *running) nodesTime() (seconds float64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.cluster.Processes() {
		if !slices.Contains(r.names, p.Name) {
			continue
		}
		seconds += r.past[p.Name].cpuSeconds
		if p.Running {
			u, err := usageOf(p.PID)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", p.Name, err)
			}
			seconds += u.cpuSeconds
		}
	}
	return seconds, nil
}
