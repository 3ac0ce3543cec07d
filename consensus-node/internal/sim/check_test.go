package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// checker knows what must hold. It keeps the log as the first member to apply each entry saw it, and what it leads to, and holds
// everyone against that.
type checker struct {
	w       *world
	log     []*raftpb.Entry
	batches []uint64 // batchSum of each entry, 0 before it is known
	oracle  *apply.Machine
	db      *memory
	members map[uint64]bool // as of the last entry

	outcomes  map[uint64]apply.Outcome // of each command in the log
	at        map[uint64]uint64        // command to index
	calls     map[uint64]uint64        // client's call to the one command that carried it out
	refusals  map[uint64]bool          // commands that were said not to be proposed
	leaders   map[uint64]uint64        // by term
	hard      map[uint64]hard          // by member, the last known to be durable
	hashes    map[[2]int64]uint32      // HashKV by revision and compact revision
	questions map[string]uint64        // ids of reads, by the run of their member
	known     uint64                   // somebody was told of what this index holds
	healedAt  uint64
	// changedAt is the index of the last membership change.
	changedAt uint64
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, oracle: apply.New(), db: newMemory(func() {}), members: map[uint64]bool{},
		outcomes: map[uint64]apply.Outcome{}, at: map[uint64]uint64{}, calls: map[uint64]uint64{}, refusals: map[uint64]bool{},
		leaders: map[uint64]uint64{}, hard: map[uint64]hard{}, hashes: map[[2]int64]uint32{}, questions: map[string]uint64{},
	}
}

func (c *checker) last() uint64 { return uint64(len(c.log)) }

// committed is told what a member is about to apply.
func (c *checker) committed(m *machine, entries []*raftpb.Entry) {
	for _, e := range entries {
		index := e.GetIndex()
		switch {
		case index > c.last()+1:
			c.w.fail("%v applies entry %d, and nobody has applied %d", m, index, c.last()+1)
		case index == c.last()+1:
			c.extend(m, e)
		default:
			first := c.log[index-1]
			if first.GetTerm() != e.GetTerm() || first.GetType() != e.GetType() || !bytes.Equal(first.GetData(), e.GetData()) {
				c.w.fail("%v applies another entry %d (term %d) than was applied before (term %d)", m, index, e.GetTerm(), first.GetTerm())
			}
		}
	}
}

// extend takes a newly committed entry in.
func (c *checker) extend(m *machine, e *raftpb.Entry) {
	c.log, c.batches = append(c.log, e), append(c.batches, 0)
	if e.GetType() != raftpb.EntryNormal {
		c.extendConf(e)
		return
	}
	var entry *journalv1.Entry
	if len(e.GetData()) > 0 {
		entry = &journalv1.Entry{}
		if err := entry.UnmarshalVT(e.GetData()); err != nil {
			c.w.fail("%v applies an entry %d that cannot be read: %v", m, e.GetIndex(), err)
		}
	}
	for _, command := range entry.GetCommands() {
		c.command(e.GetIndex(), command)
	}
	values, _ := c.db.Reader() // never fails
	result, err := c.oracle.Apply(e.GetIndex(), e.GetTerm(), entry, values)
	if err != nil {
		c.w.fail("entry %d cannot be applied: %v", e.GetIndex(), err)
	}
	c.store(result.Batch)
	for _, outcome := range result.Outcomes {
		c.outcomes[outcome.ID] = outcome
	}
}

// command checks that what is committed was not refused, and is committed once.
func (c *checker) command(index uint64, command *journalv1.Command) {
	id, call := command.GetId(), binary.BigEndian.Uint64(command.GetSpanContext())
	if c.refusals[id] {
		c.w.fail("entry %d holds command %x, of which was said that it is not proposed", index, id)
	}
	if before, twice := c.calls[call]; twice {
		c.w.fail("entry %d holds call %d again, which entry %d held before", index, call, c.at[before])
	}
	c.calls[call], c.at[id] = id, index
}

