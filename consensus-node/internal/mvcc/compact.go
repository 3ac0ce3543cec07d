package mvcc

import (
	"container/heap"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Drop names an entry of the "key" bucket that compaction frees.
type Drop struct {
	Rev       Revision
	Tombstone bool
}

// sweep is how far physical compaction is. It goes round the keys from start
// to start; a compaction that comes meanwhile only moves start, so that a
// sweep ends also if compactions come faster than it goes round.
type sweep struct {
	active  bool
	cursor  string // the key to go on from
	passed  bool   // the cursor itself is done with
	start   string // where the round began, and ends with
	wrapped bool   // the cursor has passed the last key in this round
}

// Compact makes revisions below rev unreadable, at once. What can be dropped
// is left to CompactStep. Errors: ErrGRPCCompacted if rev is not above the
// last compaction, ErrGRPCFutureRev if it is above the newest revision.
func (s *State) Compact(rev int64) error {
	switch {
	case rev <= s.compact:
		return rpctypes.ErrGRPCCompacted
	case rev > s.rev:
		return rpctypes.ErrGRPCFutureRev
	}
	s.compact = rev
	s.view = nil
	p := &s.sweep // idle, its cursor is ""
	p.active, p.start, p.wrapped = true, p.cursor, false
	return nil
}

// Compacting says whether CompactStep has anything left to do.
func (s *State) Compacting() bool { return s.sweep.active || s.freed.count > 0 }

// indexShare is how many revisions a step may take out of the index for each that it may have dropped: that costs far less.
const indexShare = 8

// CompactStep carries compaction on. First it takes revisions out of the index, key by key, and remembers them; it looks at up to limit keys
// in a step. When it is through, or remembers freedMax of them, it returns what is to be deleted from the bucket, up to limit in a step, in the order
// of revisions: that of the bucket. (The revisions of a key lie all over it. Deleting key by key, each step would write as many pages as it
// deletes revisions, and every page again and again.) done says that nothing is left. It may run between any two
// writes; what it returns depends on the State alone. If the process ends in
// between, the State that is restored from the bucket finds the rest again.
//
// Of each key stays the last change up to the compact revision, unless it is a
// tombstone below it: one at the compact revision itself stays for watchers
// that start there.
func (s *State) CompactStep(limit int) (drop []Drop, done bool) {
	limit = max(limit, 1)
	if s.sweep.active && !s.freed.draining {
		s.sweepStep(limit)
	}
	if !s.sweep.active || s.freed.draining {
		drop = s.freed.next(limit)
	}
	return drop, !s.Compacting()
}

// sweepStep takes what is obsolete of up to limit keys out of the index.
func (s *State) sweepStep(limit int) {
	var run []Drop
	most := limit * indexShare
	for looked := 0; s.sweep.active && looked < limit && len(run) < most; {
		for _, e := range s.nextKeys(limit - looked) {
			if len(run) == most {
				break
			}
			h := e.slot.Load()
			n := s.obsolete(h)
			room := most - len(run)
			s.sweep.cursor, s.sweep.passed = e.key, n <= room
			run = s.drop(run, e.key, h, min(n, room))
			looked++
		}
	}
	s.freed.add(run)
}

// freedMax bounds the revisions that are remembered, at 24 bytes each.
const freedMax = 1 << 20

// freed are the revisions that are out of the index and still in the bucket: runs in the order of revisions, which are a heap by their
// first ones. Once there are enough it is drained before more come.
type freed struct {
	runs     [][]Drop
	count    int
	max      int
	draining bool
}

func (f *freed) add(run []Drop) {
	if len(run) == 0 {
		return
	}
	slices.SortFunc(run, func(a, b Drop) int { return a.Rev.Compare(b.Rev) })
	heap.Push(f, run)
	f.count += len(run)
	f.draining = f.count >= f.max
}

// next takes the lowest out.
func (f *freed) next(limit int) (drop []Drop) {
	for len(drop) < limit && len(f.runs) > 0 {
		run := f.runs[0]
		drop = append(drop, run[0])
		if f.runs[0] = run[1:]; len(run) == 1 {
			heap.Pop(f)
		} else {
			heap.Fix(f, 0)
		}
	}
	f.count -= len(drop)
	f.draining = f.draining && f.count > 0
	return drop
}

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (f *freed) Len() int { return len(f.runs) }

// Less puts runs that are used up first.
func (f *freed) Less(i, j int) bool {
	return len(f.runs[i]) == 0 || len(f.runs[j]) > 0 && f.runs[i][0].Rev.Less(f.runs[j][0].Rev)
}

// Swap is part of heap.Interface.
func (f *freed) Swap(i, j int) { f.runs[i], f.runs[j] = f.runs[j], f.runs[i] }

// Push is part of heap.Interface.
func (f *freed) Push(run any) { f.runs = append(f.runs, run.([]Drop)) } //nolint:forcetypeassert // add alone calls it

// Pop is part of heap.Interface.
func (f *freed) Pop() any {
	last := len(f.runs) - 1
	run := f.runs[last]
	f.runs[last] = nil
	f.runs = f.runs[:last]
	return run
}

// nextKeys returns up to n entries from the cursor on, and moves the sweep
// over the end of the keys.
func (s *State) nextKeys(n int) []entry {
	var batch []entry
	p := &s.sweep
	s.tree.Ascend(entry{key: p.cursor}, func(e entry) bool {
		if p.wrapped && e.key > p.start {
			return false
		}
		if p.passed && e.key == p.cursor {
			return true
		}
		batch = append(batch, e)
		return len(batch) < n
	})
	if len(batch) > 0 {
		return batch
	}
	if p.wrapped || p.start == "" {
		*p = sweep{}
	} else {
		p.wrapped, p.cursor, p.passed = true, "", false
	}
	return nil
}

// obsolete returns how many of the oldest records of h the compact revision
// makes superfluous.
func (s *State) obsolete(h *history) int {
	n, last := len(h.older), h.last
	if h.last.rev.Main > s.compact {
		n = firstAfter(h.older, s.compact) - 1
		if n < 0 {
			return 0
		}
		last = h.older[n]
	}
	if last.tombstone() && last.rev.Main < s.compact {
		n++
	}
	return n
}

// drop takes the n oldest records of h out of the index and adds them to list.
// What is left gets a slot of its own: Views share the old one and need it all.
func (s *State) drop(list []Drop, key string, h *history, n int) []Drop {
	if n == 0 {
		return list
	}
	for i := range n {
		r := h.last
		if i < len(h.older) {
			r = h.older[i]
		}
		list = append(list, Drop{r.rev, r.tombstone()})
	}
	s.view = nil
	if rest := h.trim(n); rest == nil {
		s.tree.Delete(entry{key: key})
	} else {
		s.tree.Set(entry{key, newSlot(rest)})
	}
	return list
}
