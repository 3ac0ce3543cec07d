package runner_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

func TestSplitLayout(t *testing.T) {
	layout := runner.Split(runner.Config{
		Bin: "bin", Data: "cluster.holdfast", Ports: runner.DefaultPorts(),
		Extra: map[string][]string{"n2": {"--log-level", "debug"}},
	})
	var names []string
	byName := map[string]runner.Process{}
	for _, tier := range layout.Tiers {
		for _, p := range tier {
			names = append(names, p.Name)
			byName[p.Name] = p
		}
	}
	require.Equal(t, []string{"nats", "n1", "n2", "n3", "hub1", "hub2", "lease1", "lease2", "proxy1", "proxy2"}, names)
	require.Equal(t, []string{"http://127.0.0.1:2379", "http://127.0.0.1:22379"}, layout.Clients)

	n2 := byName["n2"]
	require.Equal(t, filepath.Join("bin", "consensus-node"), n2.Path)
	require.Equal(t, "http://127.0.0.1:2391/health", n2.Ready)
	require.Equal(t, strings.Fields(`--name n2 --data-dir cluster.holdfast/n2
		--listen-peer-urls http://127.0.0.1:2382 --initial-advertise-peer-urls http://127.0.0.1:2382
		--initial-cluster n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2384
		--initial-cluster-state new --initial-cluster-token holdfast-local
		--listen-admin-urls http://127.0.0.1:2383
		--advertise-client-urls http://127.0.0.1:2379,http://127.0.0.1:22379
		--nats-url nats://127.0.0.1:4222 --listen-metrics-urls http://127.0.0.1:2391 --log-level debug`), n2.Args)

	require.Equal(t, strings.Fields(`--name proxy2 --listen-client-urls http://127.0.0.1:22379
		--consensus-endpoints http://127.0.0.1:2380,http://127.0.0.1:2382,http://127.0.0.1:2384
		--listen-metrics-urls http://127.0.0.1:2398`), byName["proxy2"].Args)
}

func TestEndpointForTracesReachesEveryService(t *testing.T) {
	layout := runner.Split(runner.Config{Ports: runner.DefaultPorts(), OTLPEndpoint: "127.0.0.1:4317"})
	for _, tier := range layout.Tiers {
		for _, p := range tier {
			if p.Name != "nats" {
				require.Contains(t, strings.Join(p.Args, " "), "--otlp-endpoint 127.0.0.1:4317", p.Name)
			}
		}
	}
}

// portsOf are all ports of a plan with the process that has each; none twice.
func portsOf(t *testing.T, plan runner.PortPlan) map[int]string {
	t.Helper()
	owner := map[int]string{}
	for name, p := range plan {
		for _, port := range []int{p.Client, p.Peer, p.Admin, p.Metrics} {
			if port != 0 {
				require.Empty(t, owner[port], "port %d twice", port)
				owner[port] = name
			}
		}
	}
	return owner
}

func TestPortPlans(t *testing.T) {
	fixed := runner.DefaultPorts()
	shifted, err := fixed.Shifted(1000)
	require.NoError(t, err)
	require.Equal(t, fixed["n1"].Peer+1000, shifted["n1"].Peer)
	require.Zero(t, shifted["n1"].Client, "what is not used stays so")
	_, err = fixed.Shifted(60000)
	require.ErrorContains(t, err, "not between 1 and 65535")

	free, err := runner.FreePorts(t.Context(), "127.0.0.1")
	require.NoError(t, err)
	require.Len(t, portsOf(t, free), len(portsOf(t, fixed)))
}