func (c *checker) store(b apply.Batch) {
	batch := store.Batch{Index: b.Index, Term: b.Term, Writes: b.Writes, Encoded: b.Encoded}
	for _, r := range b.Rows {
		batch.Rows = append(batch.Rows, store.Row{Bucket: r.Bucket, Key: r.Key, Value: r.Value, Delete: r.Delete})
	}
	err := c.db.Apply(batch)
	if err == nil {
		err = c.db.commit(-1)
	}
	if err != nil {
		c.w.fail("entry %d: %v", b.Index, err)
	}
}

func (c *checker) extendConf(e *raftpb.Entry) {
	var cc raftpb.ConfChangeV2
	if e.GetType() == raftpb.EntryConfChange {
		var v1 raftpb.ConfChange
		if err := proto.Unmarshal(e.GetData(), &v1); err != nil {
			c.w.fail("entry %d: %v", e.GetIndex(), err)
		}
		cc.Changes, cc.Context = v1.AsV2().GetChanges(), v1.AsV2().GetContext()
	} else if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
		c.w.fail("entry %d: %v", e.GetIndex(), err)
	}
	result, err := c.oracle.ApplyConf(e.GetIndex(), e.GetTerm(), &cc)
	if err != nil {
		c.w.fail("entry %d: %v", e.GetIndex(), err)
	}
	c.store(result.Batch)
	if id := result.Outcome.ID; id != 0 {
		if c.refusals[id] {
			c.w.fail("entry %d is change %x, of which was said that it is not proposed", e.GetIndex(), id)
		}
		c.at[id] = e.GetIndex()
	}
	clear(c.members)
	c.changedAt = e.GetIndex()
	for _, mb := range c.oracle.View().Members.Members() {
		c.members[mb.ID] = true
		if mb.ID > c.w.nextID {
			c.w.arrivals++
		}
	}
}

// stored is told what a member stores for an entry, and returns its hash.
func (c *checker) stored(m *machine, b *store.Batch) uint64 {
	if b.Index <= uint64(c.w.faults.Voters) {
		// Who began the cluster has all first members from the start, who joins learns of them one by one.
		known := *b
		known.ConfState, b = nil, &known
	}
	i, h := b.Index-1, batchSum(b)
	switch {
	case b.Index > c.last():
		c.w.fail("%v stores entry %d, which is not applied", m, b.Index)
	case c.batches[i] == 0:
		c.batches[i] = h
	case c.batches[i] != h:
		c.w.fail("%v makes other changes of entry %d than who applied it before", m, b.Index)
	}
	return h
}

// installs is told that a member puts an image in the place of its state.
func (c *checker) installs(m *machine, meta *raftpb.SnapshotMetadata) {
	index := meta.GetIndex()
	if index > c.last() || c.log[index-1].GetTerm() != meta.GetTerm() {
		c.w.fail("%v installs an image of entry %d, term %d, which was not applied", m, index, meta.GetTerm())
	}
}

// opened is told what a log and a database hold at the start of a process.
func (c *checker) opened(m *machine, s *wal.State, applied uint64) {
	got := hard{s.HardState.GetTerm(), s.HardState.GetVote(), s.HardState.GetCommit(), 0}
	was := c.hard[m.id]
	switch {
	case got.term < was.term:
		c.w.fail("%v has forgotten term %d for %d", m, was.term, got.term)
	case got.term == was.term && was.vote != 0 && got.vote != was.vote && s.Snapshot.Term < got.term:
		c.w.fail("%v has forgotten its vote for %d in term %d, and knows one for %d", m, was.vote, was.term, got.vote)
	case max(got.commit, applied) < was.commit:
		c.w.fail("%v has forgotten that %d was committed: log %d, database %d", m, was.commit, got.commit, applied)
	}
	for _, e := range s.Entries {
		if e.GetIndex() <= max(got.commit, applied) && e.GetIndex() <= c.last() && c.log[e.GetIndex()-1].GetTerm() != e.GetTerm() {
			c.w.fail("%v holds entry %d of term %d as committed, which is of term %d", m, e.GetIndex(), e.GetTerm(), c.log[e.GetIndex()-1].GetTerm())
		}
	}
}

