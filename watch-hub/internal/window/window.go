package window

import (
	"slices"
	"sort"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// overhead is what a revision costs in memory beside its encoded size, roughly: structs, slices and their headers.
const overhead = 256

// Window is the newest accepted revisions. Make one with New.
type Window struct {
	bytesMax  int
	base      int64 // covers (base, last]
	last      int64
	revisions []*feedv1.Revision
	sizes     []int
	bytes     int
}

// New makes an empty window that keeps about bytesMax bytes, and always the last revision.
func New(bytesMax int) *Window { return &Window{bytesMax: bytesMax} }

// Reset empties the window and lets it begin at a position.
func (w *Window) Reset(position int64) {
	w.base, w.last, w.bytes = position, position, 0
	w.revisions, w.sizes = nil, nil
}

// Append adds an accepted interval; it must begin at Last.
func (w *Window) Append(i Interval) {
	for _, r := range i.Revisions {
		size := r.SizeVT() + overhead
		w.revisions = append(w.revisions, r)
		w.sizes = append(w.sizes, size)
		w.bytes += size
	}
	w.last = i.To
	drop := 0
	for w.bytes > w.bytesMax && drop < len(w.revisions)-1 {
		w.bytes -= w.sizes[drop]
		w.base = w.revisions[drop].GetRevision()
		w.revisions[drop] = nil
		drop++
	}
	// append moves to a new array from time to time, which lets the dropped front go.
	w.revisions, w.sizes = w.revisions[drop:], w.sizes[drop:]
}

// Base is the position from which on the window holds everything.
func (w *Window) Base() int64 { return w.base }

// Last is the position up to which the window holds everything.
func (w *Window) Last() int64 { return w.last }

// Bytes is what the window holds, about.
func (w *Window) Bytes() int { return w.bytes }

// After gives the interval that begins at a position not below Base and not above Last, up to a bound in revisions and in bytes,
// but at least one revision if there is any, and ends at or below upTo.
func (w *Window) After(position, upTo int64, revisionsMax, bytesMax int) Interval {
	first := w.search(position)
	n, bytes := first, 0
	for n < len(w.revisions) && w.revisions[n].GetRevision() <= upTo {
		if n > first && (n-first >= revisionsMax || bytes+w.sizes[n] > bytesMax) {
			break
		}
		bytes += w.sizes[n]
		n++
	}
	i := Interval{From: position, To: min(upTo, w.last), Revisions: w.revisions[first:n:n]}
	if n < len(w.revisions) && w.revisions[n].GetRevision() <= upTo {
		i.To = w.revisions[n-1].GetRevision()
	}
	return i
}

// search gives the place of the first revision above a position.
func (w *Window) search(position int64) int {
	return sort.Search(len(w.revisions), func(i int) bool { return w.revisions[i].GetRevision() > position })
}

// ValueAt gives the encoded key-value that the change of key at exactly that revision left, if the window holds it.
func (w *Window) ValueAt(key string, revision int64) ([]byte, bool) {
	i := w.search(revision - 1)
	if i == len(w.revisions) || w.revisions[i].GetRevision() != revision {
		return nil, false
	}
	events := w.revisions[i].GetEvents()
	// The last change of a key in a revision is the one that stays.
	for _, e := range slices.Backward(events) {
		if string(e.GetKey()) == key {
			return e.GetKv(), !e.GetDeleted()
		}
	}
	return nil, false
}
