package framework

import (
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// Bounds of what a test waits for. They are generous: a machine with two cores runs several packages at once, with the
// race detector.
const (
	startTimeout = 90 * time.Second
	stopGrace    = 10 * time.Second
)

// Options are what a suite may change about a system.
type Options struct {
	// OTLPEndpoint is host:port of a receiver of traces; empty: none. Real etcd does not get it.
	OTLPEndpoint string
	// Args are flags added to every process that takes client calls: standalone, proxies, or etcd.
	Args []string
	// Extra are flags added to one process, by name.
	Extra map[string][]string
	// Without are processes of the split system that are not started.
	Without []string
	// Before, if set, is called for each process before any of them starts: it may make the data directory that its flags name.
	Before func(tb testing.TB, name string, flags []string)
	// NoSpace tells that the system begins with a NOSPACE alarm: it counts as ready all the same.
	NoSpace bool
	// Via gives the port on 127.0.0.1 through which the other processes reach the named one, which listens on port: that
	// of a relay. Nil: they reach it directly.
	Via func(tb testing.TB, name string, port int) int
	// Data is the folder that holds one folder per process; empty: one of the test's own.
	Data string
}

// prepare calls Before for each process, and sees to NoSpace.
func (o Options) prepare(tb testing.TB, layout runner.Layout) {
	tb.Helper()
	for _, tier := range layout.Tiers {
		for i := range tier {
			if o.Before != nil {
				o.Before(tb, tier[i].Name, tier[i].Args)
			}
			if o.NoSpace && strings.HasSuffix(tier[i].Ready, "/health") {
				tier[i].Ready += "?exclude=NOSPACE"
			}
		}
	}
}

// Runtime is one way to run a system that speaks etcd's API.
type Runtime struct {
	Name string
	// Oracle tells that it is etcd itself.
	Oracle bool
	// Start starts it and waits until it is ready. It ends with the test.
	Start func(tb testing.TB, options Options) *Cluster
}

// Runtimes are all of them.
func Runtimes() []Runtime {
	return []Runtime{
		{Name: "etcd", Oracle: true, Start: Etcd},
		{Name: "standalone", Start: Standalone},
		{Name: "standalone-cluster", Start: StandaloneCluster},
		{Name: "split", Start: Split},
	}
}

func (o Options) data(tb testing.TB) string {
	tb.Helper()
	if o.Data != "" {
		return o.Data
	}
	return tb.TempDir()
}

func (o Options) via(tb testing.TB, name string, port int) int {
	tb.Helper()
	if o.Via == nil {
		return port
	}
	return o.Via(tb, name, port)
}

// Cluster is a system that runs. Its methods may be called at the same time.
type Cluster struct {
	// Name is the runtime's name.
	Name string
	// Data is the folder that holds one folder per process.
	Data string
	// Ports are the ports of its processes, by name.
	Ports  runner.PortPlan
	run    *runner.Runner
	out    *output
	layout runner.Layout
	// saysReady: a process is ready when it says so, not as soon as it answers /health.
	saysReady bool
	// via is Options.Via: where the others reach a member that comes later.
	via   func(tb testing.TB, name string, port int) int
	mu    sync.Mutex
	lives map[string]int
	// reached are the peer ports at which the others reach members, where that is not the port that they listen on.
	reached map[string]int
}

// start runs the layout until the test ends.
func start(tb testing.TB, c *Cluster) *Cluster {
	tb.Helper()
	c.out, c.lives = newOutput(tb, c.Name), map[string]int{}
	c.run = runner.New(c.layout, runner.Options{Output: c.out, Grace: stopGrace})
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	if err := c.run.Start(ctx); err != nil {
		tb.Fatalf("%s does not start: %v", c.Name, err)
	}
	tb.Cleanup(func() { c.Stop(tb) })
	for _, name := range c.Processes() {
		c.waitReady(ctx, tb, name)
	}
	return c
}

// begins forgets ready lines that nobody waited for: whoever was launched and killed may have said one.
func (c *Cluster) begins(name string) {
	said := c.out.saidReady(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives[name] = said
}

// waitReady waits until the newest life of a process has said that it is ready, if it is one that does.
func (c *Cluster) waitReady(ctx context.Context, tb testing.TB, name string) {
	tb.Helper()
	c.mu.Lock()
	c.lives[name]++
	count := c.lives[name]
	c.mu.Unlock()
	if !c.saysReady {
		return
	}
	if err := c.out.waitReady(ctx, name, count); err != nil {
		tb.Fatal(err)
	}
}

// Stop ends all processes with SIGTERM, and fails the test if one has to be killed. Called again it does nothing.
func (c *Cluster) Stop(tb testing.TB) {
	tb.Helper()
	if err := c.run.Stop(context.WithoutCancel(tb.Context())); err != nil {
		tb.Errorf("%s: %v", c.Name, err)
	}
}

// Endpoints are the client URLs.
func (c *Cluster) Endpoints() []string { return slices.Clone(c.layout.Clients) }

// Processes are the names of all processes, in the order in which they start.
func (c *Cluster) Processes() []string {
	var names []string
	for _, p := range c.run.Processes() {
		names = append(names, p.Name)
	}
	return names
}

// Running are the names of the processes that run.
func (c *Cluster) Running() []string {
	var names []string
	for _, p := range c.run.Processes() {
		if p.Running {
			names = append(names, p.Name)
		}
	}
	return names
}

// Kill sends the signal; after SIGKILL the process has ended when it returns.
func (c *Cluster) Kill(tb testing.TB, name string, signal os.Signal) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stopGrace)
	defer cancel()
	if err := c.run.Kill(ctx, name, signal); err != nil {
		tb.Fatalf("kill %s: %v", name, err)
	}
}

