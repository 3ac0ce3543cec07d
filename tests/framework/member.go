package framework

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// Reserve gives a member that is to come its name and ports, and returns its peer URL. Add it to the cluster by that, then Join.
func (c *Cluster) Reserve(tb testing.TB, name string) (peerURL string) {
	tb.Helper()
	lent := freePorts(tb)["n1"]
	ports := runner.Ports{Peer: lent.Peer, Admin: lent.Admin, Metrics: lent.Metrics}
	if c.Name != "split" { // what a node of the split system has for its administrator, a standalone has for clients
		ports = runner.Ports{Peer: lent.Peer, Client: lent.Admin}
	}
	via := c.via(tb, name, ports.Peer)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Ports[name], c.reached[name] = ports, via
	return localURL(via)
}

// ClientURL is where a process takes clients: a standalone, an etcd or a proxy.
func (c *Cluster) ClientURL(name string) string { return localURL(c.ports(name).Client) }

// PeerURL is where other processes reach it.
func (c *Cluster) PeerURL(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return localURL(c.reached[name])
}

// AdminURL is where a node of the split system answers for itself.
func (c *Cluster) AdminURL(name string) string { return localURL(c.ports(name).Admin) }

func (c *Cluster) ports(name string) runner.Ports {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Ports[name]
}

// Join starts a member that was reserved and added, with an empty data directory, as the member list says that it is to be started, and waits
// until it is ready.
func (c *Cluster) Join(tb testing.TB, name string, members []*pb.Member, args ...string) {
	tb.Helper()
	c.StartNew(tb, name, append(c.joining(name, members), args...)...)
}

// LaunchJoin starts a member that was added as Join does, and does not wait for it; AwaitReady does. It may be a new one, which was reserved, or
// one of that name that was removed, has ended and comes again: whatever is in its data directory is removed.
func (c *Cluster) LaunchJoin(tb testing.TB, name string, members []*pb.Member) {
	tb.Helper()
	flags := c.joining(name, members)
	if slices.Contains(c.Processes(), name) {
		c.wipe(tb, name)
		c.run.Replace(name, func(p *runner.Process) { p.Args = replaceFlags(p.Args, flags) })
		c.Launch(tb, name)
		return
	}
	process, tier := c.like(tb, name, flags)
	ended, cancel := context.WithCancel(tb.Context())
	cancel()
	if err := c.run.Add(ended, tier, process); c.PID(tb, name) == 0 {
		tb.Fatalf("%s does not start: %v", name, err)
	}
}

// wipe removes what is in a member's data directory; the directory itself may be where a file system is mounted.
func (c *Cluster) wipe(tb testing.TB, name string) {
	tb.Helper()
	dir := filepath.Join(c.Data, name)
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// joining are the flags by which a member joins those of the list.
func (c *Cluster) joining(name string, members []*pb.Member) []string {
	var cluster []string
	for _, m := range members {
		called := m.GetName()
		if slices.Contains(m.GetPeerURLs(), c.PeerURL(name)) {
			called = name
		}
		for _, url := range m.GetPeerURLs() {
			cluster = append(cluster, called+"="+url)
		}
	}
	return []string{"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "existing"}
}

// StartNew starts a process that was reserved, like the first member of the cluster but for its name, ports and data, and for the flags that are
// given, and waits until it is ready.
func (c *Cluster) StartNew(tb testing.TB, name string, args ...string) {
	tb.Helper()
	process, tier := c.like(tb, name, args)
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	if err := c.run.Add(ctx, tier, process); err != nil {
		tb.Fatalf("%s does not start: %v", name, err)
	}
	c.waitReady(ctx, tb, name)
}

// like makes a process in the image of the first member.
func (c *Cluster) like(tb testing.TB, name string, args []string) (runner.Process, int) {
	tb.Helper()
	first, tier := runner.Process{}, 0
	for i, processes := range c.layout.Tiers {
		for _, p := range processes {
			if p.Name == "s1" || p.Name == "n1" {
				first, tier = p, i
			}
		}
	}
	dir := filepath.Join(c.Data, name)
	ready := c.ClientURL(name) + "/health"
	own := []string{
		"--name", name, "--data-dir", dir,
		"--listen-peer-urls", localURL(c.ports(name).Peer), "--initial-advertise-peer-urls", c.PeerURL(name),
	}
	if ports := c.ports(name); ports.Metrics != 0 {
		ready = localURL(ports.Metrics) + "/health"
		own = append(own, "--listen-admin-urls", c.AdminURL(name), "--listen-metrics-urls", localURL(ports.Metrics))
	} else {
		own = append(own, "--listen-client-urls", c.ClientURL(name), "--advertise-client-urls", c.ClientURL(name))
	}
	return runner.Process{
		Name: name, Path: first.Path, Env: first.Env, Dir: dir, Ready: ready,
		Args: replaceFlags(first.Args, append(own, args...)),
	}, tier
}

// replaceFlags gives the arguments with other values for flags that are there, and the others behind them. Both are --flag value, or
// --flag=value for what has no value of its own.
func replaceFlags(args, with []string) []string {
	out := slices.Clone(args)
	for i := 0; i < len(with); i++ {
		if strings.Contains(with[i], "=") && strings.HasPrefix(with[i], "--") {
			out = append(out, with[i])
			continue
		}
		at := slices.Index(out, with[i])
		if at < 0 {
			out = append(out, with[i], with[i+1])
		} else {
			out[at+1] = with[i+1]
		}
		i++
	}
	return out
}

// Restart starts a process that has ended with its data and arguments, but for the flags that are given, which hold for this life and those
// after it, and waits until it is ready.
func (c *Cluster) Restart(tb testing.TB, name string, args ...string) {
	tb.Helper()
	c.run.Replace(name, func(p *runner.Process) { p.Args = replaceFlags(p.Args, args) })
	c.Start(tb, name)
}

// ExitCode waits until a process ends by itself and gives its exit code. A process that is ended by a signal fails the test.
func (c *Cluster) ExitCode(tb testing.TB, name string) int {
	tb.Helper()
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := c.run.Wait(ctx, name); err != nil {
		tb.Fatal(err)
	}
	code, ok := c.run.ExitCode(name)
	if !ok {
		tb.Fatalf("%s was ended by a signal", name)
	}
	return code
}

// ExitCodeOf starts a process that has ended and gives the code that it ends with, without ever being ready.
func (c *Cluster) ExitCodeOf(tb testing.TB, name string) int {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	if _, err := c.run.StartAgain(ctx, name); err == nil {
		tb.Logf("%s was ready for a moment", name)
	}
	return c.ExitCode(tb, name)
}

// EtcdCluster is three real etcds, named s1, s2 and s3.
func EtcdCluster(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	return members(tb, "etcd-cluster", "etcd", 3, append([]string{"--log-level", "error"}, options.Args...), options)
}
