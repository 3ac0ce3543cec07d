package sim

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

const logDir = "/log"

// machine is one member: its disk, and the process on it while it is up.
type machine struct {
	w     *world
	id    uint64
	fs    *faultfs.FS
	db    database
	peers []raft.Peer // of a first member

	born        bool // the log was made
	gone        bool // removed from the cluster for good
	run         uint64
	restartAt   uint64
	pausedUntil uint64
	tick        uint64 // length of a tick in moments
	nextTick    uint64

	// Of the present process.
	up          bool
	log         *memberLog
	node        *node.Node
	raft        *raftnode.Node
	stepper     *raftnode.Stepper
	packer      *propose.Packer
	unreachable []uint64
	refused     []uint64 // by which members' addresses, as the transport says
	receipts    []*receipt
	outgoing    []*raftnode.Sending
	packable    bool   // the packer may have something to do
	work        bool   // the node may have
	stored      uint64 // the last index that was stored
	nextCommit  uint64 // of the database
	doomIn      int    // crash points until the end, if doomed
	doomed      bool
	doomPower   bool
	faulty      bool   // a fault of the disk may end the process
	quiet       uint64 // since when the log was not written
	confirmed   bool
}

// receipt is an image that raft was offered.
type receipt struct {
	answer  <-chan error
	path    string
	sending *sending
}

var errCrash = errors.New("the process ends here")

// point is a place where a process may end.
func (m *machine) point() error {
	if !m.doomed {
		return nil
	}
	if m.doomIn--; m.doomIn >= 0 {
		return nil
	}
	m.w.note(m, evPoint, 0, 0, 0)
	return errCrash
}

// injected says whether a failure is one that the simulation made.
func (m *machine) injected(err error) bool {
	return errors.Is(err, errCrash) || errors.Is(err, faultfs.ErrPowerCut) || m.faulty &&
		(errors.Is(err, faultfs.ErrFault) || errors.Is(err, syscall.ENOSPC))
}

// start is the start of a process. What goes wrong must have been injected.
func (m *machine) start() {
	m.run++
	m.doomed, m.doomIn = false, 0
	if _, err := m.fs.List(logDir); errors.Is(err, faultfs.ErrPowerCut) {
		m.fs.Restart() // it was cut while nobody used it
	}
	m.w.troubleStart(m)
	if err := m.open(); err != nil {
		m.w.note(m, evRefuse, 0, 0, 0)
		if !m.injected(err) {
			m.w.fail("member %d does not start: %v", m.id, err)
		}
		m.up = true // as far as it came
		m.crash(errors.Is(err, faultfs.ErrPowerCut))
	}
}

// open does what the program does at its start, in the same order.
func (m *machine) open() error {
	w := m.w
	options := wal.Options{SegmentBytes: w.faults.SegmentBytes, Salt: w.rng.Uint64}
	if !wal.Exists(m.fs, logDir) {
		if m.born {
			return errors.New("the log is gone")
		}
		log, err := wal.Create(m.fs, logDir, wal.Metadata{ClusterID: 7, NodeID: m.id}, options)
		if err != nil {
			return err
		}
		if err := log.Close(); err != nil {
			return err
		}
	}
	m.born = true
	log, state, err := wal.Open(m.fs, logDir, options)
	if err != nil {
		return err
	}
	mark := state.Snapshot.Index
	if w.mutation == lostImage {
		mark = 0
	}
	if err := m.db.open(mark); err != nil {
		return err
	}
	meta, err := m.db.meta()
	if err != nil {
		return err
	}
	var bootstrap []raft.Peer
	if state.Snapshot.Index == 0 && raft.IsEmptyHardState(state.HardState) && meta.Index == 0 {
		state.Entries, bootstrap = nil, m.peers
	}
	m.w.check.opened(m, state, meta.Index)
	m.log = &memberLog{m: m, log: log}
	m.log.note(state)
	machine, err := node.RestoreMachine(m.db)
	if err != nil {
		return err
	}
	view := machine.View()
	m.stored = view.Index
	ring := outbox.NewRing(outbox.State{Head: view.KV.Revision(), Compact: max(0, view.KV.CompactRevision()), LeaseSequence: view.Leases.Sequence()}, 1<<16)
	m.packer = propose.New(proposer{m}, m.id<<48^m.run<<32, proposalTimeout, m.clock)
	if m.node, err = node.New(node.Config{Machine: machine, Store: m.db, Ring: ring, Waiting: m.packer}); err != nil {
		return err
	}
	w.note(m, evStart, state.Snapshot.Index, state.Snapshot.Index+uint64(len(state.Entries)), view.Index)
	m.raft, err = raftnode.New(raftnode.Config{
		ID: m.id, ElectionTicks: w.faults.ElectionTicks, SnapshotCount: w.faults.SnapshotCount, CatchUpEntries: w.faults.CatchUpEntries,
		LogBytesMax: w.faults.LogBytesMax, CommitHold: w.faults.CommitHold, UncommittedBytesMax: 64 << 10,
		Mark: state.Snapshot, Entries: state.Entries, HardState: state.HardState,
		Applied: view.Index, AppliedTerm: view.Term, ConfState: meta.ConfState, Bootstrap: bootstrap,
		Transport: wire{m}, Log: m.log, Applier: m,
		Eager: func() bool { return (m.clock()/time.Second+time.Duration(m.id))%2 == 0 }, // now and then
	})
	if err != nil {
		return err
	}
	m.node.UseRaft(m.raft)
	m.up, m.unreachable, m.refused, m.receipts, m.outgoing, m.packable, m.work = true, nil, nil, nil, nil, true, true
	m.quiet, m.confirmed = w.now, false
	m.stepper, err = raftnode.NewStepper(m.raft, w.faults.Queue)
	return err
}

