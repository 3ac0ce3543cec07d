package history

import (
	"cmp"
	"slices"
	"time"
)

// Hold is one time that a client held a lock. Until is when it gave it up, or the time up to which its lease lived for certain.
type Hold struct {
	Lock, Client string
	From, Until  time.Duration
}

// CheckLocks says where two clients held a lock at once, each believing what it was told of its lease.
func CheckLocks(holds []Hold) []Violation {
	f := &findings{check: "lock"}
	holds = slices.SortedFunc(slices.Values(holds), func(a, b Hold) int {
		return cmp.Or(cmp.Compare(a.Lock, b.Lock), cmp.Compare(a.From, b.From))
	})
	var last Hold // of those up to now the one that was held longest
	for _, h := range holds {
		if h.Lock == last.Lock && h.From < last.Until {
			f.add("%s held %s from %v, while %s held it from %v to %v", h.Client, h.Lock, h.From, last.Client, last.From, last.Until)
		}
		if h.Lock != last.Lock || h.Until > last.Until {
			last = h
		}
	}
	return f.all
}
