// Command health asks a URL and exits with 0 if the answer is 200, with 1 if not: health checks for images that have neither a shell
// nor curl. docker-compose.yml mounts it into containers of other people's images, whatever those hold.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/holdfastdb/holdfast/services/health"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

func main() {
	os.Exit(lifecycle.Main(health.Command, os.Stderr, func(ctx context.Context) error {
		if len(os.Args) != 2 {
			return errors.New("give the URL to ask, for example http://127.0.0.1:8222/healthz")
		}
		return health.Ask(ctx, os.Stdout, os.Args[1])
	}))
}
