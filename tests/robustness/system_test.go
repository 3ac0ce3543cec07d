package robustness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/holdfastdb/holdfast/tests/framework"
	"github.com/holdfastdb/holdfast/tests/relay"
)

// system is a cluster with relays between its processes.
type system struct {
	*framework.Cluster
	network *relay.Network
	// first are the names of the nodes that it began with. All of them are there again once a fault is over, though perhaps as
	// other members; one more may be there too.
	first []string
	// services are the processes that are no nodes.
	services []string
	// serving is the process behind each client URL.
	serving map[string]string
	disk    *disk // of the last node

	removed map[string]bool // processes that ended because their member was removed
	later   int             // how many names were given to nodes that came later
	listing sync.Mutex
	nodes   []*node // the members: a learner is none of them yet. Clients look at it too
}

// standalone tells that each node is a whole system.
func (s *system) standalone() bool { return s.Name != "split" }

// oracle tells that it is etcd itself.
func (s *system) oracle() bool { return strings.HasPrefix(s.Name, "etcd") }

// present are the nodes that are members now, less those named.
func (s *system) present(less ...string) []*node {
	s.listing.Lock()
	defer s.listing.Unlock()
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return slices.Contains(less, n.name) })
}

// names are the nodes' names.
func (s *system) names() (out []string) {
	for _, n := range s.present() {
		out = append(out, n.name)
	}
	return out
}

// node is the one of that name.
func (s *system) node(t *testing.T, name string) *node {
	t.Helper()
	for _, n := range s.present() {
		if n.name == name {
			return n
		}
	}
	require.Fail(t, "no node is called "+name)
	return nil
}

func (s *system) enter(n *node) {
	s.listing.Lock()
	defer s.listing.Unlock()
	s.nodes = append(s.nodes, n)
}

func (s *system) leave(n *node) {
	s.listing.Lock()
	defer s.listing.Unlock()
	s.nodes = slices.DeleteFunc(s.nodes, func(other *node) bool { return other.id == n.id })
}

// Processes are the names of all processes that are there, less those whose members were removed.
func (s *system) Processes() []string {
	return slices.DeleteFunc(s.Cluster.Processes(), func(name string) bool { return s.removed[name] })
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
	s := &system{network: relay.New(), serving: map[string]string{}, removed: map[string]bool{}}
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
	s.first = names
	for _, name := range names {
		n := &node{name: name, conn: s.dialNode(t, name)}
		ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
		defer cancel()
		status, err := n.status(ctx)
		require.NoError(t, err)
		n.id = status.Header.MemberId
		for _, other := range s.nodes {
			require.NotEqual(t, other.id, n.id, "%s and %s say they are the same member", other.name, name)
		}
		s.enter(n)
	}
	for _, name := range s.Processes() {
		if !slices.Contains(names, name) {
			s.services = append(s.services, name)
		}
	}
}

// dialNode is a connection to the port on which a node answers for itself.
func (s *system) dialNode(t *testing.T, name string) *grpc.ClientConn {
	t.Helper()
	if s.standalone() {
		return framework.Dial(t, framework.HostPort(t, s.ClientURL(name)))
	}
	return framework.Dial(t, framework.HostPort(t, s.AdminURL(name)))
}

// leader is the node that says it leads; it waits until one does.
func (s *system) leader(t *testing.T) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	for {
		for _, n := range s.present() {
			bounded, cancel := context.WithTimeout(ctx, time.Second)
			status, err := n.status(bounded)
			cancel()
			if err == nil && status.Leader == n.id {
				return n
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
