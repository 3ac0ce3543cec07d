// Command watch-hub follows the changes of a Holdfast cluster and matches them against the watches of all proxies.
package main

import (
	"context"
	"os"

	"github.com/holdfastdb/holdfast/services/collector"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/watch-hub/app"
)

// garbageMax is what may be allocated between two collections although less than that is in use, in bytes.
const garbageMax = 64 << 20

func main() {
	collector.Pace(garbageMax)
	os.Exit(lifecycle.Main(app.Program, os.Stderr, func(ctx context.Context) error {
		return app.Main(ctx, config.Process(os.Args[1:]), os.Stdout, os.Stderr)
	}))
}
