package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// Waiting is who waits on this node for outcomes of commands.
type Waiting interface {
	// Waits tells whether anybody waits for a command's outcome here.
	Waits(id uint64) bool
	// Resolve hands an outcome out.
	Resolve(outcome apply.Outcome)
	// Applied tells that an entry of a term was applied, after Resolve for it and for all entries before.
	Applied(term uint64)
	// Jumped tells that a snapshot took the place of the state: outcomes up to its index do not come.
	Jumped(index uint64)
}

// Raft is what the node asks of the raft loop.
type Raft interface {
	// ReadIndex gives an index that covers everything acknowledged anywhere before the call.
	ReadIndex(ctx context.Context) (uint64, error)
	// ApplyConfChange makes a membership change that was accepted true in raft.
	ApplyConfChange(cc raftpb.ConfChangeI) (*raftpb.ConfState, error)
}

// Config is what a node is made of.
type Config struct {
	Machine *apply.Machine
	Store   Store
	Ring    *outbox.Ring
	Waiting Waiting
	// Changed is called after the member list or the view of the lease-service changed. It must not block.
	Changed func()
	// Observer, if set, is told what the node does.
	Observer Observer
	// CompactBatch bounds the keys and revisions of one step of compaction, CompactSleep is the rest between two; 0 means the
	// default, for the rest also a negative one none.
	CompactBatch int
	CompactSleep time.Duration
	// Busy tells whether steps of compaction have to wait, since the store has enough to do; nil: never.
	Busy func() bool
}

// Node is the assembly. Apply and InstallSnapshot are called by the raft loop; all else from any goroutine.
type Node struct {
	cfg  Config
	raft Raft

	// mu serialises everything that changes the machine and the store: entries, steps of compaction, installs.
	mu      sync.Mutex
	machine *apply.Machine

	view    atomic.Pointer[View]
	closed  atomic.Bool
	applied progress
	// revisions and leases count the KV revision and the lease sequence for those who wait for them.
	revisions, leases progress
	refresh           chan struct{}
	compact           chan struct{}
	// rested is when the next step of compaction may be; it belongs to Run.
	rested time.Time
	// stepped is the index at the last step of compaction; mu guards it.
	stepped uint64
	// compacting and commandBegan are for the Observer; mu guards them.
	compacting   compaction
	commandBegan time.Time
	// compacted is advanced to a compact revision once its physical part is done.
	compacted progress
}

// New makes a node whose state is what machine and store hold. UseRaft comes before anything else is called.
func New(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, machine: cfg.Machine, refresh: make(chan struct{}, 1), compact: make(chan struct{}, 1)}
	n.cfg.Machine = nil // an installed snapshot lets it go
	n.cfg.setDefaults()
	n.listen(n.machine)
	if err := n.publish(); err != nil {
		return nil, err
	}
	n.advance(n.machine.View())
	notify(n.compact)
	return n, nil
}

// UseRaft gives the raft loop, which itself needs the node.
func (n *Node) UseRaft(raft Raft) { n.raft = raft }

// Run carries compaction on and keeps the published view fresh until the context ends.
func (n *Node) Run(ctx context.Context) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.refresh:
			if err := n.refreshView(); err != nil {
				return err
			}
		case <-n.compact:
			rest.Reset(n.compactWait())
		case <-rest.C:
			if err := n.compactStep(); err != nil {
				return err
			}
		}
	}
}

// Step does one piece of what Run does, if there is any, and says whether it did: for a simulation, in the place of Run.
func (n *Node) Step() (bool, error) {
	select {
	case <-n.refresh:
		return true, n.refreshView()
	default:
	}
	select {
	case <-n.compact:
		return true, n.compactStep()
	default:
		return false, nil
	}
}

// refreshView moves readers to the store's newest generation.
func (n *Node) refreshView() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.publish()
}

// Close releases the published view: from then on Current fails, also if a round of apply is still under way (as after a
// failure of the disk, which nobody waits for).
func (n *Node) Close() {
	n.closed.Store(true)
	n.show(nil)
}

// show makes a view, or none, the published one, and gives the reference to the last one back.
func (n *Node) show(next *View) {
	if last := n.view.Swap(next); last != nil {
		last.Release()
	}
	if next != nil && n.closed.Load() {
		n.show(nil)
	}
}

// Refresh tells the node that the store has a newer generation: readers should move to it. It does not block.
func (n *Node) Refresh() { notify(n.refresh) }

// Apply applies committed entries in order.
func (n *Node) Apply(entries []*raftpb.Entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	round := round{node: n}
	for _, entry := range entries {
		if err := round.apply(entry); err != nil {
			return fmt.Errorf("applying entry %d: %w", entry.GetIndex(), err)
		}
	}
	if err := n.publish(); err != nil {
		return err
	}
	round.finish()
	return nil
}

// round gathers what the entries of one Apply brought.
type round struct {
	node      *Node
	revisions []*feedv1.Revision
	leases    []*feedv1.LeaseChange
	ops       mvcc.Ops
	outcomes  [][]apply.Outcome
	changed   bool // the member list or the view of the lease-service
}