// durable is told that a member's hard state was synced.
func (c *checker) durable(m *machine, h hard) { c.hard[m.id] = h }

// sends checks what a member promises others: a vote or an acknowledgement leaves only once it is durable.
func (c *checker) sends(m *machine, msg *raftpb.Message) {
	if msg.GetReject() {
		return
	}
	c.asks(m, msg)
	switch h := c.hard[m.id]; msg.GetType() { //nolint:exhaustive // the others promise nothing
	case raftpb.MsgVoteResp:
		// With a later term durable it can vote no more in this one.
		if h.term < msg.GetTerm() || h.term == msg.GetTerm() && h.vote != msg.GetTo() {
			c.w.fail("%v votes for %d in term %d, and durable is its vote for %d in term %d", m, msg.GetTo(), msg.GetTerm(), h.vote, h.term)
		}
	case raftpb.MsgAppResp:
		if h.term < msg.GetTerm() || h.last < msg.GetIndex() {
			c.w.fail("%v acknowledges entry %d in term %d, and durable is entry %d in term %d", m, msg.GetIndex(), msg.GetTerm(), h.last, h.term)
		}
	}
}

// asks checks that no question of an earlier run is asked under the same id again: an answer to the old one would pass for one to the new.
func (c *checker) asks(m *machine, msg *raftpb.Message) {
	id := msg.GetContext() // of a heartbeat
	if msg.GetType() == raftpb.MsgReadIndex {
		id = msg.GetEntries()[0].GetData()
	}
	const size = 24
	if len(id) != size || binary.LittleEndian.Uint64(id) != m.id {
		return // none, or another member's, which the leader passes on
	}
	if run, used := c.questions[string(id)]; used && run != m.run {
		c.w.fail("%v asks for a read index under the id %x, which its run before used", m, id)
	}
	c.questions[string(id)] = m.run
}

// leads checks that there is one leader a term.
func (c *checker) leads(m *machine) {
	status := m.raft.Status()
	if status.State != raft.StateLeader {
		return
	}
	switch other := c.leaders[status.Term]; other {
	case m.id:
	case 0:
		c.leaders[status.Term] = m.id
		c.w.note(m, evLead, status.Term, 0, 0)
	default:
		c.w.fail("%v and member %d both lead in term %d", m, other, status.Term)
	}
}

// refused is told that a write was surely not made and never will be.
func (c *checker) refused(op *operation) {
	id := op.command.GetId()
	if id == 0 {
		return // it never left the queue
	}
	if index := c.at[id]; index != 0 {
		c.w.fail("call %d is said not to be proposed, and is entry %d", op.number, index)
	}
	c.refusals[id] = true
}

// changed is told what came of a membership change.
func (c *checker) changed(mc *journalv1.MemberContext, o propose.Outcome) {
	index := c.at[mc.GetId()]
	switch {
	case o.NotProposed && index != 0:
		c.w.fail("change %x is said not to be proposed, and is entry %d", mc.GetId(), index)
	case o.NotProposed:
		c.refusals[mc.GetId()] = mc.GetId() != 0
	case unknown(o.Err):
	case index == 0:
		c.w.fail("change %x is acknowledged (%v), and was not committed", mc.GetId(), o.Err)
	}
}

// acknowledged is told what apply said of a write, and returns its index.
func (c *checker) acknowledged(op *operation, told apply.Outcome) uint64 {
	id := op.command.GetId()
	index := c.at[id]
	want := c.outcomes[id]
	switch {
	case index == 0:
		c.w.fail("call %d is acknowledged, and was not committed", op.number)
	case index <= op.least:
		c.w.fail("call %d is entry %d, but began after %d was acknowledged", op.number, index, op.least)
	case told.Revision != want.Revision, fmt.Sprint(told.Err) != fmt.Sprint(want.Err),
		told.Response != nil && !proto.Equal(told.Response, want.Response):
		c.w.fail("call %d is answered with %+v instead of %+v", op.number, told, want)
	}
	c.known = max(c.known, index)
	return index
}