func (m *machine) clock() time.Duration { return time.Duration(m.w.now) * time.Second }

// SendSnapshot implements raftnode.Transport; a stepper's images are sent by the simulation.
func (wire) SendSnapshot(context.Context, *raftpb.Message, raftnode.Image) error {
	panic("sent by the simulation")
}

// ended is the end of a process by itself, because of err.
func (m *machine) ended(err error) {
	if !m.injected(err) {
		m.w.fail("member %d ends: %v", m.id, err)
	}
	m.crash(errors.Is(err, faultfs.ErrPowerCut) || m.doomed && m.doomPower)
}

// crash ends the process, with its machine if power is set.
func (m *machine) crash(power bool) {
	if !m.up {
		return
	}
	w := m.w
	m.up = false
	w.note(m, evCrash, boolNumber(power), 0, 0)
	if n := m.node; n != nil {
		m.node = nil
		n.Close()
	}
	landed := 0
	if w.rng.IntN(4) == 0 {
		landed = w.rng.IntN(m.db.pending() + 1)
	}
	m.db.crash(landed)
	if power {
		m.fs.Restart()
	} else {
		m.fs.Kill()
	}
	m.fs.SetFault(nil)
	if m.faulty && w.rng.IntN(2) == 0 || w.healed {
		m.fs.SetCapacity(-1)
		m.faulty = false
	}
	for _, r := range m.receipts {
		w.net.answer(r.sending, m.id, errLost)
	}
	w.abandon(m)
	m.log, m.raft, m.stepper, m.packer, m.receipts, m.outgoing = nil, nil, nil, nil, nil, nil
	m.restartAt = w.now + 1 + w.rng.Uint64N(w.faults.DownMax)
	if w.healed {
		m.restartAt = w.now + 1
	}
}

// stop ends the process in good order, as a signal does.
func (m *machine) stop() {
	m.packer.End()
	m.stepper.Close()
	if err := m.db.commit(-1); err != nil {
		m.w.fail("member %d: %v", m.id, err)
	}
	if err := m.log.log.Close(); err != nil && !m.injected(err) {
		m.w.fail("member %d: %v", m.id, err)
	}
	m.w.settleDone()
	m.crash(false)
}

