package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/quota"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/transport"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
	"github.com/holdfastdb/holdfast/services/buffers"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// Dependencies are what a node gets from the process that it is part of.
type Dependencies struct {
	Logger *slog.Logger
	// Tracers makes the node's tracer.
	Tracers trace.TracerProvider
	// Metrics takes the node's metrics.
	Metrics prometheus.Registerer
	// Buffers lends the memory of long answers to ranges, to a proxy in the same process that gives it back; nil makes it anew.
	Buffers *buffers.Pool
	// Bus carries the change feed; nil: followers use direct streams.
	Bus bus.Bus
	// SpeakAlways makes this node publish whatever it applies. Without it the leader alone publishes, as on a bus that all
	// nodes share.
	SpeakAlways bool
}

// Node is a consensus node that holds its data directory.
type Node struct {
	cfg  *Config
	deps Dependencies
	log  *slog.Logger

	disk      *disk
	machine   *node.Node
	raft      *raftnode.Node
	transport *transport.Transport
	// peers are the members that the transport knows; runMembers alone changes it once the node runs.
	peers      map[uint64][]string
	hints      hints
	peerServer *transport.Server
	packer     *propose.Packer
	ring       *outbox.Ring
	interest   *outbox.Interest
	server     *edge.Server
	space      *edge.Space
	registry   *edge.Registry
	speaker    outbox.Speaker
	memberID   uint64
	clusterID  uint64
	failed     chan error
	members    chan struct{}
	// gone gets a word when others say that this member was removed.
	gone    chan struct{}
	metrics *metrics
}

// Open takes the data directory and builds the node. It listens nowhere. Close it, or run its Parts, which close it at their end.
func Open(cfg *Config, deps Dependencies) (*Node, error) {
	n := &Node{
		cfg: cfg, deps: deps, failed: make(chan error, 1), members: make(chan struct{}, 1), gone: make(chan struct{}, 1),
		registry: edge.NewRegistry(), metrics: newMetrics(),
	}
	var err error
	n.disk, err = openDisk(cfg, store.Options{
		Logger: deps.Logger, MapBytes: cfg.Space.mapBytes(), ObserveCommit: n.metrics.committed,
		ObserveDefragment: n.metrics.defragmented, ObserveImage: n.metrics.imaged,
		OnDurable: func(uint64) { n.refresh() },
		OnFailure: func(err error) { n.fail(failure.Wrap(failure.Storage, "the database could not be written", err)) },
	}, n.metrics)
	if err != nil {
		return nil, err
	}
	n.log = deps.Logger.With(n.disk.logAttrs()...)
	n.memberID, n.clusterID = n.disk.state.Metadata.NodeID, n.disk.state.Metadata.ClusterID
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.disk.state.Entries = nil
	return n, nil
}

// giveBack returns memory to the system once: reading log and database takes far more than the node needs from then on. It takes a tenth of
// a second for a million keys, for which no answer has to wait.
func giveBack(context.Context) error {
	debug.FreeOSMemory()
	return nil
}

// restore makes the replicated state from the database. Nearly all that it allocates stays, so the garbage collector would go through a
// growing heap again and again for nothing: memory that is never touched, and so takes none, makes the heap look large enough to wait.
func (n *Node) restore() (*apply.Machine, error) {
	var ballast []byte
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // else the limit decides
		const ballastMax = 1 << 30
		ballast = make([]byte, min(n.disk.store.SizeInUse(), ballastMax))
	}
	defer runtime.KeepAlive(ballast)
	return node.RestoreMachine(node.Database(n.disk.store))
}

