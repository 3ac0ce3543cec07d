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

// Each process listens on its own port and is reached through the relay.
func TestLayoutWithRelays(t *testing.T) {
	via := map[string]int{"n1": 1, "n2": 2, "n3": 3, "hub1": 4, "lease2": 5, "nats": 6}
	layout := runner.Split(runner.Config{Ports: runner.DefaultPorts(), Via: via})
	args := map[string]string{}
	for _, tier := range layout.Tiers {
		for _, p := range tier {
			args[p.Name] = strings.Join(p.Args, " ")
		}
	}
	require.Contains(t, args["n2"], "--listen-peer-urls http://127.0.0.1:2382 --initial-advertise-peer-urls http://127.0.0.1:2 "+
		"--initial-cluster n1=http://127.0.0.1:1,n2=http://127.0.0.1:2,n3=http://127.0.0.1:3 ")
	const nodes = "--consensus-endpoints http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:3 "
	require.Contains(t, args["hub1"], "--nats-url nats://127.0.0.1:6 "+nodes+
		"--listen-peer-urls http://127.0.0.1:2386 --advertise-peer-urls http://127.0.0.1:4 ")
	require.Contains(t, args["lease1"], "--listen-peer-urls http://127.0.0.1:2388 --advertise-peer-urls http://127.0.0.1:2388 ")
	require.Contains(t, args["proxy1"], nodes)
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
