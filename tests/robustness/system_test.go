package robustness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
	"github.com/holdfastdb/holdfast/tests/relay"
)

// system is a cluster with relays between its processes.
type system struct {
	*framework.Cluster
	network *relay.Network
	nodes   []node
	// services are the processes that are no nodes.
	services []string
	// serving is the process behind each client URL.
	serving map[string]string
	disk    *disk // of the last node
}

// standalone tells that each node is a whole system.
func (s *system) standalone() bool { return s.Name != "split" }

// oracle tells that it is etcd itself.
func (s *system) oracle() bool { return strings.HasPrefix(s.Name, "etcd") }

// names are the nodes' names.
func (s *system) names() (out []string) {
	for _, n := range s.nodes {
		out = append(out, n.name)
	}
	return out
}

// leftOut says loudly that a part of the test cannot run here.
func leftOut(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf("LEFT OUT: "+format, args...)
	t.Log(text)
	fmt.Fprintf(os.Stderr, "\n%s: %s\n\n", t.Name(), text)
}

func startSystem(t *testing.T, kind string) *system {
	t.Helper()
	s := &system{network: relay.New(), serving: map[string]string{}}
	t.Cleanup(s.network.Close)
	start, names := framework.Split, []string{"n1", "n2", "n3"}
	switch kind {
	case "standalone":
		start, names = framework.StandaloneCluster, []string{"s1", "s2", "s3"}
	case "etcd":
		start, names = framework.EtcdCluster, []string{"s1", "s2", "s3"}
	default:
		require.Equal(t, "split", kind)
	}
	if !relay.Identifies() {
		leftOut(t, "cuts. This machine does not tell processes apart by their connections")
	}
	data := t.TempDir()
	s.disk = mountDisk(t, filepath.Join(data, names[len(names)-1]))
	s.Cluster = start(t, framework.Options{Data: data, Via: func(tb testing.TB, name string, port int) int {
		tb.Helper()
		via, err := s.network.Listen(tb.Context(), name, localAddress(port))
		require.NoError(tb, err)
		return via
	}})
	s.describe(t, names)
	return s
}

// describe finds out who is who.
func (s *system) describe(t *testing.T, names []string) {
	t.Helper()
	for i, endpoint := range s.Endpoints() {
		if s.standalone() {
			s.serving[endpoint] = names[i]
		} else {
			s.serving[endpoint] = fmt.Sprintf("proxy%d", i+1)
		}
	}
	for _, name := range names {
		n := node{name: name}
		switch s.Name {
		case "split":
			n.ask = onOwnPort(framework.Dial(t, localAddress(s.Ports[name].Admin)))
		case "etcd-cluster":
			n.ask = onOwnPort(framework.Dial(t, localAddress(s.Ports[name].Client)))
		default:
			n.ask = onPeerPort(framework.Dial(t, localAddress(s.Ports[name].Peer)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
		defer cancel()
		status, err := n.status(ctx)
		require.NoError(t, err)
		n.id = status.Header.MemberId
		for _, other := range s.nodes {
			require.NotEqual(t, other.id, n.id, "%s and %s say they are the same member", other.name, name)
		}
		s.nodes = append(s.nodes, n)
	}
	for _, name := range s.Processes() {
		if !slices.Contains(names, name) {
			s.services = append(s.services, name)
		}
	}
}

// leader is the index of the node that says it leads; it waits until one does.
func (s *system) leader(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	for {
		for i, n := range s.nodes {
			bounded, cancel := context.WithTimeout(ctx, time.Second)
			status, err := n.status(bounded)
			cancel()
			if err == nil && status.Leader == n.id {
				return i
			}
		}
		select {
		case <-time.After(pollPause):
		case <-ctx.Done():
			require.Fail(t, "no node leads")
		}
	}
}

// between is the links between two sets of processes, both ways.
func between(a, b []string) (links []relay.Link) {
	return append(oneWay(a, b), oneWay(b, a)...)
}

// oneWay is the links from each of a to each of b.
func oneWay(a, b []string) (links []relay.Link) {
	for _, from := range a {
		for _, to := range b {
			if from != to {
				links = append(links, relay.Link{From: from, To: to})
			}
		}
	}
	return links
}

// others are all processes but one.
func (s *system) others(name string) []string {
	return slices.DeleteFunc(s.Processes(), func(other string) bool { return other == name })
}
