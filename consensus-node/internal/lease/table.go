package lease

import (
	"github.com/tidwall/btree"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// TTLMaxS is the longest TTL that can be granted, in seconds, as in etcd.
const TTLMaxS = 9_000_000_000

// Lease is one granted lease.
type Lease struct {
	// ID is any number but 0.
	ID int64
	// TTLS is the granted time to live in seconds.
	TTLS int64
	// RemainingTTLS is what an owner recorded of the rest, in seconds; 0 if
	// nothing was recorded since the lease was last renewed.
	RemainingTTLS int64
	// GrantedSequence is the number of the grant in the lease sequence: it tells
	// the lease from a later one of the same id. 0 if the lease comes from a
	// database that does not record it.
	GrantedSequence uint64
	// CheckpointSequence is the number of the last change of RemainingTTLS, 0 if
	// there was none.
	CheckpointSequence uint64
}

// attachment is one key on one lease. The trees order ids by their bits, as
// the bucket does, so that everything comes after id 0, which no lease has.
type attachment struct {
	lease uint64
	key   string
}

func attachmentLess(a, b attachment) bool {
	if a.lease != b.lease {
		return a.lease < b.lease
	}
	return a.key < b.key
}

// Table is the lease table that apply changes.
type Table struct {
	state
	// byKey says on which lease a key hangs. Readers find that in the
	// key-value itself, so it is in no View.
	byKey map[string]int64
	view  *View // of the present state, nil if none was asked for since
}

// New returns a table without leases, at sequence 0 and epoch 0.
func New() *Table {
	return &Table{
		state: state{
			leases:  btree.NewMap[uint64, Lease](0),
			keys:    btree.NewBTreeGOptions(attachmentLess, btree.Options{NoLocks: true}),
			cluster: &feedv1.View{},
		},
		byKey: make(map[string]int64),
	}
}

// View returns the table as it is now. As long as nothing changes it returns
// the same View.
func (t *Table) View() *View {
	if t.view == nil {
		t.view = &View{t.state}
		t.view.leases = t.leases.Copy()
		t.view.keys = t.keys.Copy()
	}
	return t.view
}

// next takes the next number of the lease sequence.
func (t *Table) next() uint64 {
	t.view = nil
	t.sequence++
	return t.sequence
}

// Grant adds a lease.
//
// Errors: ErrGRPCLeaseNotFound for id 0, ErrGRPCLeaseTTLTooLarge,
// ErrGRPCLeaseExist, in etcd's order.
func (t *Table) Grant(id, ttlS int64) (*feedv1.LeaseChange, error) {
	switch {
	case id == 0:
		return nil, rpctypes.ErrGRPCLeaseNotFound
	case ttlS > TTLMaxS:
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	case t.Exists(id):
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	change := &feedv1.LeaseChange{
		Sequence: t.next(),
		Change:   &feedv1.LeaseChange_Granted{Granted: &feedv1.LeaseGranted{Id: id, TtlS: ttlS}},
	}
	t.leases.Set(uint64(id), Lease{ID: id, TTLS: ttlS, GrantedSequence: change.Sequence})
	return change, nil
}

// Revoke removes leases and detaches what is left on them, all in one change.
// revision is the one that deleted their keys, 0 if there were none; expired
// says that their owner found their time run out.
//
// Errors: ErrGRPCLeaseNotFound if there is none of that id; then nothing is
// done.
func (t *Table) Revoke(ids []int64, expired bool, revision int64) (*feedv1.LeaseChange, error) {
	for _, id := range ids {
		if !t.Exists(id) {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
	}
	change := &feedv1.LeaseChange{
		Sequence: t.next(),
		Change: &feedv1.LeaseChange_Revoked{Revoked: &feedv1.LeaseRevoked{
			Ids: ids, Expired: expired, Revision: revision,
		}},
	}
	for _, id := range ids {
		for _, key := range t.Keys(id) {
			t.Detach(id, key)
		}
		t.leases.Delete(uint64(id))
	}
	return change, nil
}

// Checkpoint records how much of a lease is left, in seconds; 0 clears what
// was recorded. Whether the speaker may say so is for Owner to decide. decided
// is the number as of which a rest was reckoned: one that comes after a later
// grant of the id, or after a later clearing, would shorten what a client was
// told since.
//
// Errors: ErrGRPCLeaseNotFound; ErrRemaining outside 0..TTL; ErrLate.
func (t *Table) Checkpoint(id, remainingS int64, decided uint64) (*feedv1.LeaseChange, error) {
	l, ok := t.Get(id)
	switch {
	case !ok:
		return nil, rpctypes.ErrGRPCLeaseNotFound
	case remainingS < 0 || remainingS > l.TTLS:
		return nil, ErrRemaining
	case remainingS > 0 && max(l.GrantedSequence, l.CheckpointSequence) > decided:
		return nil, ErrLate
	}
	l.RemainingTTLS, l.CheckpointSequence = remainingS, t.next()
	change := &feedv1.LeaseChange{
		Sequence: l.CheckpointSequence,
		Change: &feedv1.LeaseChange_Checkpoint{Checkpoint: &feedv1.LeaseCheckpoint{
			Id: id, RemainingTtlS: remainingS,
		}},
	}
	t.leases.Set(uint64(id), l)
	return change, nil
}

// Attach hangs a key on a lease, and takes it from the one it hung on. That
// the lease exists was checked by whoever stored the key; a key from an old
// database that names a lease which is gone stays attached to that id, so that
// a node which runs on and one which restarts agree on what a later lease of
// the same id deletes.
func (t *Table) Attach(id int64, key []byte) {
	if old, ok := t.byKey[string(key)]; ok {
		t.Detach(old, key)
	}
	t.view = nil
	k := string(key)
	t.byKey[k] = id
	t.keys.Set(attachment{uint64(id), k})
}

// Detach takes a key from a lease, if it hangs on that one.
func (t *Table) Detach(id int64, key []byte) {
	if on, ok := t.byKey[string(key)]; !ok || on != id {
		return
	}
	t.view = nil
	delete(t.byKey, string(key))
	t.keys.Delete(attachment{uint64(id), string(key)})
}

// Load is everything that New and the changes since then made of a table.
type Load struct {
	Sequence uint64
	// View is nil if none was stored.
	View *feedv1.View
	// Leases come in any order.
	Leases []Lease
	// Keys calls fn for every key that hangs on a lease.
	Keys func(fn func(key string, lease int64))
}

// Restore makes a table from what was stored. The sequence goes on beyond every
// grant and checkpoint, also where it was not stored with them: a lease that seems to be
// granted after all decisions could not expire.
func Restore(l Load) *Table {
	t := New()
	t.sequence = l.Sequence
	if l.View != nil {
		t.setCluster(l.View)
	}
	for _, lease := range l.Leases {
		t.leases.Set(uint64(lease.ID), lease)
		t.sequence = max(t.sequence, lease.GrantedSequence, lease.CheckpointSequence)
	}
	if l.Keys != nil {
		l.Keys(func(key string, lease int64) {
			t.byKey[key] = lease
			t.keys.Set(attachment{uint64(lease), key})
		})
	}
	return t
}
