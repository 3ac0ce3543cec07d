package raftnode

import (
	"context"
	"errors"

	"go.etcd.io/raft/v3/raftpb"
)

// Stepper drives a Node on one thread in the place of Run: each call does one step of one of the node's goroutines, and nothing
// happens between calls. It is for simulation: the steps are the very functions that the goroutines run, and any order in
// which a caller takes the steps that can be taken is one that goroutines may run in.
//
// All methods are for one goroutine. A step that fails returns a [*FatalError]; no other is taken after it, as after the end of Run. Of
// the Node's own methods only Status, Leadership and ApplyConfChange (from within Apply) may be called beside it.
type Stepper struct {
	n      *Node
	append *appender
	// installing is the append work that waits for its snapshot to become the state.
	installing appendWork
	install    *installWork
	images     []*Sending
	fatal      error // of a step of the loop within another's
}

// NewStepper makes a stepper of a node that does not run, with room for queue pieces of work (at least 4) before the node is Busy,
// and takes its first step.
func NewStepper(n *Node, queue int) (*Stepper, error) {
	if !n.started.CompareAndSwap(false, true) {
		return nil, errors.New("raft: the node runs")
	}
	queue = max(queue, 4)
	n.appendQ, n.applyQ = make(chan appendWork, queue), make(chan applyWork, queue)
	s := &Stepper{n: n, append: startAppender(n)}
	n.stepper = s
	return s, s.input(n.begin)
}

// input is one round of the loop.
func (s *Stepper) input(f func()) error {
	if s.fatal == nil {
		s.fatal = fatal(CauseRaft, s.round(f))
	}
	return s.fatal
}

func (s *Stepper) round(f func()) (err error) {
	defer recoverRaft(&err)
	f()
	s.n.turn()
	return nil
}

// do is the loop's part of another goroutine's step.
func (s *Stepper) do(f func()) error {
	if s.input(f) != nil {
		return ErrStopped // as who waits for a loop that has ended is told
	}
	return nil
}

// ended says why the node ended: a failure of the loop comes first, since others follow from it.
func (s *Stepper) ended(cause Cause, err error) error {
	if s.fatal == nil {
		s.fatal = fatal(cause, err)
	}
	return s.fatal
}

func fatal(cause Cause, err error) error {
	if err == nil {
		return nil
	}
	return &FatalError{Cause: cause, Err: err}
}

// Busy says that a queue is full: then the loop takes no messages and no proposals.
func (s *Stepper) Busy() bool { return s.n.storageBusy() }

// Tick is one tick of the clock.
func (s *Stepper) Tick() error { return s.input(s.n.tick) }

// Deliver takes messages of other members, as Step does. They wait while the node is Busy: do not call it then.
func (s *Stepper) Deliver(msgs ...*raftpb.Message) error {
	return s.input(func() {
		for _, m := range msgs {
			if acceptable(m, s.n.cfg.ID) {
				s.n.stepPeer(m)
			}
		}
	})
}

// ReportUnreachable says that a message to member id was lost.
func (s *Stepper) ReportUnreachable(id uint64) error {
	return s.input(func() { s.n.raw.ReportUnreachable(id) })
}

// ReportGone says that the process of member id is gone.
func (s *Stepper) ReportGone(id uint64) error {
	return s.input(func() { s.n.noteGone(id) })
}

// CanAnswer says whether responses of the storage wait for Answer.
func (s *Stepper) CanAnswer() bool { return len(s.n.local) > 0 }

// Answer has the loop take all responses of the storage that wait.
func (s *Stepper) Answer() error {
	return s.input(func() {
		for s.CanAnswer() {
			s.n.stepLocal(<-s.n.local)
		}
	})
}

// full says that the responses of one more step of the storage might not fit.
func (s *Stepper) full() bool { return len(s.n.local) > cap(s.n.local)/2 }

// CanAppend says whether the append goroutine has something to do.
func (s *Stepper) CanAppend() bool {
	if s.full() {
		return false
	}
	if s.install != nil {
		return s.installed()
	}
	return len(s.n.appendQ) > 0
}

func (s *Stepper) installed() bool {
	select {
	case <-s.install.done:
		return true
	default:
		return false
	}
}

// Append writes all append work that waits as groups, with what follows from it, and stops early at a snapshot, which must become the state
// first, by Apply.
func (s *Stepper) Append() error { return s.ended(CauseLog, s.appendAll()) }

func (s *Stepper) appendAll() error {
	if s.install != nil {
		if !s.installed() {
			return nil
		}
		w := s.installing
		s.installing, s.install = appendWork{}, nil
		if err := s.append.installed(w.msg); err != nil {
			return err
		}
	}
	for len(s.n.appendQ) > 0 {
		w := <-s.n.appendQ
		install, err := s.append.take(w)
		if err != nil {
			return err
		}
		if install != nil {
			s.installing, s.install = w, install
			return nil
		}
	}
	return s.append.write()
}

