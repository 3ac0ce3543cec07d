package tier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/clock"
)

// Waits between attempts to join a node that cannot be reached.
const (
	rejoinFirst = 50 * time.Millisecond
	rejoinMost  = time.Second
)

// ErrNoNode says that no consensus node is known or that none can be dialled.
var ErrNoNode = errors.New("tier: no consensus node can be reached")

// Conn is a connection to a node; Close is called once.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Config is what a Tier needs.
type Config struct {
	// Endpoints are peer URLs of nodes; further members are learned from them.
	Endpoints []string
	// Announcement is what the nodes are told of the instance.
	Announcement *consensusv1.Announcement
	// Dial connects to host:port without waiting for it.
	Dial   func(address string) (Conn, error)
	Clock  clock.Clock
	Logger *slog.Logger
}

// Tier holds the connections. Its methods may be called from any goroutine.
type Tier struct {
	config Config

	mu    sync.Mutex
	conns map[string]Conn
	// addresses are those to try, those of the configuration first.
	addresses []string
	// live are the addresses with a Join stream, and the members behind them.
	live map[string]uint64
	// members is the topology with the newest member list.
	members   *consensusv1.Topology
	joined    map[string]context.CancelFunc
	preferred string
	cluster   uint64
	leader    uint64
	term      uint64
	changed   chan struct{}
	resync    chan struct{}
	closed    bool
	// asked are the calls under way, each with what ends it.
	asked map[*call]bool
}

// call is one of Ask.
type call struct {
	address string
	cancel  context.CancelFunc
}

// New makes a Tier that knows the endpoints alone.
func New(config Config) *Tier {
	t := &Tier{
		config: config, conns: map[string]Conn{}, joined: map[string]context.CancelFunc{}, live: map[string]uint64{},
		changed: make(chan struct{}), resync: make(chan struct{}, 1), asked: map[*call]bool{},
	}
	t.settle()
	if len(t.addresses) > 0 {
		t.preferred = t.addresses[0]
	}
	return t
}

// address is the host:port of a peer URL.
func address(peerURL string) string {
	if u, err := url.Parse(peerURL); err == nil && u.Host != "" {
		return u.Host
	}
	return peerURL
}

// Node is one consensus node.
type Node struct {
	consensusv1.ConsensusClient
	Address string
}

// Node is the node to ask: the leader where one is known. The only error is ErrNoNode.
func (t *Tier) Node() (Node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range len(t.addresses) + 1 {
		if conn, err := t.conn(t.preferred); err == nil {
			return Node{consensusv1.NewConsensusClient(conn), t.preferred}, nil
		}
		t.next()
	}
	return Node{}, ErrNoNode
}

// Ask gives the context of a call of a node. It ends after the timeout, and when another node is heard to be the leader: one that
// stands still would keep the call for as long as its timeout. The caller calls cancel when the call is over.
func (t *Tier) Ask(ctx context.Context, node Node, timeout time.Duration) (_ context.Context, cancel context.CancelFunc) {
	ctx, end := context.WithTimeout(ctx, timeout)
	asking := &call{node.Address, end}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked[asking] = true
	return ctx, func() {
		end()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.asked, asking)
	}
}

// Blame tells that a node did not answer as a leader does: the next one is asked from now on.
func (t *Tier) Blame(node Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.preferred == node.Address {
		t.next()
	}
}

// next prefers the address after the preferred one; the caller holds the lock.
func (t *Tier) next() {
	if len(t.addresses) > 0 {
		t.preferred = t.addresses[(slices.Index(t.addresses, t.preferred)+1)%len(t.addresses)]
	}
}

// conn gives the connection to an address and opens it at the first call; the caller holds the lock.
func (t *Tier) conn(address string) (Conn, error) {
	if t.closed || address == "" {
		return nil, ErrNoNode
	}
	if conn, ok := t.conns[address]; ok {
		return conn, nil
	}
	conn, err := t.config.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("tier: dial %s: %w", address, err)
	}
	t.conns[address] = conn
	return conn, nil
}

// Cluster is the id of the cluster, 0 until a node told it, and a channel that is closed at the next change of the topology.
func (t *Tier) Cluster() (id uint64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cluster, t.changed
}

// Close closes every connection.
func (t *Tier) Close() {
	t.mu.Lock()
	conns := t.conns
	t.conns, t.closed = nil, true
	t.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // nothing is left to lose on it
	}
}
