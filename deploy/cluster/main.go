// Command cluster runs Holdfast on one machine, for trying it and for tests.
//
//	cluster                runs the split system as local processes until SIGINT or SIGTERM
//	cluster start NAME     has a running cluster start a process again that has ended
//	cluster standalone     runs bin/holdfast and prints what to try
//
// It is what `make cluster`, `make cluster-start P=NAME` and `make run` call.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once, and the kernel our processes
	restore := takeTerminal()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	restore()
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

// run picks the command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	command := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		return runSplit(ctx, args, stdout, stderr)
	case "start":
		return runStart(ctx, args, stdout, stderr)
	case "standalone":
		return runStandalone(ctx, args, stdout, stderr)
	default:
		return fmt.Errorf("unknown command %q: it is `cluster`, `cluster start NAME` or `cluster standalone`", command)
	}
}

// childError is the exit code of a program that said itself what was wrong.
type childError int

func (e childError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitCode prints the error, unless someone did, and turns it into the code that the
// program exits with: 0 after a signal.
func exitCode(err error, stderr io.Writer) int {
	var child childError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &child):
		return int(child)
	default:
		_, _ = fmt.Fprintf(stderr, "cluster: %v\n", err)
		return 1
	}
}
