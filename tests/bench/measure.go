package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// steps are what happens while a row's load runs. They open the stage for what is to be measured, once or several times, and
// shut it again.
type steps func(ctx context.Context, st *stage) error

// stage is what steps have to work with, and where they leave what they saw.
type stage struct {
	settings

	meter     *meter
	nodes     nodes
	away      string // the follower that no client uses; empty where the row has none
	installed func(name string) int
	profiles  map[string]string // the address of each process whose profiles are wanted
	databases []string          // the files of the nodes' states
	title     string            // of this run, for file names
	sample    func() (sample, error)
	spans     []span
	gaps      []time.Duration // of each failover

	target    *target
	fresh     func() error                       // makes the peaks of memory begin anew; nil where they count from the start
	held      func(name string) (usage, error)   // of a node, or of all processes
	admin     func(name string) *grpc.ClientConn // where a node answers for itself
	quietP99  time.Duration                      // of the same load before what is measured
	bytesEach float64                            // by how much the processes grew for each of what the load made
	restarted restarted
	owner     string // a process that owns leases and is no node; empty where nodes own them
}

// span is what lies between two samples.
type span struct{ before, after sample }

// open begins a time that is measured.
func (st *stage) open() error {
	if st.fresh != nil {
		if err := st.fresh(); err != nil {
			return err
		}
	}
	before, err := st.sample()
	if err != nil {
		return err
	}
	st.spans = append(st.spans, span{before: before})
	st.meter.setOpen(true)
	return nil
}

// nodesTime is what the consensus nodes took while the stage was open, in seconds.
func (st *stage) nodesTime() (seconds float64) {
	for _, s := range st.spans {
		seconds += s.after.nodes - s.before.nodes
	}
	return seconds
}

// shut ends it.
func (st *stage) shut() error {
	st.meter.setOpen(false)
	after, err := st.sample()
	st.spans[len(st.spans)-1].after = after
	return err
}

// restTime is how long processes are left alone before it counts what they hold: garbage of the work before is not what the data takes.
const restTime = 10 * time.Second

// heldAtRest is what all processes hold a while after the last call.
func (st *stage) heldAtRest(ctx context.Context) (usage, error) {
	if err := pause(ctx, restTime); err != nil {
		return usage{}, err
	}
	return st.held("")
}

// once is the steps of most rows: the measured time follows the warm-up.
func once(ctx context.Context, st *stage) error {
	if st.meter.started != nil {
		select {
		case <-st.meter.started:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := pause(ctx, st.warmup); err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- st.profile(ctx) }()
	err := pause(ctx, st.measured)
	return errors.Join(err, st.shut(), <-profiled)
}

// measure runs a row once on one system that it starts and stops.
func measure(ctx context.Context, s settings, r row, name string, n int, stderr io.Writer) (got result, err error) {
	output := io.Discard
	if s.verbose {
		output = stderr
	}
	sys, err := start(ctx, s, r, name, output)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, sys.stop(ctx)) }()
	endpoints, away, err := sys.place(ctx, r)
	if err != nil {
		return got, err
	}
	connections := r.connections
	if s.connections > 0 && r.clients > 1 {
		connections = min(s.connections, r.clients)
	}
	target, err := connect(ctx, endpoints, connections)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, target.close()) }()
	if r.prepare != nil {
		if err := r.prepare(ctx, target); err != nil {
			return got, fmt.Errorf("prepare: %w", err)
		}
	}
	st := &stage{
		settings: s, meter: &meter{}, nodes: sys.nodes(), away: away, installed: sys.installs.of, owner: sys.owner,
		profiles: sys.profiles, databases: sys.databases(), title: fmt.Sprintf("%s-%s-%d", r.name, name, n),
		sample: func() (sample, error) { return takeSample(s, sys) },
		target: target, held: sys.held, admin: func(name string) *grpc.ClientConn { return sys.admins[name] },
	}
	if r.freshPeak {
		st.fresh = sys.forgetPeaks
	}
	if r.starts {
		st.meter.started = make(chan struct{})
	}
	if err := st.run(ctx, r, target); err != nil {
		return got, err
	}
	got, err = figures(st.meter, st.spans)
	got.GapMs, got.GapMedianMs = gapFigures(st.gaps)
	got.upkeepFigures(st)
	got.Row, got.System, got.Run, got.Time = r.name, name, n, time.Now().UTC().Truncate(time.Second)
	got.Connections = connections
	if name == split {
		got.NodesUsPerOp = st.nodesTime() * 1e6 / (got.OpsPerS * got.Seconds)
	}
	return got, err
}