// Confirm is what the append goroutine does after a quiet moment.
func (s *Stepper) Confirm() error {
	if s.install != nil {
		return nil
	}
	return s.ended(CauseLog, s.n.cfg.Log.Confirm())
}

// CanApply says whether the apply goroutine has something to do.
func (s *Stepper) CanApply() bool { return len(s.n.applyQ) > 0 && !s.full() }

// Apply applies the next piece of work: committed entries or a snapshot.
func (s *Stepper) Apply() error {
	if !s.CanApply() {
		return nil
	}
	return s.ended(CauseApply, s.n.apply(<-s.n.applyQ))
}

// Proposal is one that was handed to the loop.
type Proposal struct {
	p      *proposal
	answer *proposalAnswer
}

// Propose hands data to the loop, as [Node.Propose] does. While the node is Busy the answer may come later.
func (s *Stepper) Propose(data []byte) (*Proposal, error) {
	e, err := normalEntry(data)
	if err != nil {
		return nil, err
	}
	return s.propose(e)
}

// ProposeConfChange hands a membership change to the loop, as [Node.ProposeConfChange] does.
func (s *Stepper) ProposeConfChange(cc raftpb.ConfChangeI) (*Proposal, error) {
	e, err := confChangeEntry(cc)
	if err != nil {
		return nil, err
	}
	return s.propose(e)
}

func (s *Stepper) propose(e *raftpb.Entry) (*Proposal, error) {
	p := newProposal(e)
	return &Proposal{p: p}, s.input(func() { s.n.loop.batch = append(s.n.loop.batch, p) })
}

// Answer returns what Propose would; false while there is no answer.
func (p *Proposal) Answer() (Position, error, bool) { //nolint:revive // the error is an answer, not this call's
	if p.answer == nil {
		select {
		case a := <-p.p.answer:
			p.answer = &a
		default:
			return Position{}, nil, false
		}
	}
	return p.answer.pos, p.answer.err, true
}

// Withdraw leaves before there is an answer, as the end of its context makes a caller of Propose leave. True means that it was surely
// not proposed.
func (p *Proposal) Withdraw() bool { return p.p.claimed.CompareAndSwap(false, true) }

// Read is a reader's place in a round of read indexes.
type Read struct{ r *readRound }

// JoinRead joins the next round, as [Node.ReadIndex] does.
func (s *Stepper) JoinRead() *Read { return &Read{s.n.reads.join()} }

// CanAsk says whether somebody joined a round that the loop has not heard of.
func (s *Stepper) CanAsk() bool { return len(s.n.reads.wake) > 0 }

// Ask has the loop hear of it.
func (s *Stepper) Ask() error {
	return s.input(func() {
		if s.CanAsk() {
			<-s.n.reads.wake
			s.n.startRound()
		}
	})
}

// Index is what ReadIndex returns; false while there is no answer.
func (r *Read) Index() (uint64, bool) {
	select {
	case <-r.r.done:
		return r.r.index, true
	default:
		return 0, false
	}
}

// Leave ends the reader's interest, as the end of its context does.
func (r *Read) Leave() { r.r.readers.Add(-1) }

// TransferLeader begins to hand leadership over, as [Node.TransferLeader] does. The outcome comes on the channel.
func (s *Stepper) TransferLeader(to uint64) (<-chan error, error) {
	t := &transfer{done: make(chan error, 1)}
	return t.done, s.input(func() { s.n.startTransfer(t, to) })
}

// Receive offers an image, as [Node.ReceiveSnapshot] does, whose answer comes on the channel.
func (s *Stepper) Receive(m *raftpb.Message, path string) (<-chan error, error) {
	r, err := s.n.newReceived(m, path)
	if err != nil {
		refused := make(chan error, 1)
		refused <- err
		return refused, s.fatal
	}
	return r.answer, s.input(func() { s.n.stepSnapshot(r) })
}

// Sending is one image on its way to a member: Open, then Done.
type Sending struct {
	s    *Stepper
	raft *raftpb.Message
}

// Sendings returns the images that raft wants sent and that were not asked for before.
func (s *Stepper) Sendings() []*Sending {
	all := s.images
	s.images = nil
	return all
}

// To is the member that the image is for.
func (w *Sending) To() uint64 { return w.raft.GetTo() }

// Open opens the image and returns what it is sent with. The caller closes it.
func (w *Sending) Open() (*raftpb.Message, Image, error) { return w.s.n.openImage(w.s.n.ctx, w.raft) }

// Done tells raft what came of it; nil means that the receiver has installed it.
func (w *Sending) Done(err error) error {
	w.s.n.reportSent(w.To(), err)
	return w.s.fatal
}

// Close ends the node as the end of its process does: nothing more is written, and who waits is told.
func (s *Stepper) Close() {
	s.n.cancel(context.Canceled)
	s.n.refuseBatch(ErrStopped)
	s.n.reads.stop()
	close(s.n.done)
	s.n.status.stop()
}
