package sim

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
)

// confirmAfter is how long a log is quiet before it is confirmed.
const confirmAfter = tickMoments / 2

// memberSteps are the steps that a process can take, each of which says whether there was anything to do.
var memberSteps = [...]func(m *machine) (bool, error){
	(*machine).stepDeliver, (*machine).stepTick, (*machine).stepAnswer, (*machine).stepAppend, (*machine).stepApply, (*machine).stepAsk,
	(*machine).stepPack, (*machine).stepNode, (*machine).stepCommit, (*machine).stepImages, (*machine).stepReceipts, (*machine).stepLost, (*machine).stepRefused,
	(*machine).stepConfirm, (*machine).stepPrepare,
}

// step takes one step of the process, or starts it.
func (m *machine) step() bool {
	w := m.w
	if !m.up {
		w.net.drop(m.id)
		if m.gone || w.now < m.restartAt {
			return false
		}
		m.start()
		return true
	}
	if w.now < m.pausedUntil {
		return false
	}
	first := w.rng.IntN(len(memberSteps))
	for i := range memberSteps {
		did, err := memberSteps[(first+i)%len(memberSteps)](m)
		if err != nil {
			m.ended(err)
			return true
		}
		if did {
			m.outgoing = append(m.outgoing, m.stepper.Sendings()...)
			w.check.leads(m)
			return true
		}
	}
	return false
}

// next is when the member can do something again, if nobody else does anything.
func (m *machine) next() uint64 {
	w := m.w
	next := uint64(math.MaxUint64)
	if q := w.net.queue[m.id]; len(q) > 0 {
		next = q[0].due
	}
	switch {
	case m.gone && !m.up:
		return next
	case !m.up:
		return min(next, m.restartAt)
	case w.now < m.pausedUntil:
		return m.pausedUntil
	}
	next = min(next, m.nextTick)
	if m.db.pending() > 0 {
		next = min(next, m.nextCommit)
	}
	if !m.confirmed {
		next = min(next, m.quiet+confirmAfter)
	}
	return next
}

func (m *machine) stepDeliver() (bool, error) {
	if !m.w.net.due(m.id) {
		return false, nil
	}
	if m.stepper.Busy() {
		return false, nil
	}
	p := m.w.net.take(m.id)
	switch {
	case p.answer:
		return true, m.answered(p)
	case p.sending != nil:
		return true, m.receive(p)
	}
	m.w.note(m, evDeliver, p.from, uint64(p.msg.GetType()), p.msg.GetIndex())
	m.packable = true
	return true, m.stepper.Deliver(p.msg)
}

func (m *machine) stepTick() (bool, error) {
	if m.w.now < m.nextTick {
		return false, nil
	}
	m.nextTick = m.w.now + m.tick
	m.w.note(m, evTick, 0, 0, 0)
	m.packer.Sweep()
	m.packable = true
	return true, m.stepper.Tick()
}

func (m *machine) stepAnswer() (bool, error) {
	if !m.stepper.CanAnswer() {
		return false, nil
	}
	m.w.note(m, evAnswer, 0, 0, 0)
	return true, m.stepper.Answer()
}

func (m *machine) stepAppend() (bool, error) {
	if !m.stepper.CanAppend() {
		return false, nil
	}
	return true, m.stepper.Append()
}

func (m *machine) stepApply() (bool, error) {
	if !m.stepper.CanApply() {
		return false, nil
	}
	m.packable, m.work = true, true
	if m.db.pending() == 0 {
		m.nextCommit = m.w.now + m.w.rng.Uint64N(4*tickMoments)
	}
	return true, m.stepper.Apply()
}

func (m *machine) stepAsk() (bool, error) {
	if !m.stepper.CanAsk() {
		return false, nil
	}
	m.w.note(m, evAsk, 0, 0, 0)
	return true, m.stepper.Ask()
}

func (m *machine) stepPack() (bool, error) {
	if !m.packable {
		return false, nil
	}
	m.packable = m.packer.Step(context.Background())
	return m.packable, nil
}

func (m *machine) stepNode() (bool, error) {
	if !m.work {
		return false, nil
	}
	did, err := m.node.Step()
	m.work = did
	if did {
		m.w.note(m, evCompact, 0, 0, 0)
	}
	return did, err
}

