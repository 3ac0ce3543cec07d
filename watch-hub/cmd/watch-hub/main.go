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

// collectEvery is what may be allocated at least between two collections of garbage, in bytes.
const collectEvery = 64 << 20

func main() {
	collector.Pace(collectEvery)
	os.Exit(lifecycle.Main(app.Program, os.Stderr, func(ctx context.Context) error {
		return app.Main(ctx, config.Process(os.Args[1:]), os.Stdout, os.Stderr)
	}))
}
