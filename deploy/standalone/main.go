package main

import (
	"context"
	"fmt"
	"io"
	"os"

	consensus "github.com/holdfastdb/holdfast/consensus-node/app"
	"github.com/holdfastdb/holdfast/services/collector"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/health"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/logging"
	"github.com/holdfastdb/holdfast/services/version"
)

// program is the name of the process and of its traces.
const program = "holdfast"

// garbageMax is what may be allocated between two collections although less than that is in use, in bytes.
const garbageMax = 128 << 20

func main() {
	collector.Pace(garbageMax)
	os.Exit(lifecycle.Main(program, os.Stderr, func(ctx context.Context) error {
		return command(ctx, config.Process(os.Args[1:]), os.Stdout, os.Stderr)
	}))
}

// command picks the command: an offline one, or the server.
func command(ctx context.Context, src config.Source, stdout, stderr io.Writer) error {
	if len(src.Args) > 1 && src.Args[0] == "log" && src.Args[1] == "dump" {
		src.Args = src.Args[2:]
		return consensus.DumpLog(src, stdout)
	}
	if len(src.Args) > 0 && src.Args[0] == "snapshot" {
		return consensus.Snapshot(ctx, program, src.Args[1:], stdout, stderr)
	}
	rest, askHealth := health.Asked(src.Args)
	src.Args = rest
	set := config.NewSet(program)
	s := declare(set)
	outcome, err := set.Parse(src)
	switch {
	case err != nil:
		return err
	case outcome.Help:
		return set.WriteHelp(stdout)
	case outcome.Version:
		_, err := fmt.Fprint(stdout, version.Text(program))
		return err
	}
	if askHealth {
		return health.Own(ctx, stdout, "listen-client-urls", s.proxy.ListenClientURLs.HostPorts())
	}
	if err := s.finish(outcome); err != nil {
		return err
	}
	logger := logging.New(stderr, s.logLevel.Level(), "")
	for _, warning := range outcome.Warnings {
		logger.Warn(warning)
	}
	return run(ctx, s, logger, stdout)
}