// run puts the row's load on the system until the row's steps are done.
func (st *stage) run(ctx context.Context, r row, target *target) error {
	loading, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { watchCommits(loading, st.databases, st.meter) })
	defer watching.Wait()
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		err := r.load(loading, target, r.clients, st.meter)
		cancel(err) // an error ends the steps early
		done <- err
	}()
	steps := r.steps
	if steps == nil {
		steps = once
	}
	err := steps(loading, st)
	cancel(nil)
	loaded := <-done
	if errors.Is(loaded, errAllDone) {
		loaded = nil
	}
	return errors.Join(loaded, err)
}

// sample is how far everything came at one moment.
type sample struct {
	at            time.Time
	servers, load usage
	nodes         float64 // processor seconds of the consensus nodes' processes
	busySeconds   float64 // of the servers' processor, whoever had it; 0 where they are not pinned
}

func takeSample(s settings, sys *running) (now sample, err error) {
	now.at = time.Now()
	if now.servers, err = sys.usage(); err != nil {
		return now, err
	}
	if now.nodes, err = sys.nodesTime(); err != nil {
		return now, err
	}
	if now.load, err = usageOf(os.Getpid()); err != nil {
		return now, err
	}
	if s.pin {
		now.busySeconds, err = busySeconds(s.serverCPU)
	}
	return now, err
}

// pause waits, and says why if it ended early.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// figures makes the result of all that was measured. Spans in which nothing completed are an error, not a figure.
func figures(m *meter, spans []span) (result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var seconds, servers, load, busy, peak float64
	for _, s := range spans {
		seconds += s.after.at.Sub(s.before.at).Seconds()
		servers += s.after.servers.cpuSeconds - s.before.servers.cpuSeconds
		load += s.after.load.cpuSeconds - s.before.load.cpuSeconds
		busy += s.after.busySeconds - s.before.busySeconds
		peak = max(peak, float64(s.after.servers.peakBytes))
	}
	ops := float64(m.latencies.total)
	if ops == 0 {
		return result{}, fmt.Errorf("nothing completed in %.1f s", seconds)
	}
	r := result{
		OpsPerS: ops / seconds, P50Ms: milliseconds(m.latencies.quantile(0.5)), P99Ms: milliseconds(m.latencies.quantile(0.99)),
		CPUUsPerOp: servers * 1e6 / ops, RSSMB: peak / 1e6, ServerCPU: servers / seconds, LoadCPU: load / seconds,
		OthersCPU: max(0, busy-servers) / seconds, Seconds: seconds,
		CommitP99Ms: milliseconds(m.inCommits.quantile(0.99)),
	}
	for _, h := range m.atEndpoint {
		r.EndpointP50Ms = append(r.EndpointP50Ms, milliseconds(h.quantile(0.5)))
		r.EndpointP99Ms = append(r.EndpointP99Ms, milliseconds(h.quantile(0.99)))
	}
	return r, nil
}

// gapFigures are the longest gap and the median one; 0 if there was none.
func gapFigures(gaps []time.Duration) (longest, median float64) {
	if len(gaps) == 0 {
		return 0, 0
	}
	values := make([]float64, len(gaps))
	for i, gap := range gaps {
		values[i] = milliseconds(gap)
	}
	s := spreadOf(values)
	return s.most, s.median
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