// Wait returns when the process has ended.
func (c *Cluster) Wait(tb testing.TB, name string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), stopGrace)
	defer cancel()
	if err := c.run.Wait(ctx, name); err != nil {
		tb.Fatal(err)
	}
}

// Start starts a process that has ended with the arguments and data it had, and waits until it is ready.
func (c *Cluster) Start(tb testing.TB, name string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	c.begins(name)
	if _, err := c.run.StartAgain(ctx, name); err != nil {
		tb.Fatalf("start %s again: %v", name, err)
	}
	c.waitReady(ctx, tb, name)
}

// Launch starts a process that has ended and does not wait for it. AwaitReady waits, unless it is killed before.
func (c *Cluster) Launch(tb testing.TB, name string) {
	tb.Helper()
	ended, cancel := context.WithCancel(tb.Context())
	cancel()
	c.begins(name)
	if pid, err := c.run.StartAgain(ended, name); pid == 0 {
		tb.Fatalf("start %s again: %v", name, err)
	}
}

// AwaitReady waits until a process that was launched has said that it is ready. It is for processes that say so.
func (c *Cluster) AwaitReady(tb testing.TB, name string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	c.waitReady(ctx, tb, name)
}

// PID is the process's id in its newest life.
func (c *Cluster) PID(tb testing.TB, name string) int {
	tb.Helper()
	for _, p := range c.run.Processes() {
		if p.Name == name {
			return p.PID
		}
	}
	tb.Fatalf("no process %s", name)
	return 0
}

// StartAll starts processes that have ended, all at once, and waits until each is ready: nodes of which a majority has
// ended wait for each other.
func (c *Cluster) StartAll(tb testing.TB, names ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	var all errgroup.Group
	for _, name := range names {
		c.begins(name)
		all.Go(func() error {
			_, err := c.run.StartAgain(ctx, name)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		tb.Fatalf("start %v again: %v", names, err)
	}
	for _, name := range names {
		c.waitReady(ctx, tb, name)
	}
}

// Output is all that the processes said so far.
func (c *Cluster) Output(tb testing.TB) string {
	tb.Helper()
	return c.out.text(tb)
}

// HostPort is the host:port of a URL of this package.
func HostPort(tb testing.TB, endpoint string) string {
	tb.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Host
}

// without gives the layout less the named processes.
func without(layout runner.Layout, names []string) runner.Layout {
	if len(names) == 0 {
		return layout
	}
	tiers := make([][]runner.Process, 0, len(layout.Tiers))
	for _, tier := range layout.Tiers {
		tiers = append(tiers, slices.DeleteFunc(slices.Clone(tier), func(p runner.Process) bool {
			return slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, p.Name) })
		}))
	}
	layout.Tiers = tiers
	return layout
}

// Exits runs a process that has ended once more, with further flags, until it ends by itself, and gives its exit code and what it said on
// stderr.
func (c *Cluster) Exits(tb testing.TB, name string, extra ...string) (code int, stderr string) {
	tb.Helper()
	for _, tier := range c.layout.Tiers {
		for _, p := range tier {
			if p.Name == name {
				return exits(tb, p, extra)
			}
		}
	}
	tb.Fatalf("%s has no process %s", c.Name, name)
	return 0, ""
}

func exits(tb testing.TB, p runner.Process, extra []string) (code int, stderr string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path, append(slices.Clone(p.Args), extra...)...)
	cmd.Env = append(os.Environ(), p.Env...)
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok || ctx.Err() != nil {
			tb.Fatalf("%s does not end by itself: %v\n%s", p.Name, err, errs.String())
		}
	}
	return cmd.ProcessState.ExitCode(), errs.String()
}
