package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// readyPrefix begins the line that says where clients connect.
const readyPrefix = "holdfast: ready, clients at "

// runStandalone runs bin/holdfast until it ends or ctx is done, passes its output on
// unchanged and, once it says that it is ready, prints three lines to try. It ends
// with the program's own exit code.
func runStandalone(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("cluster standalone", flag.ContinueOnError)
	set.SetOutput(stderr)
	bin := set.String("bin", "bin", "folder of the programs")
	grace := set.Duration("stop-timeout", 15*time.Second, "how long the program has to end before it is killed")
	if err := set.Parse(args); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(*bin, "holdfast"), set.Args()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = *grace
	cmd.SysProcAttr = runner.ChildAttributes() // Ctrl-C reaches it once, through ctx
	cmd.Stderr = stderr
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start holdfast: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start holdfast: %w", err)
	}
	passOn(out, stdout, *bin)
	return childExit(ctx, cmd.Wait())
}

// passOn copies the program's lines until it closes its output.
func passOn(from io.Reader, to io.Writer, bin string) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(to, line)
		if urls, ok := strings.CutPrefix(strings.TrimSpace(line), readyPrefix); ok {
			_, _ = io.WriteString(to, whatToTry(bin, urls))
		}
		if err != nil {
			return
		}
	}
}

// whatToTry is three lines for a second terminal. etcdctl looks at 127.0.0.1:2379 by
// itself.
func whatToTry(bin, urls string) string {
	etcdctl := filepath.Join(bin, "etcdctl")
	if urls != "http://127.0.0.1:2379" {
		etcdctl += " --endpoints=" + urls
	}
	return fmt.Sprintf("Try, in another terminal:\n  %[1]s put greeting hello\n  %[1]s get greeting\n  %[1]s watch greeting\n", etcdctl)
}

// childExit turns the program's end into ours. Its own code stands, after a signal
// too; only one that had to be killed is our error.
func childExit(ctx context.Context, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return childError(exit.ExitCode())
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil // it ended with 0 after our SIGTERM
	default:
		return fmt.Errorf("holdfast: %w", err)
	}
}
