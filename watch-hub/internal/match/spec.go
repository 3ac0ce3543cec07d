package match

import (
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
)

// Range is a range of keys in etcd's forms: End empty: one key; "\0": from Key on; otherwise [Key, End).
type Range struct{ Key, End string }

// Single tells whether the range is one key.
func (r Range) Single() bool { return r.End == "" }

// endless tells whether the range has no upper end.
func (r Range) endless() bool { return r.End == "\x00" }

// empty tells whether no key can lie in the range.
func (r Range) empty() bool { return !r.Single() && !r.endless() && r.End <= r.Key }

// Contains tells whether a key lies in the range.
func (r Range) Contains(key string) bool {
	switch {
	case r.Single():
		return key == r.Key
	case r.endless():
		return key >= r.Key
	}
	return key >= r.Key && key < r.End
}

// Spec is what a registration wants. Registrations with equal specs share everything.
type Spec struct {
	Range
	// NoPut and NoDelete leave out puts and deletions.
	NoPut, NoDelete bool
	// PreviousKV asks for the key-value before each change.
	PreviousKV bool
}

// SpecOf is the spec of a registration.
func SpecOf(r *watchv1.Registration) Spec {
	return Spec{
		Range: Range{Key: string(r.GetKey()), End: string(r.GetRangeEnd())},
		NoPut: r.GetNoPut(), NoDelete: r.GetNoDelete(), PreviousKV: r.GetPreviousKv(),
	}
}

// Wants tells whether the filter lets an event of a key in the range pass.
func (s *Spec) Wants(e *feedv1.Event) bool {
	if e.GetDeleted() {
		return !s.NoDelete
	}
	return !s.NoPut
}
