package consensusnode_test

import (
	"testing"

	"github.com/holdfastdb/holdfast/services/deptest"
)

// TestImports holds the walls of the module.
func TestImports(t *testing.T) {
	rules := []deptest.Rule{
		{
			Import: "github.com/holdfastdb/holdfast", Except: []string{
				"github.com/holdfastdb/holdfast/proto", "github.com/holdfastdb/holdfast/services",
				"github.com/holdfastdb/holdfast/consensus-node",
			},
			Because: "services meet in the contracts of proto and never import each other",
		},
		{Import: "github.com/nats-io", Because: "the bus is behind services/bus"},
		{Import: "go.opentelemetry.io/otel/sdk", Because: "services/telemetry alone knows the SDK"},
		{Import: "go.etcd.io/bbolt", Allowed: []string{"internal/store"}, TestsMay: true, Because: "the store alone knows what the database is"},
		{
			Import: "go.etcd.io/raft/v3", Except: []string{"go.etcd.io/raft/v3/raftpb"},
			Allowed: []string{"internal/raftnode", "app"}, TestsMay: true, Because: "the raft loop alone drives raft",
		},
	}
	pure := []string{"internal/mvcc", "internal/apply", "internal/lease", "internal/member", "internal/liveness", "internal/quota", "internal/compactor"}
	for _, banned := range []string{"net", "os", "context", "log/slog", "sync", "math/rand", "math/rand/v2"} {
		rule := deptest.Rule{
			Import: banned, In: pure, TestsMay: true,
			Because: "a pure core has no network, files, goroutines, chance or logger: they come in as arguments",
		}
		if banned == "sync" {
			rule.Except = []string{"sync/atomic"}
		}
		rules = append(rules, rule)
	}
	deptest.Check(t, ".", rules...)
}