func boolNumber(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// proposer is the raft loop as the packer sees it. A proposal that a busy loop does not take at once is withdrawn, as if its time had
// run out.
type proposer struct{ m *machine }

// Propose implements propose.Raft.
func (p proposer) Propose(_ context.Context, data []byte) (propose.Position, error) {
	return p.answer(p.m.stepper.Propose(data)) //nolint:contextcheck // a step does not wait
}

// ProposeConfChange implements propose.Raft.
func (p proposer) ProposeConfChange(_ context.Context, cc raftpb.ConfChangeI) (propose.Position, error) {
	return p.answer(p.m.stepper.ProposeConfChange(cc)) //nolint:contextcheck // a step does not wait
}

func (p proposer) answer(proposal *raftnode.Proposal, err error) (propose.Position, error) {
	if err != nil {
		return propose.Position{}, err
	}
	position, err, ok := proposal.Answer()
	if !ok {
		if !proposal.Withdraw() {
			p.m.w.fail("member %d: a proposal without an answer cannot be withdrawn", p.m.id)
		}
		return propose.Position{}, context.DeadlineExceeded
	}
	if err == nil {
		p.m.w.note(p.m, evPropose, position.Index, position.Term, 0)
	}
	return propose.Position(position), err
}

// Term implements propose.Raft.
func (p proposer) Term() uint64 { return p.m.raft.Status().Term }

// Apply implements raftnode.Applier.
func (m *machine) Apply(entries []*raftpb.Entry) error {
	if err := m.point(); err != nil {
		return err
	}
	m.w.note(m, evApply, entries[0].GetIndex(), entries[len(entries)-1].GetIndex(), 0)
	m.w.check.committed(m, entries)
	if err := m.node.Apply(entries); err != nil {
		return err
	}
	return m.point()
}

// InstallSnapshot implements raftnode.Applier.
func (m *machine) InstallSnapshot(ctx context.Context, meta *raftpb.SnapshotMetadata, path string) error {
	if err := m.point(); err != nil {
		return err
	}
	m.w.note(m, evInstall, meta.GetIndex(), meta.GetTerm(), 0)
	m.w.check.installs(m, meta)
	if err := m.node.InstallSnapshot(ctx, meta, path); err != nil {
		return err
	}
	m.stored = meta.GetIndex()
	return m.point()
}

// Image implements raftnode.Applier.
func (m *machine) Image(ctx context.Context) (raftnode.Image, error) { return m.node.Image(ctx) }

// Durable implements raftnode.Applier.
func (m *machine) Durable() uint64 {
	if m.w.mutation == cutAboveDurable {
		return m.raft.Status().Applied
	}
	return m.node.Durable()
}

// memberLog is the log with its crash points, and remembers what was synced.
type memberLog struct {
	m                  *machine
	log                *wal.Log
	term, vote, commit uint64 // as last written
}

// hard is a hard state, and the last index of the log.
type hard struct{ term, vote, commit, last uint64 }

func (l *memberLog) note(s *wal.State) {
	l.term, l.vote, l.commit = s.HardState.GetTerm(), s.HardState.GetVote(), s.HardState.GetCommit()
	l.synced()
}

func (l *memberLog) synced() {
	l.m.w.check.durable(l.m, hard{l.term, l.vote, l.commit, l.log.LastIndex()})
}

// Append implements raftnode.Log.
func (l *memberLog) Append(entries []*raftpb.Entry, hs *raftpb.HardState, sync bool) error {
	m := l.m
	if err := m.point(); err != nil {
		return err
	}
	m.w.note(m, evAppend, l.log.LastIndex(), hs.GetCommit(), boolNumber(sync))
	if hs.GetCommit() != 0 && hs.GetCommit() < l.commit {
		m.w.fail("member %d: the commit index falls from %d to %d", m.id, l.commit, hs.GetCommit())
	}
	really := sync && m.w.mutation != answerBeforeSync && (m.w.mutation != voteBeforeSync || len(entries) > 0)
	if err := l.log.Append(entries, hs, really); err != nil {
		return err
	}
	if !raft.IsEmptyHardState(hs) {
		l.term, l.vote, l.commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
	}
	if really {
		l.synced()
	}
	m.quiet, m.confirmed = m.w.now, false
	return m.point()
}

// MarkSnapshot implements raftnode.Log.
func (l *memberLog) MarkSnapshot(s wal.SnapshotMark) error {
	if err := l.m.point(); err != nil {
		return err
	}
	l.m.w.note(l.m, evMark, s.Index, s.Term, 0)
	if err := l.log.MarkSnapshot(s); err != nil {
		return err
	}
	l.synced()
	l.m.quiet, l.m.confirmed = l.m.w.now, false
	return l.m.point()
}

// Release implements raftnode.Log.
func (l *memberLog) Release(index uint64) error {
	if err := l.m.point(); err != nil {
		return err
	}
	return l.log.Release(index)
}

// Confirm implements raftnode.Log.
func (l *memberLog) Confirm() error { return l.log.Confirm() }

func (m *machine) String() string { return fmt.Sprintf("member %d", m.id) }
