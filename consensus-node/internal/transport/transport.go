package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// Transport is the sending side. Its methods may be called at the same time.
type Transport struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	node   atomic.Pointer[boundNode]
	images *bucket // what all images together may send

	mu    sync.RWMutex
	peers map[uint64]*peer // replaced as a whole; nil once closed
}

type boundNode struct{ Node }

var _ raftnode.Transport = (*Transport)(nil)

// New makes a transport without peers.
func New(cfg Config) *Transport {
	t := &Transport{cfg: cfg.withDefaults(), peers: map[uint64]*peer{}}
	t.images = newBucket(t.cfg.SnapshotBytesPerSecond)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.cfg.Metrics.known.WithLabelValues(label(t.cfg.ID), label(t.cfg.ID)).Set(1)
	return t
}

// Start names the node that hears of lost messages.
func (t *Transport) Start(n Node) { t.node.Store(&boundNode{n}) }

// AddPeer makes member id reachable at urls, any of which may answer; for a member that is known it is UpdatePeer. This member itself is
// left out. The error says which URL is malformed; nothing changes then.
func (t *Transport) AddPeer(id uint64, urls []string) error {
	targets, err := parseTargets(urls)
	if err != nil {
		return err
	}
	if id == t.cfg.ID {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peers == nil {
		return errors.New("the transport is closed")
	}
	if p := t.peers[id]; p != nil {
		if !slices.Equal(p.addresses(), targets) {
			p.move(targets)
		}
		return nil
	}
	p := newPeer(&t.cfg, id, targets, t.reportGone)
	ctx, cancel := context.WithCancel(t.ctx)
	p.cancel = cancel
	t.peers[id] = p
	p.counts.known.Set(1)
	go p.run(ctx)
	return nil
}

// UpdatePeer gives member id other URLs.
func (t *Transport) UpdatePeer(id uint64, urls []string) error { return t.AddPeer(id, urls) }

// RemovePeer forgets member id and waits until nothing runs for it any more.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	p := t.peers[id]
	delete(t.peers, id)
	t.mu.Unlock()
	if p != nil {
		p.cancel()
		<-p.ended
		p.counts.known.Set(0)
	}
}

// Send implements raftnode.Transport.
func (t *Transport) Send(msgs []*raftpb.Message) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, m := range msgs {
		p := t.peers[m.GetTo()]
		if p != nil && p.send(m) {
			continue
		}
		if n := t.node.Load(); n != nil {
			n.ReportUnreachable(m.GetTo())
		}
	}
}

func (t *Transport) reportGone(id uint64) {
	if n := t.node.Load(); n != nil {
		n.ReportGone(id)
	}
}

// Silence asks member id since how long it has helped no leader of a term below the given one, over a connection of its own: no message
// of raft's holds the question up.
func (t *Transport) Silence(ctx context.Context, id, term uint64) (time.Duration, error) {
	p, err := t.peer(id)
	if err != nil {
		return 0, err
	}
	conn, err := t.cfg.dial(p.current())
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to do with it
	answer, err := peerv1.NewPeerClient(conn).Silence(ctx, &peerv1.SilenceRequest{Hello: t.cfg.hello(id), Term: term})
	return time.Duration(answer.GetSilentUs()) * time.Microsecond, err
}

func (t *Transport) peer(id uint64) (*peer, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if p := t.peers[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("member %x is not known here", id)
}

// Close ends all connections and waits for their goroutines. Send drops everything from then on.
func (t *Transport) Close() {
	t.cancel()
	t.mu.Lock()
	peers := t.peers
	t.peers = nil
	t.mu.Unlock()
	for _, p := range peers {
		p.cancel()
		<-p.ended
	}
}
