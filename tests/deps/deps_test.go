// Package deps holds the walls between the modules of the workspace as tests, and that each third-party module has one
// version everywhere.
package deps

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/deptest"
	"github.com/holdfastdb/holdfast/tests/framework"
)

const ours = "github.com/holdfastdb/holdfast"

func root(t *testing.T) string {
	t.Helper()
	dir, err := framework.Root()
	require.NoError(t, err)
	return dir
}

// modules are the folders that go.work names.
func modules(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "go.work"))
	require.NoError(t, err)
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\s+\./(\S+)$`).FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

// may says which of our modules each may import.
func may() map[string][]string {
	service := []string{"services", "proto"}
	everything := []string{"proto", "services", "proxy", "consensus-node", "watch-hub", "lease-service", "deploy"}
	return map[string][]string{
		"proto":          nil,
		"services":       {"proto"},
		"proxy":          service,
		"consensus-node": service,
		"watch-hub":      service,
		"lease-service":  service,
		"deploy":         {"services", "proto", "proxy/app", "consensus-node/app", "watch-hub/app", "lease-service/app"},
		"tests":          everything,
	}
}

func because(module string) string {
	switch module {
	case "proto":
		return "the contracts know nobody who speaks them"
	case "services":
		return "services is what every service is made of and knows none of them"
	case "deploy":
		return "deploy puts services together by their app packages alone"
	case "tests":
		return "tests stand outside"
	default:
		return "services meet in the contracts of proto and never import each other, so that each runs, scales and fails alone"
	}
}

// Each module imports of ours only what it may.
func TestModules(t *testing.T) {
	rules := may()
	for _, module := range modules(t) {
		t.Run(module, func(t *testing.T) {
			allowed, known := rules[module]
			require.True(t, known, "say in this test what the module may import")
			except := []string{ours + "/" + module}
			for _, other := range allowed {
				except = append(except, ours+"/"+other)
			}
			deptest.Check(t, filepath.Join(root(t), module), deptest.Rule{Import: ours, Except: except, Because: because(module)})
		})
		delete(rules, module)
	}
	require.Empty(t, rules, "modules that go.work does not have")
}

// Libraries that only one place may know.
func TestLibraries(t *testing.T) {
	for _, module := range modules(t) {
		t.Run(module, func(t *testing.T) {
			dir := filepath.Join(root(t), module)
			rules := []deptest.Rule{{
				Import: "go.etcd.io/etcd/server", Because: "Holdfast is not etcd's server; it speaks its API (go.etcd.io/etcd/api)",
			}}
			only := func(where []string, rule deptest.Rule) {
				for _, place := range where {
					if name, below, _ := strings.Cut(place, "/"); name == module {
						if below == "" {
							return
						}
						rule.Allowed = append(rule.Allowed, below)
					}
				}
				rules = append(rules, rule)
			}
			only([]string{"services/bus", "deploy"}, deptest.Rule{
				Import: "github.com/nats-io/nats.go", Because: "the bus hides which message system is behind it",
			})
			only([]string{"deploy"}, deptest.Rule{
				Import: "github.com/nats-io/nats-server", Because: "a service is a client of the bus; only what deploys Holdfast starts servers",
			})
			only([]string{"services/telemetry"}, deptest.Rule{
				Import: "go.opentelemetry.io/otel/sdk", TestsMay: true, Because: "code makes spans through the API, so that tracing is free when it is off",
			})
			only([]string{"services/telemetry"}, deptest.Rule{
				Import: "go.opentelemetry.io/otel/exporters", Because: "where traces go is decided in one place",
			})
			only([]string{"consensus-node"}, deptest.Rule{
				Import: "go.etcd.io/raft", Because: "consensus is the consensus node's business alone",
			})
			only([]string{"consensus-node"}, deptest.Rule{
				Import: "go.etcd.io/bbolt", TestsMay: true, Because: "the consensus node alone is durable; tests damage what it stored",
			})
			only([]string{"tests"}, deptest.Rule{
				Import: "go.etcd.io/etcd/client/v3", TestsMay: true, Because: "a service is what clients speak to, not one of them",
			})
			deptest.Check(t, dir, rules...)
		})
	}
}

// What is pure stays pure: no network, files, goroutine helpers, clocks or loggers come in by import. (Calls such as
// time.Now are the linters' business: durations and moments may come in as arguments.)
func TestPureCores(t *testing.T) {
	for module, cores := range map[string][]string{
		"consensus-node": {"internal/mvcc", "internal/lease", "internal/member", "internal/apply"},
		"proxy":          {"internal/routing"},
	} {
		var rules []deptest.Rule
		for _, banned := range []string{"net", "os", "log", "context", "sync", "google.golang.org/grpc", "go.etcd.io/bbolt", "github.com/nats-io"} {
			rules = append(rules, deptest.Rule{
				Import: banned, In: cores, TestsMay: true, Except: []string{"net/url", "sync/atomic", "google.golang.org/grpc/codes", "google.golang.org/grpc/status"},
				Because: "a pure core gets what happens as arguments and gives what follows as data",
			})
		}
		t.Run(module, func(t *testing.T) { deptest.Check(t, filepath.Join(root(t), module), rules...) })
	}
}

// One version of each third-party module: a workspace builds all modules with the highest, so a difference would mean that
// a module alone is not what was tested.
func TestVersions(t *testing.T) {
	line := regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) (v\S+)`)
	version, where := map[string]string{}, map[string]string{}
	for _, module := range modules(t) {
		text, err := os.ReadFile(filepath.Join(root(t), module, "go.mod"))
		require.NoError(t, err)
		for _, m := range line.FindAllSubmatch(text, -1) {
			path, v := string(m[1]), string(m[2])
			if strings.HasPrefix(path, ours) {
				require.Equal(t, "v0.0.0", v, "our own come from the folder beside")
				require.Contains(t, string(text), fmt.Sprintf("%s => ../", path), "%s/go.mod has no replace for it", module)
				continue
			}
			if other, seen := version[path]; seen {
				require.Equal(t, other, v, "%s in %s and in %s (make tidy brings them together)", path, where[path], module)
			}
			version[path], where[path] = v, module
		}
	}
	require.Greater(t, len(version), 20, "the go.mod files were not understood")
}
