package lifecycle

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/holdfastdb/holdfast/services/failure"
)

// Main runs a process: it gives run a context that ends with SIGINT or SIGTERM, prints its error as one line on stderr,
// and returns the exit code (see failure.ExitCode). A second signal ends the process at once. Use it as
//
//	func main() { os.Exit(lifecycle.Main("proxy", os.Stderr, run)) }
func Main(name string, stderr io.Writer, run func(ctx context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on the default holds again, so that the second one kills.
	context.AfterFunc(ctx, stop)
	err := run(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(err.Error()))
	}
	return failure.ExitCode(err)
}

// oneLine joins the lines of an error: joined errors have several, and a log collector wants one.
func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}
