package follow

import (
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// keptMax bounds the changes that wait for one before them or for the end of a table read. Past it the newest are dropped:
// they are read with the next table.
const keptMax = 1 << 16

// Follower is a position in the lease sequence and what is known beyond it. The zero value knows nothing and asks for a
// table.
type Follower struct {
	position uint64
	loaded   bool
	head     uint64
	// kept are changes beyond the position, and while a build is under way all changes beyond its first page.
	kept  map[uint64]*feedv1.LeaseChange
	build *Build
}

// Position is the sequence up to which everything was given; ok is false before the first table.
func (f *Follower) Position() (position uint64, ok bool) { return f.position, f.loaded }

// Head is the highest sequence that anybody told.
func (f *Follower) Head() uint64 { return f.head }

// Told takes in that there are changes up to a sequence.
func (f *Follower) Told(sequence uint64) { f.head = max(f.head, sequence) }

// Behind tells whether something is missing: no table yet, or changes that were not given.
func (f *Follower) Behind() bool { return !f.loaded || f.head > f.position }

// Accept takes in changes and appends to out those that are next in sequence, with the ones that waited for them.
func (f *Follower) Accept(changes []*feedv1.LeaseChange, out []*feedv1.LeaseChange) []*feedv1.LeaseChange {
	for _, change := range changes {
		sequence := change.GetSequence()
		f.Told(sequence)
		switch {
		case f.loaded && sequence <= f.position:
		case f.loaded && sequence == f.position+1:
			f.position = sequence
			out = append(out, change)
			if f.build != nil {
				f.keep(change)
			} else {
				delete(f.kept, sequence)
			}
		default:
			f.keep(change)
		}
	}
	return f.drain(out)
}

// keep holds a change for later.
func (f *Follower) keep(change *feedv1.LeaseChange) {
	if f.kept == nil {
		f.kept = map[uint64]*feedv1.LeaseChange{}
	}
	if len(f.kept) < keptMax {
		f.kept[change.GetSequence()] = change
	}
}

// drain gives what waited and is next now.
func (f *Follower) drain(out []*feedv1.LeaseChange) []*feedv1.LeaseChange {
	for f.loaded {
		change, ok := f.kept[f.position+1]
		if !ok {
			break
		}
		f.position++
		out = append(out, change)
		if f.build == nil {
			delete(f.kept, f.position)
		}
	}
	return out
}

// forget drops what lies at or below the position once no build needs it.
func (f *Follower) forget() {
	for sequence := range f.kept {
		if f.loaded && sequence <= f.position {
			delete(f.kept, sequence)
		}
	}
}
