package mvcc

import (
	"errors"
	"iter"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// bucket is a "key" bucket in memory, and the leases beside it: the caller's
// side of the core.
type bucket struct {
	writes []Write // in the order of revisions
	leases map[int64]map[string]bool
	reads  int // calls of Value
}

func newBucket(leases ...int64) *bucket {
	b := &bucket{leases: make(map[int64]map[string]bool)}
	for _, id := range leases {
		b.leases[id] = make(map[string]bool)
	}
	return b
}

var errNotStored = errors.New("not stored")

func (b *bucket) find(rev Revision) (int, bool) {
	return slices.BinarySearchFunc(b.writes, rev, func(w Write, r Revision) int { return w.Rev.Compare(r) })
}

func (b *bucket) Value(rev Revision) (*mvccpb.KeyValue, error) {
	b.reads++
	if i, ok := b.find(rev); ok {
		return b.writes[i].KV, nil
	}
	return nil, errNotStored
}

func (b *bucket) Encoded(rev Revision) ([]byte, error) {
	kv, err := b.Value(rev)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(kv)
}

func (b *bucket) Exists(id int64) bool { return b.leases[id] != nil }

func (b *bucket) Scan(from, to Revision, fn func(Revision, bool, *mvccpb.KeyValue) error) error {
	for i, _ := b.find(from); i < len(b.writes) && !to.Less(b.writes[i].Rev); i++ {
		if err := fn(b.writes[i].Rev, b.writes[i].Tombstone, b.writes[i].KV); err != nil {
			return err
		}
	}
	return nil
}

// stored yields the bucket as bbolt holds it.
func (b *bucket) stored() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for _, w := range b.writes {
			value, _ := proto.Marshal(w.KV)
			if !yield(AppendBucketKey(nil, w.Rev, w.Tombstone), value) {
				return
			}
		}
	}
}

func (b *bucket) env() Env { return Env{Values: b, Leases: b} }

func (b *bucket) apply(e Effects) {
	b.writes = append(b.writes, e.Writes...)
	for _, l := range e.Detach {
		delete(b.leases[l.ID], string(l.Key))
	}
	for _, l := range e.Attach {
		b.leases[l.ID][string(l.Key)] = true
	}
}

// drop deletes what CompactStep named and says whether all of it was there.
func (b *bucket) drop(list []Drop) bool {
	for _, d := range list {
		i, ok := b.find(d.Rev)
		if !ok || b.writes[i].Tombstone != d.Tombstone {
			return false
		}
		b.writes = slices.Delete(b.writes, i, i+1)
	}
	return true
}

// restore loads a State from the bucket.
func (b *bucket) restore(compact int64) (*State, error) {
	l := NewLoader(compact)
	for _, w := range b.writes {
		if err := l.Add(w.Rev, w.Tombstone, w.KV); err != nil {
			return nil, err
		}
	}
	return l.State(), nil
}
