package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// votersMax bounds the cluster.
const votersMax = 5

// fault does one of the faults that may come.
func (w *world) fault() {
	f := &w.faults
	choices := [...]struct {
		weight int
		do     func()
	}{
		{f.Partition, func() { w.net.partition(false) }},
		{f.OneWay, func() { w.net.partition(true) }},
		{f.Heal, w.net.heal},
		{f.Pause, w.pause},
		{f.Skew, func() { w.anyMember().tick = tickMoments/2 + w.rng.Uint64N(2*tickMoments) }},
		{f.Kill, func() { w.doom(false) }},
		{f.PowerCut, func() { w.doom(true) }},
		{f.Cut, func() { w.anyMember().fs.CutAfter(w.rng.IntN(40)) }},
		{f.All, w.cutAll},
		{f.Fringe, w.killFollower},
		{f.SyncFail, func() { w.failDisk(faultfs.KindSync, faultfs.KindSyncDir) }},
		{f.WriteFail, func() { w.failDisk(faultfs.KindWrite, faultfs.KindRename, faultfs.KindCreate) }},
		{f.Full, w.fill},
		{f.StoreFail, w.failStore},
		{f.Flip, w.flip},
		{f.Transfer, w.transfer},
		{f.Members, w.changeMembers},
		{f.Stop, w.stop},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	k := w.rng.IntN(total)
	for i, c := range choices {
		if k -= c.weight; k < 0 {
			w.noteOf(0, evFault, uint64(i), 0, 0)
			c.do()
			return
		}
	}
}

func (w *world) anyMember() *machine { return w.members[w.rng.IntN(len(w.members))] }

func (w *world) pause() {
	m := w.anyMember()
	m.pausedUntil = w.now + w.rng.Uint64N(uint64(3*w.faults.ElectionTicks)*tickMoments)
}

// doom ends a process at once or at one of the next crash points.
func (w *world) doom(power bool) {
	m := w.anyMember()
	if !m.up {
		return
	}
	if w.rng.IntN(3) == 0 {
		m.crash(power)
		return
	}
	m.doomed, m.doomPower, m.doomIn = true, power, w.rng.IntN(12)
}

func (w *world) killFollower() {
	if m := w.anyMember(); m.up && m.raft.Status().State != raft.StateLeader {
		m.crash(false)
	}
}

func (w *world) cutAll() {
	for _, m := range w.members {
		m.crash(true)
	}
}

// troubleStart lets some of the starts meet a power cut, or a disk that fails.
func (w *world) troubleStart(m *machine) {
	const callsOfOpen = 12
	switch f := &w.faults; {
	case w.healed:
	case f.Cut > 0 && w.rng.IntN(8) == 0:
		m.fs.CutAfter(w.rng.IntN(callsOfOpen))
	case f.SyncFail > 0 && w.rng.IntN(8) == 0:
		w.failCall(m, faultfs.KindSync, w.rng.IntN(callsOfOpen/2))
	case f.WriteFail > 0 && w.rng.IntN(8) == 0:
		w.failCall(m, faultfs.KindWrite, w.rng.IntN(callsOfOpen/2))
	}
}

// failDisk makes one kind of call fail, after some.
func (w *world) failDisk(kinds ...faultfs.Kind) {
	w.failCall(w.anyMember(), kinds[w.rng.IntN(len(kinds))], w.rng.IntN(20))
}

func (w *world) failCall(m *machine, kind faultfs.Kind, left int) {
	m.faulty = true
	m.fs.SetFault(func(op faultfs.Op) faultfs.Fault {
		if op.Kind != kind {
			return faultfs.Fault{}
		}
		if left--; left >= 0 {
			return faultfs.Fault{}
		}
		return faultfs.Fault{Err: faultfs.ErrFault, Short: w.rng.Int64N(op.Size + 1)}
	})
}

// fill leaves little room on a disk.
func (w *world) fill() {
	m := w.anyMember()
	m.faulty = true
	m.fs.SetCapacity(w.faults.SegmentBytes * int64(1+w.rng.IntN(4)))
}

func (w *world) failStore() {
	m := w.anyMember()
	m.crash(false) // a commit that fails ends the process, and its batches are gone
}

// flip turns a bit over in a log at rest, all of which was confirmed. The log must say that it is damaged, or hold what it held. Then the bit is
// turned back, as if the operator had put the file back.
func (w *world) flip() {
	m := w.anyMember()
	if !m.up || !m.confirmed || m.faulty {
		return
	}
	held := fmt.Sprint(m.log.log.LastIndex(), m.log.term, m.log.vote)
	m.crash(false)
	all, err := m.fs.List(logDir)
	if err != nil {
		w.fail("%v: %v", m, err)
	}
	var names []string
	for _, name := range all {
		if strings.HasSuffix(name, ".log") {
			names = append(names, filepath.Join(logDir, name))
		}
	}
	name := names[w.rng.IntN(len(names))]
	content := m.fs.Content(name)
	used := int64(len(bytes.TrimRight(content, "\x00")))
	off, bit := w.rng.Int64N(min(used+16, int64(len(content)))), uint(w.rng.IntN(8))
	if err := m.fs.Flip(name, off, bit); err != nil {
		w.fail("%v: %v", m, err)
	}
	w.noteOf(m.id, evFlip, uint64(off), 0, 0)
	holds, err := m.readLog(wal.Options{SegmentBytes: w.faults.SegmentBytes, Salt: w.rng.Uint64})
	if _, damaged := errors.AsType[*wal.DamageError](err); err != nil && !damaged || err == nil && holds != held {
		w.fail("%v: a flipped bit at %s:%d gives (%v) %s instead of %s", m, name, off, err, holds, held)
	}
	if now := m.fs.Content(name); int64(len(now)) > off && now[off] == content[off]^1<<bit {
		if err := m.fs.Flip(name, off, bit); err != nil {
			w.fail("%v: %v", m, err)
		}
	}
}

// readLog says what the log at rest holds: last index, term and vote.
func (m *machine) readLog(options wal.Options) (string, error) {
	log, s, err := wal.Open(m.fs, logDir, options)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(log.LastIndex(), s.HardState.GetTerm(), s.HardState.GetVote()), log.Close()
}

func (w *world) leader() *machine {
	var leader *machine
	for _, m := range w.members {
		if m.up && m.raft.Status().State == raft.StateLeader && (leader == nil || m.raft.Status().Term > leader.raft.Status().Term) {
			leader = m
		}
	}
	return leader
}

func (w *world) transfer() {
	if m := w.leader(); m != nil {
		if _, err := m.stepper.TransferLeader(w.anyMember().id); err != nil {
			m.ended(err)
		}
	}
}

func (w *world) stop() {
	if m := w.anyMember(); m.up {
		m.stop()
	}
}

// changeMembers proposes a membership change where the leader is thought to be.
func (w *world) changeMembers() {
	m := w.leader()
	if m == nil {
		return
	}
	members := w.check.oracle.View().Members.Members()
	voters, learner := 0, uint64(0)
	for _, mb := range members {
		if mb.Learner {
			learner = mb.ID
		} else {
			voters++
		}
	}
	var kind member.Kind
	mc := &journalv1.MemberContext{}
	switch {
	case learner != 0 && w.rng.IntN(4) > 0:
		kind, mc.MemberId = member.Promote, learner
	case voters > 1 && (voters >= votersMax || w.rng.IntN(2) == 0):
		kind, mc.MemberId = member.Remove, members[w.rng.IntN(len(members))].ID
	default:
		kind, mc.MemberId, mc.Learner = member.Add, w.nextID+1, w.rng.IntN(3) > 0
		mc.PeerUrls = []string{fmt.Sprint("http://m", mc.MemberId)}
	}
	if kind == member.Remove && mc.MemberId == m.id {
		return // raft's own limit, see doc.go
	}
	w.noteOf(m.id, evMember, uint64(kind), mc.MemberId, 0)
	build := func(id uint64) (raftpb.ConfChangeI, error) {
		mc.Id = id
		return member.ConfChange(kind, mc)
	}
	m.packer.StartChange(context.Background(), build, func(o propose.Outcome) { w.check.changed(mc, o) })
}
