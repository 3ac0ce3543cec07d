package mvcc

import "go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

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
func (s *State) Compacting() bool { return s.sweep.active }

// CompactStep carries compaction on: it looks at up to limit keys and frees up
// to limit revisions (at least one of each), and returns what is to be deleted
// from the bucket. done says that nothing is left. It may run between any two
// writes; what it returns depends on the State alone. If the process ends in
// between, the State that is restored from the bucket finds the rest again.
//
// Of each key stays the last change up to the compact revision, unless it is a
// tombstone below it: one at the compact revision itself stays for watchers
// that start there.
func (s *State) CompactStep(limit int) (drop []Drop, done bool) {
	limit = max(limit, 1)
	for looked := 0; s.sweep.active && looked < limit && len(drop) < limit; {
		for _, e := range s.nextKeys(limit - looked) {
			if len(drop) == limit {
				break
			}
			h := e.slot.Load()
			n := s.obsolete(h)
			room := limit - len(drop)
			s.sweep.cursor, s.sweep.passed = e.key, n <= room
			drop = s.drop(drop, e.key, h, min(n, room))
			looked++
		}
	}
	return drop, !s.sweep.active
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
