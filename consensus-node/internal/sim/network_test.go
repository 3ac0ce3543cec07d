package sim

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
)

// packet is what is on its way to a member: a message, an image, or the answer to an image.
type packet struct {
	due, order uint64
	from, to   uint64
	msg        *raftpb.Message
	image      any // with msg, the MsgSnap that names it
	sending    *sending
	answer     bool // to sending
	err        error
}

// sending is an image on its way, and the run of the process that sends it.
type sending struct {
	*raftnode.Sending
	from *machine
	run  uint64
}

var errLost = errors.New("lost on the way")

// network carries packets. It knows no acknowledgements: what is lost is lost.
type network struct {
	w     *world
	queue map[uint64][]*packet // by receiver, in the order of their due times
	last  map[[2]uint64]uint64 // by link, the latest due time
	cut   map[[2]uint64]bool   // from, to
	order uint64
}

// wire is a member's end of the network.
type wire struct{ m *machine }

// Send implements raftnode.Transport.
func (l wire) Send(msgs []*raftpb.Message) {
	for _, msg := range msgs {
		l.m.w.net.send(l.m, msg)
	}
}

func (n *network) send(from *machine, msg *raftpb.Message) {
	w, f := n.w, &n.w.faults
	to := msg.GetTo()
	w.note(from, evSend, to, uint64(msg.GetType()), msg.GetIndex())
	w.check.sends(from, msg)
	if w.healed {
		n.put(&packet{from: from.id, to: to, msg: msg}, 1)
		return
	}
	if n.cut[[2]uint64{from.id, to}] || f.Drop > 0 && w.rng.Float64() < f.Drop {
		w.note(from, evLose, to, uint64(msg.GetType()), msg.GetIndex())
		if w.rng.IntN(4) == 0 {
			from.unreachable = append(from.unreachable, to)
		}
		if w.rng.IntN(16) == 0 { // a rule of the network refuses what only this link carries
			from.refused = append(from.refused, to)
		}
		return
	}
	copies := 1
	if f.Duplicate > 0 && w.rng.Float64() < f.Duplicate {
		copies = 2
	}
	for range copies {
		n.put(&packet{from: from.id, to: to, msg: msg}, 1+w.rng.Uint64N(f.DelayMax))
	}
}

// put queues a packet. Packets of one link stay in order unless a fault says otherwise.
func (n *network) put(p *packet, delay uint64) {
	n.order++
	p.due, p.order = n.w.now+delay, n.order
	link := [2]uint64{p.from, p.to}
	if f := n.w.faults.Reorder; n.w.healed || f == 0 || n.w.rng.Float64() >= f {
		p.due = max(p.due, n.last[link])
		n.last[link] = p.due
	}
	q := n.queue[p.to]
	i, _ := slices.BinarySearchFunc(q, p, func(a, b *packet) int {
		if a.due < b.due || a.due == b.due && a.order < b.order {
			return -1
		}
		return 1
	})
	n.queue[p.to] = slices.Insert(q, i, p)
}

// due says whether something has arrived for a member.
func (n *network) due(to uint64) bool {
	q := n.queue[to]
	return len(q) > 0 && q[0].due <= n.w.now
}

func (n *network) take(to uint64) *packet {
	q := n.queue[to]
	p := q[0]
	n.queue[to] = q[1:]
	if p.msg != nil {
		p.msg = copyMessage(p.msg) // only now, as a transport reads it some time after it was sent
	}
	return p
}

// drop is what becomes of packets for a member that is down.
func (n *network) drop(to uint64) {
	for n.due(to) {
		p := n.take(to)
		from := n.w.member(p.from)
		switch {
		case p.answer:
		case p.sending != nil:
			n.answer(p.sending, to, errLost)
		case from.up && n.w.rng.IntN(4) == 0:
			from.unreachable = append(from.unreachable, to)
		case from.up && n.w.rng.IntN(2) == 0:
			from.refused = append(from.refused, to)
		}
	}
}

// answer tells the sender of an image what came of it.
func (n *network) answer(s *sending, from uint64, err error) {
	n.put(&packet{from: from, to: s.from.id, sending: s, answer: true, err: err}, 1+n.w.rng.Uint64N(n.w.faults.DelayMax))
}

// partition cuts the links between a random group and the rest, or those from it alone.
func (n *network) partition(oneWay bool) {
	group := n.w.rng.Uint64()
	for _, a := range n.w.members {
		for _, b := range n.w.members {
			if group>>(a.id%64)&1 == 1 && group>>(b.id%64)&1 == 0 {
				n.cut[[2]uint64{a.id, b.id}] = true
				if !oneWay {
					n.cut[[2]uint64{b.id, a.id}] = true
				}
			}
		}
	}
}

func (n *network) heal() { clear(n.cut) }

// copyMessage makes a message of the receiver's own. Entries are shared: nobody changes them.
func copyMessage(m *raftpb.Message) *raftpb.Message {
	return &raftpb.Message{
		Type: m.Type, To: m.To, From: m.From, Term: m.Term, LogTerm: m.LogTerm, Index: m.Index, Entries: slices.Clone(m.Entries),
		Commit: m.Commit, Vote: m.Vote, Snapshot: m.Snapshot, Reject: m.Reject, RejectHint: m.RejectHint, Context: slices.Clone(m.Context),
	}
}