// tells is called at the moment when a node hands an outcome out: by then its readers must see the write.
func (c *checker) tells(op *operation, o propose.Outcome) {
	if o.NotProposed || unknown(o.Err) || op.on.node == nil {
		return
	}
	view, err := op.on.node.Current()
	if err != nil {
		c.w.fail("call %d has an outcome and its node no view: %v", op.number, err)
	}
	defer view.Release()
	if view.Index < c.at[op.command.GetId()] {
		c.w.fail("call %d is answered before a view of entry %d is published", op.number, c.at[op.command.GetId()])
	}
}

// read checks what a reader sees.
func (c *checker) read(op *operation, view *node.View) {
	if !op.local && view.Index < op.least {
		c.w.fail("read %d sees entry %d, but began after %d was acknowledged", op.number, view.Index, op.least)
	}
	if view.Index > c.last() {
		c.w.fail("read %d sees entry %d, which nobody applied", op.number, view.Index)
	}
	request := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}
	got, err := view.KV.Range(request, view.Values)
	if err != nil {
		c.w.fail("read %d: %v", op.number, err)
	}
	revision := view.KV.Revision()
	if revision >= c.oracle.View().KV.CompactRevision() {
		request.Revision = revision
		values, _ := c.db.Reader()
		want, err := c.oracle.View().KV.Range(request, values)
		if err != nil {
			c.w.fail("read %d at revision %d: %v", op.number, revision, err)
		}
		want.Header, got.Header = nil, nil
		if !proto.Equal(got, want) {
			c.w.fail("read %d at revision %d gives %v instead of %v", op.number, revision, got, want)
		}
	}
	c.hash(op.on, view)
	if !op.local {
		c.known = max(c.known, view.Index)
	}
}

// hash compares the hashes of nodes at equal revisions.
func (c *checker) hash(m *machine, view *node.View) {
	var damage error
	h, err := view.KV.Hash(0, view.Values.Stored(&damage))
	if err = errors.Join(err, damage); err != nil {
		c.w.fail("%v cannot be hashed: %v", m, err)
	}
	at := [2]int64{h.Revision, h.CompactRevision}
	if other, known := c.hashes[at]; known && other != h.Hash {
		c.w.fail("%v has hash %x at revision %d, compacted at %d, and another had %x", m, h.Hash, h.Revision, h.CompactRevision, other)
	}
	c.hashes[at] = h.Hash
}

// agree checks, at the end, that all members hold the same.
func (c *checker) agree() {
	first := uint64(0)
	for i, m := range c.w.members {
		if m.gone {
			continue
		}
		for m.work = true; m.work; {
			if _, err := m.stepNode(); err != nil {
				c.w.fail("%v: %v", m, err)
			}
		}
		if err := m.db.commit(-1); err != nil {
			c.w.fail("%v: %v", m, err)
		}
		view, err := m.node.Current()
		if err != nil {
			c.w.fail("%v: %v", m, err)
		}
		c.hash(m, view)
		if view.Index != c.last() || view.KV.Revision() != c.oracle.View().KV.Revision() {
			c.w.fail("%v ends at entry %d, revision %d instead of %d, %d", m, view.Index, view.KV.Revision(), c.last(), c.oracle.View().KV.Revision())
		}
		view.Release()
		h, err := contentSum(m.db)
		switch {
		case err != nil:
			c.w.fail("%v: %v", m, err)
		case first == 0:
			first = h
		case first != h:
			c.w.fail("%v (of %d) holds other rows than the others at entry %d", m, i+1, c.last())
		}
	}
}
