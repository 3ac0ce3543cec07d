package apply

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// EntryVersion is the version of journal entries that this package applies.
const EntryVersion = 1

var (
	// ErrIndex is returned, wrapped, for an entry that is not the next one.
	// Nothing was applied.
	ErrIndex = errors.New("apply: not the next entry of the log")
	// ErrEntry is returned, wrapped, for an entry or command of a version that
	// this program does not know. Nothing was applied.
	ErrEntry = errors.New("apply: entry that is not understood")
)

// Machine is the replicated state of a node.
type Machine struct {
	// Waits says whether somebody on this node waits for the outcome of a
	// command; Apply calls it, on its own goroutine. If nobody does, what only a response would show is not read.
	// Nil: somebody waits for each. Batches do not depend on it.
	Waits func(id uint64) bool
	// Applied, if set, is told of each command when it is done, on Apply's
	// goroutine.
	Applied func(op Op, failed bool)

	kv      *mvcc.State
	leases  *lease.Table
	members *member.List
	alarms  Alarms

	index, term uint64
	finished    int64 // the compaction up to which everything is dropped
	view        *View // of the present state, nil if none was asked for since
}

// New returns the state before the first entry of a new cluster.
func New() *Machine {
	return &Machine{
		kv: mvcc.New(), leases: lease.New(), members: member.NewList(nil, nil, member.Version{}), finished: -1,
	}
}

// View is everything that was applied up to an entry, for readers.
type View struct {
	KV      *mvcc.View
	Leases  *lease.View
	Members *member.List
	Alarms  Alarms
	// Index and Term are those of the last entry.
	Index, Term uint64
}

// View returns the state as it is now. It costs O(1).
func (m *Machine) View() *View {
	if m.view == nil {
		m.view = &View{
			KV: m.kv.View(), Leases: m.leases.View(), Members: m.members, Alarms: m.alarms,
			Index: m.index, Term: m.term,
		}
	}
	return m.view
}

// Index returns the index of the last entry applied, which is the consistent
// index of the last Batch.
func (m *Machine) Index() uint64 { return m.index }

// Result is what an entry led to.
type Result struct {
	// Outcomes has one for each command, in order.
	Outcomes []Outcome
	// Revisions and LeaseChanges are for the feed, both in order. Span contexts
	// and times are for the caller to add.
	Revisions    []*feedv1.Revision
	LeaseChanges []*feedv1.LeaseChange
	Batch        Batch
	// Ops are the operations on keys of all commands.
	Ops mvcc.Ops
}

// Outcome is what came of one command.
type Outcome struct {
	// ID is the proposal's.
	ID uint64
	// Response is etcd's to the request, its header holding revision and term.
	// LeaseExpire and LeaseCheckpoints get the consensusv1 response of their
	// call, a ViewChange the new feedv1.View. Nil on error, and for commands
	// that nobody gets an answer to.
	Response proto.Message
	// Err is a gRPC status, with etcd's code and text where etcd has one.
	Err error
	// Revision is the one in the response's header, or the present one where a
	// response has no header. 0 on error.
	Revision int64
	// Revisions and LeaseChanges are how many of the Result's there were when
	// the command was done: those beyond the command before it are its own.
	Revisions    int
	LeaseChanges int
}

// Apply applies the entry at an index. A nil entry is an empty one. vals gives
// what the batches before this one stored.
//
// Errors end the process: ErrIndex, ErrEntry, and what vals returns.
func (m *Machine) Apply(index, term uint64, e *journalv1.Entry, vals mvcc.Values) (Result, error) {
	if err := m.checkNext(index, term); err != nil {
		return Result{}, err
	}
	if err := checkEntry(index, e); err != nil {
		return Result{}, err
	}
	s := m.begin(index, term, vals)
	if n := len(e.GetCommands()); n > 0 {
		// Most commands write one key each.
		s.res.Outcomes = make([]Outcome, 0, n)
		s.res.Revisions = make([]*feedv1.Revision, 0, n)
		s.res.Batch.Writes, s.res.Batch.Encoded = make([]mvcc.Write, 0, n), make([][]byte, 0, n)
	}
	for _, c := range e.GetCommands() {
		out, err := s.command(c)
		if err != nil {
			return Result{}, fmt.Errorf("apply: entry %d, command %x: %w", index, c.GetId(), err)
		}
		s.res.Outcomes = append(s.res.Outcomes, out)
	}
	return s.finish(), nil
}

func (m *Machine) checkNext(index, term uint64) error {
	switch {
	case index != m.index+1:
		return fmt.Errorf("%w: index %d after %d", ErrIndex, index, m.index)
	case term < m.term:
		return fmt.Errorf("%w: index %d has term %d after term %d", ErrIndex, index, term, m.term)
	}
	return nil
}

// checkEntry looks at the whole entry before any of it is applied.
func checkEntry(index uint64, e *journalv1.Entry) error {
	if e == nil {
		return nil
	}
	if e.GetVersion() != EntryVersion {
		return fmt.Errorf("%w: entry %d has version %d", ErrEntry, index, e.GetVersion())
	}
	for _, c := range e.GetCommands() {
		if c.GetCommand() == nil {
			return fmt.Errorf("%w: entry %d has an unknown command %x", ErrEntry, index, c.GetId())
		}
	}
	return nil
}

// step is one entry on its way.
type step struct {
	m        *Machine
	vals     mvcc.Values
	res      Result
	sequence uint64 // of the leases, before the entry
}

func (m *Machine) begin(index, term uint64, vals mvcc.Values) *step {
	m.index, m.term, m.view = index, term, nil
	s := &step{m: m, vals: vals, sequence: m.leases.Sequence()}
	s.res.Batch.Index, s.res.Batch.Term = index, term
	return s
}

func (s *step) finish() Result {
	if now := s.m.leases.Sequence(); now != s.sequence {
		s.res.Batch.put(lease.ClusterBucket, []byte(lease.SequenceKey), lease.SequenceRow(now))
	}
	return s.res
}