func (r *round) apply(entry *raftpb.Entry) error {
	n := r.node
	if entry.GetIndex() <= n.machine.Index() {
		return nil // covered by the database already
	}
	result, err := r.dispatch(entry)
	if err != nil {
		return err
	}
	if err := n.cfg.Store.Apply(storeBatch(result.Batch)); err != nil {
		return err
	}
	r.revisions = append(r.revisions, result.Revisions...)
	r.leases = append(r.leases, result.LeaseChanges...)
	r.ops.Add(result.Ops)
	r.outcomes = append(r.outcomes, result.Outcomes)
	return nil
}

func (r *round) dispatch(entry *raftpb.Entry) (apply.Result, error) {
	switch entry.GetType() {
	case raftpb.EntryConfChange, raftpb.EntryConfChangeV2:
		return r.applyConf(entry)
	case raftpb.EntryNormal:
		return r.applyNormal(entry)
	}
	return apply.Result{}, fmt.Errorf("the entry has the unknown type %v", entry.GetType())
}

func (r *round) applyConf(entry *raftpb.Entry) (apply.Result, error) {
	cc, err := confChange(entry)
	if err != nil {
		return apply.Result{}, err
	}
	conf, err := r.node.machine.ApplyConf(entry.GetIndex(), entry.GetTerm(), cc)
	if err != nil {
		return apply.Result{}, err
	}
	conf.Batch.ConfState, err = r.node.raft.ApplyConfChange(conf.Change)
	if errors.Is(err, raftnode.ErrStopped) {
		return apply.Result{}, err
	}
	// Any other error means that the change does not fit the membership and has no effect, the same on every member.
	r.changed = true
	result := apply.Result{Batch: conf.Batch}
	if conf.Outcome.ID != 0 {
		result.Outcomes = []apply.Outcome{conf.Outcome}
	}
	return result, nil
}

func (r *round) applyNormal(entry *raftpb.Entry) (apply.Result, error) {
	var commands *journalv1.Entry
	if len(entry.GetData()) > 0 {
		commands = &journalv1.Entry{}
		if err := commands.UnmarshalVT(entry.GetData()); err != nil {
			return apply.Result{}, fmt.Errorf("the entry is not readable: %w", err)
		}
	}
	for _, c := range commands.GetCommands() {
		if c.GetMemberAttributes() != nil {
			r.changed = true
		}
	}
	values, err := r.node.cfg.Store.Reader()
	if err != nil {
		return apply.Result{}, err
	}
	defer values.Close()
	r.node.commandBegan = time.Now()
	result, err := r.node.machine.Apply(entry.GetIndex(), entry.GetTerm(), commands, values)
	if err != nil {
		return apply.Result{}, err
	}
	brand(commands.GetCommands(), &result)
	return result, nil
}

// finish tells everyone about a round whose view is published.
func (r *round) finish() {
	n := r.node
	view := n.machine.View()
	// Also without changes: a compaction moves the compact revision alone, and followers must hear of it.
	if state := ringState(view); len(r.revisions) > 0 || len(r.leases) > 0 || state != n.cfg.Ring.State() {
		n.cfg.Ring.Append(state, r.revisions, r.leases)
	}
	n.cfg.Observer.Applied(r.ops, r.leases)
	n.advance(view)
	for _, outcomes := range r.outcomes {
		for _, outcome := range outcomes {
			n.cfg.Waiting.Resolve(outcome)
		}
	}
	n.cfg.Waiting.Applied(view.Term)
	n.carryOn()
	for _, change := range r.leases {
		r.changed = r.changed || change.GetView() != nil
	}
	if r.changed && n.cfg.Changed != nil {
		n.cfg.Changed()
	}
}

// advance wakes those who wait for what the published view holds.
func (n *Node) advance(view *apply.View) {
	n.applied.advance(view.Index)
	n.revisions.advance(uint64(view.KV.Revision()))
	n.leases.advance(view.Leases.Sequence())
}

// brand writes the span contexts of sampled commands beside the revisions and the lease changes that they made.
func brand(commands []*journalv1.Command, result *apply.Result) {
	revisions, changes := 0, 0
	for i, outcome := range result.Outcomes {
		if span := commands[i].GetSpanContext(); len(span) > 0 {
			for _, revision := range result.Revisions[revisions:outcome.Revisions] {
				revision.SpanContext = span
			}
			for _, change := range result.LeaseChanges[changes:outcome.LeaseChanges] {
				change.SpanContext = span
			}
		}
		revisions, changes = outcome.Revisions, outcome.LeaseChanges
	}
}

// publish makes the machine's and the store's present state the view of readers; the caller holds mu (or is New).
func (n *Node) publish() error {
	values, err := n.cfg.Store.Reader()
	if err != nil {
		return err
	}
	n.show(newView(n.machine.View(), values))
	return nil
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