func (m *machine) stepCommit() (bool, error) {
	n := m.db.pending()
	if n == 0 || m.w.now < m.nextCommit {
		return false, nil
	}
	if err := m.point(); err != nil {
		return true, err
	}
	m.nextCommit = m.w.now + m.w.rng.Uint64N(4*tickMoments)
	if err := m.db.commit(1 + m.w.rng.IntN(n)); err != nil {
		return true, err
	}
	m.work = true
	m.w.note(m, evCommit, m.db.Durable(), 0, 0)
	return true, m.point()
}

// stepImages opens an image that raft wants sent, and sends it.
func (m *machine) stepImages() (bool, error) {
	if len(m.outgoing) == 0 {
		return false, nil
	}
	s := &sending{m.outgoing[0], m, m.run}
	m.outgoing = m.outgoing[1:]
	msg, img, err := s.Open()
	if err != nil {
		return true, errors.Join(err, s.Done(err))
	}
	m.work = true
	payload, err := m.db.payload(img)
	if err := errors.Join(err, img.Close()); err != nil {
		return true, err
	}
	m.w.note(m, evImage, s.To(), msg.GetSnapshot().GetMetadata().GetIndex(), 0)
	f := &m.w.faults
	if !m.w.healed && (m.w.net.cut[[2]uint64{m.id, s.To()}] || m.w.rng.Float64() < f.Drop) {
		return true, s.Done(errLost)
	}
	m.w.net.put(&packet{from: m.id, to: s.To(), msg: msg, image: payload, sending: s}, 1+m.w.rng.Uint64N(1+f.DelayMax))
	return true, nil
}

// receive takes an image in as the transport does: whole and durable under its name, then offered to raft.
func (m *machine) receive(p *packet) error {
	index := p.msg.GetSnapshot().GetMetadata().GetIndex()
	m.w.note(m, evReceive, p.from, index, 0)
	if len(m.receipts) > 0 { // as the transport: one at a time
		m.w.net.answer(p.sending, m.id, errLost)
		return nil
	}
	path, err := m.db.receive(index, p.image)
	if err != nil {
		return err
	}
	if err := m.point(); err != nil {
		m.w.net.answer(p.sending, m.id, errLost)
		return err
	}
	answer, err := m.stepper.Receive(p.msg, path)
	m.receipts = append(m.receipts, &receipt{answer, path, p.sending})
	return err
}

func (m *machine) stepReceipts() (bool, error) {
	for i, r := range m.receipts {
		select {
		case err := <-r.answer:
			m.receipts = slices.Delete(m.receipts, i, i+1)
			if errors.Is(err, raftnode.ErrSnapshotRefused) {
				m.db.discard(r.path)
			}
			m.w.net.answer(r.sending, m.id, err)
			return true, nil
		default:
		}
	}
	return false, nil
}

// answered tells raft what came of an image, if the process that sent it still runs.
func (m *machine) answered(p *packet) error {
	if p.sending.run != m.run {
		return nil
	}
	return p.sending.Done(p.err)
}

func (m *machine) stepLost() (bool, error) {
	if len(m.unreachable) == 0 {
		return false, nil
	}
	to := m.unreachable[0]
	m.unreachable = m.unreachable[1:]
	return true, m.stepper.ReportUnreachable(to)
}

func (m *machine) stepRefused() (bool, error) {
	if len(m.refused) == 0 {
		return false, nil
	}
	to := m.refused[0]
	m.refused = m.refused[1:]
	return true, m.stepper.ReportGone(to)
}

func (m *machine) stepConfirm() (bool, error) {
	if m.confirmed || m.w.now < m.quiet+confirmAfter {
		return false, nil
	}
	m.confirmed = true
	return true, m.stepper.Confirm()
}

// stepPrepare makes the file of the log's next segment ahead.
func (m *machine) stepPrepare() (bool, error) {
	select {
	case <-m.log.log.Wanted():
		m.w.note(m, evPrepare, 0, 0, 0)
		return true, m.log.log.Prepare()
	default:
		return false, nil
	}
}