// build joins the parts; see the order of one round of apply in package node.
func (n *Node) build() error {
	machine, err := n.restore()
	if err != nil {
		return openError(n.cfg, "database", err)
	}
	view := machine.View()
	n.ring = outbox.NewRing(outbox.State{
		Head: view.KV.Revision(), Compact: max(0, view.KV.CompactRevision()), LeaseSequence: view.Leases.Sequence(),
	}, int(n.cfg.FeedBufferBytes))
	n.interest = outbox.NewInterest()
	limits := n.cfg.limits()
	run := uint64(time.Now().UnixNano())
	boot := clock.Boottime{}
	const memberShift = 48
	n.packer = propose.New(proposer{n}, n.memberID<<memberShift^run, limits.RequestTimeout, boot.Now)
	n.machine, err = node.New(node.Config{
		Machine: machine, Store: node.Database(n.disk.store), Ring: n.ring, Waiting: n.packer, Changed: n.changed,
		CompactBatch: int(n.cfg.Space.CompactBatch), CompactSleep: n.cfg.Space.CompactSleep, Busy: n.busy, Observer: n.metrics,
	})
	if err != nil {
		return err
	}
	if err := n.buildRaft(view.Index, view.Term); err != nil {
		return err
	}
	n.machine.UseRaft(n.raft)
	n.speaker = outbox.Speaker{ClusterID: n.clusterID, MemberID: n.memberID, Run: run, Leadership: func() outbox.Leadership {
		status := n.raft.Status()
		return outbox.Leadership{Term: status.Term, Leader: status.Leader}
	}}
	n.space = &edge.Space{Store: n.disk.store, QuotaBytes: quota.Bytes(n.cfg.Space.QuotaBytes)}
	n.server = edge.New(edge.Config{
		ClusterID: n.clusterID, MemberID: n.memberID, Node: n.machine, Packer: n.packer, Raft: n.raft, Store: n.disk.store,
		Space: n.space, Free: n.cfg.freeBytes,
		Ring: n.ring, Speaker: n.speaker, Registry: n.registry, Leases: edge.NewLeases(boot.Now), Limits: limits,
		ActiveSince: n.transport.ActiveSince, Silence: n.transport.Silence, Forward: n.forward, Buffers: n.deps.Buffers,
		Observer: n.metrics, Logger: n.log, Tracer: n.deps.Tracers.Tracer("consensus-node"),
	})
	return n.register(n.deps.Metrics)
}

func (n *Node) buildRaft(applied, appliedTerm uint64) error {
	wire := transport.Config{
		ID: n.memberID, ClusterID: n.clusterID, Name: n.cfg.Name, Dir: n.cfg.snapDir(), Logger: n.log,
		PeerURLs: n.cfg.AdvertisePeerURLs.Strings(),
		Removed:  n.isRemoved, OnRemoved: n.removed, OnHello: n.heard,
		Metrics:                n.metrics.traffic,
		SnapshotBytesPerSecond: int64(min(n.cfg.SnapshotBytesPerSecond, math.MaxInt64)),
	}
	n.transport = transport.New(wire)
	state := n.disk.state
	var err error
	n.raft, err = raftnode.New(raftnode.Config{
		ID: n.memberID, Tick: time.Duration(n.cfg.HeartbeatMs) * time.Millisecond,
		ElectionTicks: int(n.cfg.ElectionMs / n.cfg.HeartbeatMs),
		SnapshotCount: n.cfg.SnapshotCount, CatchUpEntries: n.cfg.CatchUpEntries,
		UncommittedBytesMax: 2 * propose.InFlightBytesMax, // package propose says why twice
		CommitHold:          commitHold, Eager: n.eager(),
		Mark: state.Snapshot, Entries: state.Entries, HardState: state.HardState,
		Applied: applied, AppliedTerm: appliedTerm, ConfState: n.disk.meta.ConfState, Bootstrap: n.disk.bootstrap,
		Transport: n.transport, Log: n.disk.log, Applier: n.machine, Logger: n.log,
		Hooks: raftnode.Hooks{Snapshot: n.cfg.onSnapshot},
	})
	if _, ok := errors.AsType[*raftnode.StartError](err); ok {
		return failure.Wrap(failure.Storage, "the data directory "+n.cfg.DataDir+" cannot be used", err)
	}
	if err != nil {
		return err
	}
	n.transport.Start(n.raft)
	n.peerServer = transport.NewServer(wire, receiver{n.raft})
	return n.followMembers()
}

// commitHold is how long followers may hear late of a commit: about as long as a single writer takes from one write to the next.
const commitHold = 5 * time.Millisecond

// eager tells whether commits may not come late to this member: while somebody watches beside it. Where the leader alone publishes nobody
// follows the others.
func (n *Node) eager() func() bool {
	if !n.deps.SpeakAlways {
		return nil
	}
	return n.interest.Watched
}

// Identity tells the cluster and member id.
func (n *Node) Identity() (clusterID, memberID uint64) { return n.clusterID, n.memberID }

// Register puts the services for other members and services on a server.
func (n *Node) Register(registrar grpc.ServiceRegistrar) {
	peerv1.RegisterPeerServer(registrar, n.peerServer)
	n.RegisterConsensus(registrar)
}

// RegisterConsensus puts the service for proxies, watch-hubs and lease-services alone on a server, such as a direct binding.
func (n *Node) RegisterConsensus(registrar grpc.ServiceRegistrar) {
	consensusv1.RegisterConsensusServer(registrar, n.server)
}

// RegisterAdmin puts etcd's services for this one member on a server.
func (n *Node) RegisterAdmin(registrar grpc.ServiceRegistrar) {
	edge.RegisterMember(registrar, n.server)
}

