package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/deploy/cluster/control"
	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// splitFlags are what the split system can be told.
type splitFlags struct {
	bin, data, host, otlp string
	shift                 int
	free                  bool
	startup, grace        time.Duration
}

func (f *splitFlags) parse(args []string, stderr io.Writer) error {
	set := flag.NewFlagSet("cluster", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.bin, "bin", "bin", "folder of the programs")
	set.StringVar(&f.data, "data-dir", "cluster.holdfast", "folder of the data, one folder in it per process")
	set.StringVar(&f.host, "host", "127.0.0.1", "IP address that everything listens on")
	set.IntVar(&f.shift, "port-shift", 0, "added to every port")
	set.BoolVar(&f.free, "free-ports", false, "take ports that are free instead of the fixed ones")
	set.StringVar(&f.otlp, "otlp-endpoint", "", "host:port to which every service sends its traces; empty: nowhere")
	set.DurationVar(&f.startup, "startup-timeout", time.Minute, "how long all processes together have to become ready")
	set.DurationVar(&f.grace, "stop-timeout", 5*time.Second, "how long the processes of one tier have to end before they are killed")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return nil
}

func (f *splitFlags) ports(ctx context.Context) (runner.PortPlan, error) {
	if f.free {
		return runner.FreePorts(ctx, f.host)
	}
	return runner.DefaultPorts().Shifted(f.shift)
}

func socketIn(data string) string { return filepath.Join(data, "runner.sock") }

// runSplit runs the split system until ctx is done.
func runSplit(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f splitFlags
	if err := f.parse(args, stderr); err != nil {
		return err
	}
	ports, err := f.ports(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	socket, err := control.Listen(ctx, socketIn(f.data))
	if err != nil {
		return err
	}
	layout := runner.Split(runner.Config{Bin: f.bin, Data: f.data, Host: f.host, Ports: ports, OTLPEndpoint: f.otlp})
	return serve(ctx, layout, runner.Options{
		Output: stdout, Grace: f.grace, Hint: "start it again with `make cluster-start P=%s`",
	}, f.startup, socket)
}

// serve starts the layout, answers cluster-start and stops everything when ctx is
// done.
func serve(ctx context.Context, layout runner.Layout, options runner.Options, startup time.Duration, socket net.Listener) error {
	defer func() { _ = socket.Close() }()
	cluster := runner.New(layout, options)
	starting, cancel := context.WithTimeoutCause(ctx, startup, fmt.Errorf("not within %s", startup))
	err := cluster.Start(starting)
	cancel()
	if err != nil && ctx.Err() != nil {
		return nil // stopped while it was starting
	}
	if err != nil {
		return err
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		control.Serve(ctx, socket, func(ctx context.Context, name string) (int, error) {
			ctx, cancel := context.WithTimeout(ctx, startup)
			defer cancel()
			return cluster.StartAgain(ctx, name)
		})
	})
	cluster.Say("holdfast: ready, clients at " + strings.Join(layout.Clients, ","))
	<-ctx.Done()
	serving.Wait()
	return cluster.Stop(context.WithoutCancel(ctx))
}

// runStart asks a running cluster to start a process again.
func runStart(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("cluster start", flag.ContinueOnError)
	set.SetOutput(stderr)
	data := set.String("data-dir", "cluster.holdfast", "folder of the running cluster's data")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 1 {
		return errors.New("name one process: n1 n2 n3 hub1 hub2 lease1 lease2 proxy1 proxy2 nats (make cluster-start P=NAME)")
	}
	said, err := control.Ask(ctx, socketIn(*data), set.Arg(0))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, said)
	return err
}
