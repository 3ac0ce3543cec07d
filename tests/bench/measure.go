package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// measure runs a row once on one system that it starts and stops.
func measure(ctx context.Context, s settings, r row, name string, n int, stderr io.Writer) (got result, err error) {
	output := io.Discard
	if s.verbose {
		output = stderr
	}
	sys, err := start(ctx, s, name, r.nodes, output)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, sys.stop(ctx)) }()
	connections := r.connections
	if s.connections > 0 {
		connections = min(s.connections, r.clients)
	}
	target, err := connect(ctx, sys.endpoints, connections)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, target.close()) }()
	if r.prepare != nil {
		if err := r.prepare(ctx, target); err != nil {
			return got, fmt.Errorf("prepare: %w", err)
		}
	}
	got, err = window(ctx, s, r, sys, target)
	got.Row, got.System, got.Run, got.Time = r.name, name, n, time.Now().UTC().Truncate(time.Second)
	got.Connections = connections
	return got, err
}

// window puts the row's load on the system and takes the figures of the time after the warm-up.
func window(ctx context.Context, s settings, r row, sys *running, target *target) (result, error) {
	loading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m := &meter{}
	done := make(chan error, 1)
	go func() {
		err := r.load(loading, target, r.clients, m)
		cancel(err) // an error ends the window early
		done <- err
	}()
	err := pause(loading, s.warmup)
	var before, after sample
	if err == nil {
		before, err = takeSample(s, sys)
		m.setOpen(true)
	}
	if err == nil {
		err = pause(loading, s.measured)
		m.setOpen(false)
	}
	if err == nil {
		after, err = takeSample(s, sys)
	}
	cancel(nil)
	if err := errors.Join(<-done, err); err != nil {
		return result{}, err
	}
	return figures(m, before, after)
}

// sample is how far everything came at one moment.
type sample struct {
	at            time.Time
	servers, load usage
	busySeconds   float64 // of the servers' processor, whoever had it; 0 where they are not pinned
}

func takeSample(s settings, sys *running) (now sample, err error) {
	now.at = time.Now()
	if now.servers, err = sys.usage(); err != nil {
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

// figures makes the result of a window. One in which nothing completed is an error, not a figure.
func figures(m *meter, before, after sample) (result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := after.at.Sub(before.at)
	ops := float64(m.latencies.total)
	if ops == 0 {
		return result{}, fmt.Errorf("nothing completed in %v", took)
	}
	servers := after.servers.cpuSeconds - before.servers.cpuSeconds
	return result{
		OpsPerS: ops / took.Seconds(), P50Ms: milliseconds(m.latencies.quantile(0.5)), P99Ms: milliseconds(m.latencies.quantile(0.99)),
		CPUUsPerOp: servers * 1e6 / ops, RSSMB: float64(after.servers.peakBytes) / 1e6,
		ServerCPU: servers / took.Seconds(), LoadCPU: (after.load.cpuSeconds - before.load.cpuSeconds) / took.Seconds(),
		OthersCPU: max(0, after.busySeconds-before.busySeconds-servers) / took.Seconds(), Seconds: took.Seconds(),
	}, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
