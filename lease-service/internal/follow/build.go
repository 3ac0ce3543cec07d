package follow

import (
	"slices"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Table is the lease table as of one sequence.
type Table struct {
	Sequence uint64
	View     *feedv1.View
	Leases   []*consensusv1.LeaseEntry
}

// Build is a table being read in pages.
type Build struct {
	pages []page
	view  *feedv1.View
	// leases is empty for a table of one page.
	leases []*consensusv1.LeaseEntry
	more   bool
}

// page covers the ids up to last, in the order of their bits, as of a sequence.
type page struct {
	last     uint64
	sequence uint64
}

// Begin starts a read of the table. A read that was under way is forgotten.
func (f *Follower) Begin() *Build {
	f.build = &Build{more: true}
	return f.build
}

// Abandon ends a read that failed.
func (f *Follower) Abandon() {
	f.build = nil
	f.forget()
}

// After is the id after which the next page begins.
func (b *Build) After() int64 {
	if len(b.pages) == 0 {
		return 0
	}
	return int64(b.pages[len(b.pages)-1].last)
}

// Add takes in the next page.
func (b *Build) Add(response *consensusv1.LeaseTableResponse) {
	if len(b.pages) == 0 {
		b.view = response.GetView()
	}
	next := page{last: ^uint64(0), sequence: response.GetSequence()}
	if n := len(response.GetLeases()); response.GetMore() && n > 0 {
		next.last = uint64(response.GetLeases()[n-1].GetId())
	}
	b.pages = append(b.pages, next)
	b.leases = append(b.leases, response.GetLeases()...)
	b.more = response.GetMore() && len(response.GetLeases()) > 0
}

// Done tells whether all pages are there.
func (b *Build) Done() bool { return !b.more }

// Finish makes the table of a read that is done, moves the position to it and appends to out the changes that follow it. ok is
// false if the changes between the pages are not all at hand: then the table must be read again. A table that is not beyond
// the position is nil: nothing is missing any more.
func (f *Follower) Finish(out []*feedv1.LeaseChange) (table *Table, changes []*feedv1.LeaseChange, ok bool) {
	build := f.build
	f.build = nil
	if build != nil && build.Done() {
		table, ok = f.compose(build)
	}
	if ok {
		f.Told(table.Sequence)
		if f.loaded && table.Sequence <= f.position {
			table = nil
		} else {
			f.loaded, f.position = true, table.Sequence
		}
	}
	f.forget()
	return table, f.drain(out), ok
}

// compose brings all pages to the sequence of the newest.
func (f *Follower) compose(b *Build) (*Table, bool) {
	first := b.pages[0].sequence
	last := first
	same := true
	for _, p := range b.pages {
		same = same && p.sequence == first
		first, last = min(first, p.sequence), max(last, p.sequence)
	}
	table := &Table{Sequence: last, View: b.view, Leases: b.leases}
	if same {
		return table, true
	}
	// The view came with the first page.
	viewAt := b.pages[0].sequence
	leases := make(map[int64]*consensusv1.LeaseEntry, len(b.leases))
	for _, entry := range b.leases {
		leases[entry.GetId()] = entry
	}
	for sequence := first + 1; sequence <= last; sequence++ {
		change, ok := f.kept[sequence]
		if !ok {
			return nil, false
		}
		if change.GetView() != nil && sequence > viewAt {
			table.View = change.GetView()
		}
		b.replay(change, leases)
	}
	table.Leases = make([]*consensusv1.LeaseEntry, 0, len(leases))
	for _, entry := range leases {
		table.Leases = append(table.Leases, entry)
	}
	return table, true
}

// replay applies a change to the leases whose page was read before it.
func (b *Build) replay(change *feedv1.LeaseChange, leases map[int64]*consensusv1.LeaseEntry) {
	if granted := change.GetGranted(); granted != nil && b.before(granted.GetId(), change.GetSequence()) {
		leases[granted.GetId()] = &consensusv1.LeaseEntry{
			Id: granted.GetId(), TtlS: granted.GetTtlS(), GrantedSequence: change.GetSequence(),
		}
	}
	for _, id := range change.GetRevoked().GetIds() {
		if b.before(id, change.GetSequence()) {
			delete(leases, id)
		}
	}
	if c := change.GetCheckpoint(); c != nil && b.before(c.GetId(), change.GetSequence()) {
		if old, ok := leases[c.GetId()]; ok {
			leases[c.GetId()] = &consensusv1.LeaseEntry{
				Id: old.GetId(), TtlS: old.GetTtlS(), RemainingTtlS: c.GetRemainingTtlS(), GrantedSequence: old.GetGrantedSequence(),
			}
		}
	}
}

// before tells whether the page that covers an id was read before a sequence.
func (b *Build) before(id int64, sequence uint64) bool {
	i, _ := slices.BinarySearchFunc(b.pages, uint64(id), func(p page, id uint64) int {
		if p.last < id {
			return -1
		}
		return 1
	})
	return b.pages[i].sequence < sequence
}
