// Command consensus-node is one durable member of a Holdfast cluster: raft, the key-value store and the lease table.
package main

import (
	"context"
	"os"

	"github.com/holdfastdb/holdfast/consensus-node/app"
	"github.com/holdfastdb/holdfast/services/collector"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// garbageMax is what may be allocated between two collections although less than that is in use, in bytes.
const garbageMax = 128 << 20

func main() {
	collector.Pace(garbageMax)
	os.Exit(lifecycle.Main(app.Program, os.Stderr, func(ctx context.Context) error {
		return app.Main(ctx, config.Process(os.Args[1:]), os.Stdout, os.Stderr)
	}))
}
