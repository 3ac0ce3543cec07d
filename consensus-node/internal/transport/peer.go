package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

const (
	backoffLeast    = 20 * time.Millisecond
	backoffMost     = time.Second
	identifyTimeout = 2 * time.Second
	// How often the round trip to a member is measured, as etcd does.
	roundTripEvery = 4 * time.Second
	// How often a member that stays unreachable is logged again, for the same reason and for another.
	sameReasonEvery, otherReasonEvery = time.Minute, 10 * time.Second
)

// peer is one other member: its addresses, its two lanes and the goroutine that keeps them connected.
type peer struct {
	id     uint64
	cfg    *Config
	counts peerMetrics

	gone            func(id uint64) // is told that nothing listens where the member should be
	urgent, appends *lane
	cancel          context.CancelFunc
	ended           chan struct{}

	mu      sync.Mutex
	targets []target
	turn    int // which target to try next
	moved   context.CancelFunc
	active  time.Time // connected without a break since then; zero while it is not

	refusals int    // sessions in a row that ended by one
	reason   string // why it was unreachable last, as logged
	reasonAt time.Time
	told     bool      // the log says that it is unreachable
	since    time.Time // when it was connected last
}

func newPeer(cfg *Config, id uint64, targets []target, gone func(id uint64)) *peer {
	return &peer{
		id: id, cfg: cfg, gone: gone, counts: cfg.Metrics.peer(cfg.ID, id), targets: targets, ended: make(chan struct{}), told: true,
		urgent:  newLane(urgentCountMax, urgentBytesMax),
		appends: newLane(appendCountMax, appendBytesMax),
	}
}

// send queues m, or returns false.
func (p *peer) send(m *raftpb.Message) bool {
	lane := p.urgent
	if m.GetType() == raftpb.MsgApp {
		lane = p.appends
	}
	if lane.push(m) {
		return true
	}
	p.counts.sentFailures.Inc()
	return false
}

// run keeps the member connected until ctx ends.
func (p *peer) run(ctx context.Context) {
	defer close(p.ended)
	backoff := backoffLeast
	for ctx.Err() == nil {
		session, cancel := context.WithCancel(ctx)
		p.mu.Lock()
		p.moved = cancel
		p.mu.Unlock()
		began := time.Now()
		err := p.session(session)
		moved := session.Err() != nil
		cancel()
		p.urgent.reset(false)
		p.appends.reset(false)
		p.setActive(time.Time{})
		if ctx.Err() != nil {
			return
		}
		p.note(err)
		if moved || time.Since(began) > backoffMost {
			backoff = backoffLeast
		}
		select {
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		case <-ctx.Done():
			return
		}
		backoff = min(2*backoff, backoffMost)
	}
}

// session connects to one address, checks who answers, and carries both lanes until something ends.
func (p *peer) session(ctx context.Context) error {
	to := p.nextTarget()
	var refused atomic.Bool
	conn, err := p.cfg.dial(to, dialer(&refused))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to do with it
	client := peerv1.NewPeerClient(conn)
	if err := p.identify(ctx, client, to); err != nil {
		p.noteRefused(refused.Load())
		return err
	}
	p.noteRefused(false)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(identifyTimeout, func() { cancel(errors.New("the member does not answer the hello")) })
	var senders []*sender
	for _, lane := range []*lane{p.urgent, p.appends} {
		stream, err := open(ctx, client, p.cfg.hello(p.id))
		if err != nil {
			return reason(ctx, err)
		}
		senders = append(senders, newSender(lane, stream, p.cfg.StallTimeout, p.counts.sentBytes))
	}
	late.Stop()
	p.connected(to)
	ended := make(chan error, len(senders))
	var running sync.WaitGroup
	for _, s := range senders {
		s.lane.reset(true)
		running.Go(func() { ended <- s.run(cancel) })
	}
	running.Go(func() { p.measure(ctx, client) })
	err = reason(ctx, <-ended) // the first is the one that counts
	cancel(nil)
	running.Wait()
	return err
}

// noteRefused tells that the member is gone when each of its addresses has refused in turn.
func (p *peer) noteRefused(refused bool) {
	if !refused {
		p.refusals = 0
		return
	}
	if p.refusals++; p.refusals >= len(p.addresses()) {
		p.gone(p.id)
	}
}

// measure takes the time of a round trip now and then, on the connection that carries the messages.
func (p *peer) measure(ctx context.Context, client peerv1.PeerClient) {
	next := time.NewTicker(roundTripEvery)
	defer next.Stop()
	for {
		began := time.Now()
		if _, err := client.Identify(ctx, &peerv1.IdentifyRequest{}); err == nil {
			p.counts.roundTrip.Observe(time.Since(began).Seconds())
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}

// identify makes sure that the address is the member's: a message to another one must not leave this process.
func (p *peer) identify(ctx context.Context, client peerv1.PeerClient, to target) error {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	who, err := client.Identify(ctx, &peerv1.IdentifyRequest{})
	switch {
	case err != nil:
		return err
	case who.GetClusterId() != p.cfg.ClusterID:
		return fmt.Errorf("%s answers for cluster %016x, not for %016x", to.url, who.GetClusterId(), p.cfg.ClusterID)
	case who.GetMemberId() != p.id:
		return fmt.Errorf("%s is member %x, not %x", to.url, who.GetMemberId(), p.id)
	case who.GetVersion() != Version:
		return fmt.Errorf("%s speaks peer protocol version %d, not %d", to.url, who.GetVersion(), Version)
	}
	return nil
}

func (p *peer) nextTarget() target {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	return p.targets[p.turn%len(p.targets)]
}

// current is the address that was tried last.
func (p *peer) current() target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets[max(0, p.turn)%len(p.targets)]
}

// move gives the member new addresses and leaves the old one.
func (p *peer) move(targets []target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets, p.turn = targets, -1
	if p.moved != nil {
		p.moved()
	}
}

func (p *peer) addresses() []target {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets
}

// connected logs that the member is reachable, unless the log never said otherwise.
func (p *peer) connected(to target) {
	p.since = time.Now()
	if p.told {
		p.cfg.Logger.Info("member reachable", "member", fmt.Sprintf("%x", p.id), "url", to.url)
		p.told = false
	}
	p.setActive(time.Now())
}

// note logs that the member is unreachable: once, and now and then while it stays so. A connection that ends as soon as it is made is
// no news either.
func (p *peer) note(err error) {
	reason := "connection closed"
	if err != nil && !errors.Is(err, context.Canceled) {
		reason = err.Error()
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.PermissionDenied && p.cfg.OnRemoved != nil {
		p.cfg.OnRemoved()
	}
	silent := otherReasonEvery
	if reason == p.reason {
		silent = sameReasonEvery
	}
	lasted := !p.since.IsZero() && time.Since(p.since) >= backoffMost
	p.since = time.Time{}
	if !lasted && !p.reasonAt.IsZero() && time.Since(p.reasonAt) < silent {
		return
	}
	p.reason, p.reasonAt, p.told = reason, time.Now(), true
	p.cfg.Logger.Warn("member unreachable", "member", fmt.Sprintf("%x", p.id), "reason", reason)
}

// dial makes a connection that connects when it is first used.
func (c *Config) dial(to target, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts, err := c.dialOptions(to)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(to.dial, append(more, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.url, err)
	}
	return conn, nil
}
