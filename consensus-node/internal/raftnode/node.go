package raftnode

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Node is one member. New makes it, Run runs it; all other methods may be called from any goroutine, before, during and after Run.
type Node struct {
	cfg     Config
	raw     *raft.RawNode // the loop's
	storage *memlog

	proposals chan *proposal
	urgent    chan *raftpb.Message // from the network, all but MsgApp
	bulk      chan *raftpb.Message // MsgApp from the network
	local     chan []*raftpb.Message
	control   chan func() // run by the loop; never refused, so that the storage goroutines may wait on it
	lost      chan uint64 // members that the transport could not reach
	gone      chan uint64 // members whose address refuses the transport
	received  chan *receivedSnapshot
	appendQ   chan appendWork
	applyQ    chan applyWork

	reads  readQueue
	loop   loopState
	status status

	counters counters

	confState *raftpb.ConfState // as of the last applied change; the apply goroutine's

	ctx     context.Context // ends with the node
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the loop has ended
	senders sync.WaitGroup
	started atomic.Bool
	stepper *Stepper // drives the node in the place of Run; nil in production
}

// loopState is what the loop alone reads and writes.
type loopState struct {
	term, commit, leader uint64
	state                raft.StateType
	lastIndex            uint64 // exact whenever no Ready is pending
	barrier              uint64 // index of the first entry of the term this node leads; 0 while it does not lead
	voters               []uint64
	joint                bool
	round                *readRound // in flight
	roundID              [readIDBytes]byte
	roundTerm            uint64
	roundLeader          uint64
	roundTicks           int
	attempts             uint64
	nonce                uint64
	incoming             *receivedSnapshot // handed to raft or being installed
	sending              map[uint64]uint64 // member to index of the image under way; 0 before it is known
	failures             map[uint64]int    // sendings in a row that failed, by member
	leading              context.Context   // of the images under way; nil if there was none since this node leads
	depose               context.CancelFunc
	transfers            []*transfer
	batch                []*proposal
	outbox               []*raftpb.Message
	obeyed               obeyed
	held                 held
	succession           succession
	others               int       // members beside this one
	heartbeat            time.Time // when this node, as leader, sent its last ones
}

// New checks that log and database continue each other and makes a node of them. It starts nothing and writes nothing. Errors: a
// [*StartError], or what is wrong with the Config.
func New(cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n := &Node{
		cfg:       cfg,
		storage:   newMemlog(&cfg),
		proposals: make(chan *proposal), // unbuffered: the loop answers all that it takes
		urgent:    make(chan *raftpb.Message, 4*inboxMax),
		bulk:      make(chan *raftpb.Message, inboxMax/4),
		local:     make(chan []*raftpb.Message, 64),
		control:   make(chan func()),
		lost:      make(chan uint64, 64),
		gone:      make(chan uint64, 64),
		received:  make(chan *receivedSnapshot),
		appendQ:   make(chan appendWork, workQueueMax),
		applyQ:    make(chan applyWork, workQueueMax),
		confState: cfg.ConfState,
		done:      make(chan struct{}),
	}
	n.reads.wake = make(chan struct{}, 1)
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	if err := n.makeRaft(); err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n.cfg.Entries = nil // the storage has them; it will let them go
	return n, nil
}

func (n *Node) makeRaft() (err error) {
	defer recoverRaft(&err)
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID:                        n.cfg.ID,
		ElectionTick:              n.cfg.ElectionTicks,
		HeartbeatTick:             1,
		Storage:                   n.storage,
		Applied:                   n.cfg.Applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             messageBytesMax,
		MaxCommittedSizePerReady:  applyBytesMax,
		MaxUncommittedEntriesSize: n.cfg.UncommittedBytesMax,
		MaxInflightMsgs:           inflightMessages,
		MaxInflightBytes:          inflightBytesMax,
		CheckQuorum:               true,
		PreVote:                   true,
		StepDownOnRemoval:         true,
		DisableProposalForwarding: true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		Logger:                    newRaftLogger(n.cfg.Logger),
	})
	if err != nil {
		return err
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails: it ends the program instead
	n.loop = loopState{sending: map[uint64]uint64{}, failures: map[uint64]int{}, nonce: binary.LittleEndian.Uint64(nonce[:])}
	_, n.loop.lastIndex, _ = n.storage.extent()
	n.loop.term, n.loop.commit = n.storage.hardState.GetTerm(), n.storage.hardState.GetCommit()
	n.setMembers(n.cfg.ConfState)
	if len(n.cfg.Bootstrap) > 0 {
		if err := n.bootstrap(); err != nil {
			return err
		}
	}
	n.status.applied.Store(n.cfg.Applied)
	n.observe()
	return nil
}

// bootstrap puts the first members into the log, in the order of their ids, so that all of them write the same entries.
func (n *Node) bootstrap() error {
	peers := slices.Clone(n.cfg.Bootstrap)
	slices.SortFunc(peers, func(a, b raft.Peer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	cs := &raftpb.ConfState{}
	for _, p := range peers {
		cs.Voters = append(cs.Voters, p.ID)
	}
	if !slices.Contains(cs.Voters, n.cfg.ID) {
		return fmt.Errorf("member %x is not among the first members", n.cfg.ID)
	}
	n.setMembers(cs)
	return n.raw.Bootstrap(peers)
}

// recoverRaft turns raft's own panics into errors, and no others.
func recoverRaft(err *error) {
	if r := recover(); r != nil {
		p, ok := r.(raftPanic)
		if !ok {
			panic(r)
		}
		*err = errors.New(p.text)
	}
}

// Run works until ctx ends, then returns nil, or until something fails, then returns a [*FatalError]. After a failure it does not
// wait for a storage goroutine that may hang; the process must end. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	if !n.started.CompareAndSwap(false, true) {
		return errors.New("raft: Run was called twice")
	}
	stop := context.AfterFunc(ctx, func() { n.cancel(nil) })
	defer stop()
	var storage sync.WaitGroup
	storage.Go(func() { n.guard(CauseLog, n.runAppend) })
	storage.Go(func() { n.guard(CauseApply, n.runApply) })
	n.guard(CauseRaft, n.runLoop)
	n.reads.stop()
	close(n.done)
	n.status.stop()
	if fatal := n.fatal(); fatal != nil {
		return fatal
	}
	storage.Wait()
	n.senders.Wait()
	if fatal := n.fatal(); fatal != nil { // the last write of a storage goroutine failed
		return fatal
	}
	return nil
}

// guard runs one goroutine's work and ends the node with its failure.
func (n *Node) guard(cause Cause, work func() error) {
	if err := work(); err != nil {
		n.cancel(&FatalError{Cause: cause, Err: err})
	}
}

func (n *Node) fatal() *FatalError {
	fatal, _ := errors.AsType[*FatalError](context.Cause(n.ctx))
	return fatal
}

// do has the loop run f and waits for it. It returns an error, and f was not run, if the node has ended.
func (n *Node) do(ctx context.Context, f func()) error {
	if n.stepper != nil {
		return n.stepper.do(f) //nolint:contextcheck // what the loop begins ends with the node, not with who asked
	}
	ran := make(chan struct{})
	select {
	case n.control <- func() { defer close(ran); f() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
	select {
	case <-ran:
		return nil
	case <-n.done:
		return ErrStopped
	}
}

func (n *Node) ticks() (<-chan time.Time, func()) {
	if n.cfg.Ticks != nil {
		return n.cfg.Ticks, func() {}
	}
	t := time.NewTicker(n.cfg.Tick)
	return t.C, t.Stop
}
