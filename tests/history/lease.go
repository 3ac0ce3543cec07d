package history

import (
	"sync"
	"time"
)

// Lease is one lease and what its client was told of it. It may be filled and read at the same time.
type Lease struct {
	ID  int64
	TTL time.Duration // as granted; until then as asked for
	// GrantCall is when it was asked for.
	GrantCall time.Duration

	mu       sync.Mutex
	granted  Outcome
	renewals []Renewal
	revoked  time.Duration // when a revoke was asked for; 0: never
	// revokedBy is when a revoke was acknowledged; 0: never.
	revokedBy time.Duration
	gone      []Gone
	kept      bool // somebody keeps it alive to the end
	tried     time.Duration
}

// Renewal is a keepalive that was acknowledged.
type Renewal struct{ Call, Return time.Duration }

// Gone is a sign that the lease is no more.
type Gone struct {
	At  time.Duration
	How string
}

// Granted says how the grant ended, and the TTL that it was granted with.
func (l *Lease) Granted(o Outcome, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.granted = o
	if o == Done {
		l.TTL = ttl
	}
}

// Renew adds a keepalive that was acknowledged.
func (l *Lease) Renew(r Renewal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewals = append(l.renewals, r)
}

// Tried says that a keepalive was on its way until a time, whatever came of it, or the grant.
func (l *Lease) Tried(at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried = max(l.tried, at)
}

// Revoke says that a revoke was asked for; nothing that ends the lease from then on is early.
func (l *Lease) Revoke(call time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revoked == 0 {
		l.revoked = call
	}
}

// Revoked says that a revoke was acknowledged: the lease and its keys are gone.
func (l *Lease) Revoked(at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revokedBy = at
}

// endsBy is when the lease was gone at the latest, as its client was told; never, if it was not.
func (l *Lease) endsBy() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revokedBy == 0 {
		return never
	}
	return l.revokedBy
}

const never = time.Duration(1<<63 - 1)

// Went adds a sign that the lease is no more.
func (l *Lease) Went(g Gone) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = append(l.gone, g)
}

// Keep says that the lease is kept alive to the end, or from now on is not.
func (l *Lease) Keep(kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = kept
}

// Kept tells whether somebody keeps it alive.
func (l *Lease) Kept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

// Renewals counts the keepalives that were acknowledged.
func (l *Lease) Renewals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.renewals)
}

// CheckLeases says which leases ended before their time. A sign that a lease is no more comes after its end, so that a
// lease whose sign comes before the TTL has passed since an acknowledged keepalive was sent has ended early for certain.
func CheckLeases(leases []*Lease, r *Resolved, j *Joined) []Violation {
	f := &findings{check: "lease"}
	byID := map[int64]*Lease{}
	for _, l := range leases {
		byID[l.ID] = l
	}
	// A key that was deleted by the end of its lease is a sign too.
	for _, c := range r.Expired {
		before, _ := j.At(c.Revision - 1)
		id := endedLease(before, *c)
		if byID[id] == nil {
			f.add("nobody asked for lease %x, which ended at %d", id, c.Revision)
			continue
		}
		byID[id].Went(Gone{c.First, c.Events[0].String()})
	}
	for _, l := range leases {
		l.check(f)
	}
	return f.all
}

func (l *Lease) check(f *findings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.gone) == 0 || l.granted != Done {
		return
	}
	first := l.first()
	if l.revoked != 0 && l.revoked <= first.At {
		return // its client ended it
	}
	for _, r := range append([]Renewal{{Call: l.GrantCall}}, l.renewals...) {
		if first.At < r.Call+l.TTL {
			f.add("lease %x of %v was gone at %v (%s), %v after the sending at %v of a keepalive that was acknowledged at %v",
				l.ID, l.TTL, first.At, first.How, first.At-r.Call, r.Call, r.Return)
			return
		}
	}
}

// CheckLate says which leases lived on for too long. latest gives when one must have been seen to be gone that was renewed last at a time
// and was seen to be gone first at another; leases that a client revoked, or that nobody saw gone, are not asked about.
func CheckLate(leases []*Lease, latest func(ttl, renewed, gone time.Duration) time.Duration) []Violation {
	f := &findings{check: "late lease"}
	for _, l := range leases {
		l.mu.Lock()
		if len(l.gone) > 0 && l.granted == Done && l.revoked == 0 {
			first := l.first()
			if by := latest(l.TTL, l.tried, first.At); first.At > by {
				f.add("lease %x of %v, renewed last at %v at the latest, was seen to be gone only at %v (%s), not by %v",
					l.ID, l.TTL, l.tried, first.At, first.How, by)
			}
		}
		l.mu.Unlock()
	}
	return f.all
}

// first is the first sign that the lease is no more; the caller holds the lock, and there is one.
func (l *Lease) first() Gone {
	first := l.gone[0]
	for _, g := range l.gone {
		if g.At < first.At {
			first = g
		}
	}
	return first
}

// endedLease is the lease whose end a change was: it deleted all keys of one lease and nothing else; 0 if it was none.
func endedLease(before *State, c Change) int64 {
	id := int64(0)
	for _, e := range c.Events {
		kv, ok := before.Get(e.Key)
		if !e.Deleted || !ok || kv.LeaseID == 0 || (id != 0 && id != kv.LeaseID) {
			return 0
		}
		id = kv.LeaseID
	}
	if len(c.Events) != len(before.OfLease(id)) {
		return 0
	}
	return id
}