// Healthy returns nil if the node can answer a linearizable read within the context.
func (n *Node) Healthy(ctx context.Context) error {
	view, err := n.machine.Linearize(ctx)
	if err != nil {
		return fmt.Errorf("no linearizable read: %w", err)
	}
	view.Release()
	return nil
}

// Parts are the node's work in the order of its start. Servers come after them, and LastPart after the servers.
func (n *Node) Parts() []lifecycle.Part {
	return []lifecycle.Part{
		{Name: "data directory", Run: n.watchFailure},
		{Name: "memory of the start", Run: giveBack},
		{Name: "initial corruption check", Start: n.initialCheck},
		{Name: "raft log", Run: n.prepareLog},
		{Name: "transport", Stop: func(context.Context) error { n.transport.Close(); return nil }},
		{Name: "apply", Run: n.runApply},
		{Name: "raft", Run: n.runRaft, Stop: n.handOver},
		{Name: "proposals", Run: n.packer.Run},
		{Name: "leases", Run: n.server.RunLeases},
		{Name: "members", Run: n.runMembers},
		{Name: "corruption check", Run: n.checkConsistency},
		{Name: "space", Run: n.runSpace},
		{Name: "compaction", Run: n.runCompaction},
		{Name: "feed", Run: n.publish},
		{Name: "leader count", Run: n.countLeaders},
	}
}

// LastPart gives leadership away. It belongs behind the servers, so that it is the first to stop: the successor's messages still
// arrive then, and the calls that come meanwhile are sent on to it.
func (n *Node) LastPart() lifecycle.Part { return lifecycle.Part{Name: "leadership", Stop: n.handOver} }

// Close writes what is pending and lets the data directory go. Call it after the Parts have ended.
func (n *Node) Close() error {
	if n.transport != nil {
		n.transport.Close() // a second time where the Parts ran, which does nothing
	}
	if n.machine != nil {
		n.machine.Close()
	}
	if err := n.disk.close(); err != nil {
		return failure.Wrap(failure.Storage, "the data directory was not closed cleanly", err)
	}
	return nil
}

func (n *Node) refresh() {
	if n.machine != nil {
		n.machine.Refresh()
	}
}

func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// watchFailure ends the process at the first failure of the disk.
func (n *Node) watchFailure(ctx context.Context) error {
	select {
	case err := <-n.failed:
		return err
	case <-ctx.Done():
	}
	select { // what failed while the other parts stopped
	case err := <-n.failed:
		return err
	default:
		return nil
	}
}

// runApply is the node's own work. What it can fail at is the database.
func (n *Node) runApply(ctx context.Context) error {
	if err := n.machine.Run(ctx); err != nil {
		return failure.Wrap(failure.Storage, "the node cannot go on", err)
	}
	return nil
}

// prepareLog makes the log's files ahead, beside the appends.
func (n *Node) prepareLog(ctx context.Context) error {
	for {
		select {
		case <-n.disk.log.Wanted():
			if err := n.disk.log.Prepare(); err != nil {
				return failure.Wrap(failure.Storage, "the node cannot go on", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) runRaft(ctx context.Context) error {
	err := n.raft.Run(ctx)
	if _, ok := errors.AsType[*raftnode.FatalError](err); ok {
		return failure.Wrap(failure.Storage, "the node cannot go on", err)
	}
	return err
}

// handOver gives leadership to another voter before the node stops, if there is one to take it.
func (n *Node) handOver(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, time.Duration(n.cfg.ElectionMs)*time.Millisecond)
	defer cancel()
	if err := n.raft.HandOver(bounded); err != nil {
		n.log.Info("leadership was not handed over before the stop", "error", err)
	}
	return nil
}

// proposer is the raft loop as the packer sees it.
type proposer struct{ node *Node }

func (p proposer) Propose(ctx context.Context, data []byte) (propose.Position, error) {
	position, err := p.node.raft.Propose(ctx, data)
	return propose.Position(position), elsewhere(err)
}

func (p proposer) ProposeConfChange(ctx context.Context, cc raftpb.ConfChangeI) (propose.Position, error) {
	position, err := p.node.raft.ProposeConfChange(ctx, cc)
	return propose.Position(position), elsewhere(err)
}

// elsewhere marks what another node leads for.
func elsewhere(err error) error {
	if _, ok := errors.AsType[*raftnode.NotLeaderError](err); ok {
		return fmt.Errorf("%w: %w", propose.ErrElsewhere, err)
	}
	return err
}

func (p proposer) Term() uint64 { return p.node.raft.Status().Term }
