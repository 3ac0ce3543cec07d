package hub_test

import (
	"fmt"
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
)

// proxyModel is the other side of the contract: it keeps the covered position of each registration and takes in responses by
// the rule that the contract gives to proxies.
type proxyModel struct {
	queue  *egress.Queue
	live   int64
	heard  bool
	regs   map[uint64]*watchModel
	broken []string
}

// watchModel is one client watch, over all its registrations.
type watchModel struct {
	reg     *watchv1.Registration
	covered int64
	joined  bool
	got     []string
	// ended: compacted; reason: given up otherwise, to be registered anew.
	compacted int64
	reason    string
}

func newProxyModel(limits egress.Limits) *proxyModel {
	return &proxyModel{queue: egress.New(limits), regs: map[uint64]*watchModel{}}
}

func (p *proxyModel) register(w *watchModel) {
	w.covered, w.joined, w.reason = w.reg.GetNextRevision()-1, false, ""
	p.regs[w.reg.GetId()] = w
}

func (p *proxyModel) position(w *watchModel) int64 {
	if w.joined {
		return max(w.covered, p.live)
	}
	return w.covered
}

// take takes one response; false if there is none.
func (p *proxyModel) take() (took, relieved bool) {
	r, relieved := p.queue.Take()
	if r == nil {
		return false, relieved
	}
	if len(r.GetDeliveries())+len(r.GetJoined())+len(r.GetEnded()) == 0 && r.GetLiveFrom() == r.GetLiveTo() && !r.GetLeaving() {
		p.broken = append(p.broken, "an empty response took credit")
	}
	for _, d := range r.GetDeliveries() {
		for _, id := range d.GetRegistrations() {
			if w := p.regs[id]; w != nil {
				p.deliver(w, d)
			}
		}
	}
	for _, e := range r.GetEnded() {
		if w := p.regs[e.GetId()]; w != nil {
			w.covered = p.position(w)
			w.compacted, w.reason, w.joined = e.GetCompactRevision(), e.GetReason(), false
			delete(p.regs, e.GetId())
		}
	}
	if p.heard && r.GetLiveFrom() > p.live {
		for id, w := range p.regs {
			if w.joined {
				p.broken = append(p.broken, fmt.Sprintf("a hole before the live interval (%d, %d] for %d", r.GetLiveFrom(), r.GetLiveTo(), id))
			}
		}
	}
	p.heard = true
	p.live = max(p.live, r.GetLiveTo())
	for _, id := range r.GetJoined() {
		if w := p.regs[id]; w != nil {
			w.covered, w.joined = max(w.covered, r.GetLiveTo()), true
		}
	}
	return true, relieved
}

func (p *proxyModel) deliver(w *watchModel, d *watchv1.Delivery) {
	position := p.position(w)
	switch {
	case d.GetFrom() > position:
		p.broken = append(p.broken, fmt.Sprintf("registration %d at %d got (%d, %d]", w.reg.GetId(), position, d.GetFrom(), d.GetTo()))
		return
	case d.GetTo() <= position:
		return
	}
	before := int64(0)
	for _, r := range d.GetRevisions() {
		if r.GetRevision() <= before || r.GetRevision() > d.GetTo() {
			p.broken = append(p.broken, fmt.Sprintf("revision %d after %d in (%d, %d]", r.GetRevision(), before, d.GetFrom(), d.GetTo()))
		}
		before = r.GetRevision()
		if r.GetRevision() > position {
			w.got = append(w.got, words(r, w.reg.GetPreviousKv())...)
		}
	}
	w.covered = d.GetTo()
}

// words shows the events of a revision; the value of a key at revision r is "vr" in these tests.
func words(r *feedv1.Revision, previous bool) []string {
	var out []string
	for _, e := range r.GetEvents() {
		word := fmt.Sprintf("%d:%s=%s", r.GetRevision(), e.GetKey(), e.GetKv())
		if e.GetDeleted() {
			word = fmt.Sprintf("%d:%s-", r.GetRevision(), e.GetKey())
		}
		if previous && e.GetPreviousModRevision() > 0 {
			word += fmt.Sprintf("(%s)", e.GetPreviousKv())
		}
		out = append(out, word)
	}
	return out
}

// tier is the history of a naive consensus tier.
type tier struct {
	revisions []*feedv1.Revision // of revision i+1
	last      map[string]int64   // mod revision of the keys that exist
	compact   int64
}

func newTier() *tier { return &tier{last: map[string]int64{}} }

func (t *tier) head() int64 { return int64(len(t.revisions)) }

// write adds a revision; a key that begins with "-" is deleted.
func (t *tier) write(keys ...string) {
	r := &feedv1.Revision{Revision: t.head() + 1}
	for _, key := range keys {
		e := &feedv1.Event{Key: []byte(key), Kv: fmt.Appendf(nil, "v%d", r.GetRevision())}
		if key[0] == '-' {
			e.Key, e.Deleted = []byte(key[1:]), true
		}
		e.PreviousModRevision = t.last[string(e.GetKey())]
		if e.GetDeleted() {
			delete(t.last, string(e.GetKey()))
		} else {
			t.last[string(e.GetKey())] = r.GetRevision()
		}
		r.Events = append(r.Events, e)
	}
	t.revisions = append(t.revisions, r)
}

// between gives the revisions of (from, to].
func (t *tier) between(from, to int64) []*feedv1.Revision { return t.revisions[from:to] }

// expect is what a watch from a revision on must have got once it has covered upTo.
func (t *tier) expect(reg *watchv1.Registration, start, upTo int64) []string {
	spec := match.SpecOf(reg)
	var want []string
	for _, r := range t.between(min(start-1, t.head()), min(upTo, t.head())) {
		one := &feedv1.Revision{Revision: r.GetRevision()}
		for _, e := range r.GetEvents() {
			if !spec.Contains(string(e.GetKey())) || !spec.Wants(e) {
				continue
			}
			filled := &feedv1.Event{Key: e.GetKey(), Kv: e.GetKv(), Deleted: e.GetDeleted(), PreviousModRevision: e.GetPreviousModRevision()}
			if e.GetPreviousModRevision() > 0 {
				filled.PreviousKv = fmt.Appendf(nil, "v%d", e.GetPreviousModRevision())
			}
			one.Events = append(one.Events, filled)
		}
		want = append(want, words(one, spec.PreviousKV)...)
	}
	return want
}

// message makes a feed message of (from, to].
func (t *tier) message(publisher, run uint64, from, to int64) *feedv1.Message {
	return &feedv1.Message{
		Version: 1, ClusterId: clusterID, Publisher: publisher, PublisherRun: run, HasLeader: true,
		HeadRevision: t.head(), CompactRevision: t.compact,
		PreviousRevision: from, LastRevision: to, Revisions: slices.Clone(t.between(from, to)),
	}
}

const clusterID = 0xc1
