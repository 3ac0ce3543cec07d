package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// database is a node's database with what a simulation does to it. What was committed survives every crash, the rest none.
type database interface {
	node.Store
	// open is the start of a process: the image of mark, if it waits, takes the place of a database that is behind the mark, and all
	// other received images go.
	open(mark uint64) error
	// meta is what the committed part says of itself.
	meta() (store.Meta, error)
	// commit makes about n of the batches that wait durable, all for n < 0.
	commit(n int) error
	// pending is how many batches wait.
	pending() int
	// crash ends the process; landed of the waiting batches were committed all the same.
	crash(landed int)
	// payload reads an image for sending, receive puts it durably beside the database and returns its path, discard removes it.
	payload(img raftnode.Image) (any, error)
	receive(index uint64, payload any) (string, error)
	discard(path string)
}

// picture is the content of a database as of one entry.
type picture struct {
	rows  map[string]map[string][]byte
	revs  []stored // in the order of revisions
	index uint64
	term  uint64
	conf  *raftpb.ConfState
}

type stored struct {
	rev       mvcc.Revision
	tombstone bool
	data      []byte
	kv        *mvccpb.KeyValue
}

func newPicture() *picture { return &picture{rows: map[string]map[string][]byte{}} }

func (p *picture) clone() *picture {
	c := *p
	c.rows, c.revs = make(map[string]map[string][]byte, len(p.rows)), slices.Clone(p.revs)
	for name, bucket := range p.rows {
		c.rows[name] = maps.Clone(bucket)
	}
	return &c
}

func (p *picture) put(bucket string, key, value []byte) {
	if p.rows[bucket] == nil {
		p.rows[bucket] = map[string][]byte{}
	}
	p.rows[bucket][string(key)] = value
}

func (p *picture) find(rev mvcc.Revision) (int, bool) {
	i := sort.Search(len(p.revs), func(i int) bool { return !p.revs[i].rev.Less(rev) })
	return i, i < len(p.revs) && p.revs[i].rev == rev
}

// apply is one batch. With torn the index is left behind, which no transaction of the real store does.
func (p *picture) apply(b *store.Batch, torn bool) {
	for i, w := range b.Writes {
		p.revs = append(p.revs, stored{w.Rev, w.Tombstone, b.Encoded[i], w.KV})
	}
	if len(b.Drop) > 0 {
		gone := make(map[mvcc.Revision]bool, len(b.Drop))
		for _, d := range b.Drop {
			gone[d.Rev] = true
		}
		p.revs = slices.DeleteFunc(p.revs, func(s stored) bool { return gone[s.rev] })
	}
	for _, r := range b.Rows {
		if r.Delete {
			delete(p.rows[r.Bucket], string(r.Key))
		} else {
			p.put(r.Bucket, r.Key, r.Value)
		}
	}
	if b.ConfState != nil {
		p.conf = b.ConfState
	}
	if torn {
		return
	}
	p.index, p.term = b.Index, max(p.term, b.Term)
	p.put(apply.MetaBucket, []byte(apply.ConsistentIndexKey), binary.BigEndian.AppendUint64(nil, p.index))
	p.put(apply.MetaBucket, []byte(apply.TermKey), binary.BigEndian.AppendUint64(nil, p.term))
}

// memory is the database in memory. It keeps the real store's rules: what Apply took is visible at once and committed later, up to the end of an entry,
// with the consistent index; a crash leaves what was committed.
type memory struct {
	committed, now *picture
	waiting        []store.Batch
	images         map[string]*picture // received, by path; they survive a crash
	generation     uint64
	torn           bool // a mutation
	durable        func()
}

var _ database = (*memory)(nil)

func newMemory(durable func()) *memory {
	return &memory{committed: newPicture(), now: newPicture(), images: map[string]*picture{}, durable: durable}
}

// Apply implements node.Store.
func (m *memory) Apply(b store.Batch) error {
	if again := b.Index == m.now.index; b.Index < m.now.index || b.Index == 0 || again && (len(b.Writes) > 0 || b.ConfState != nil) {
		return fmt.Errorf("%w: index %d after %d", store.ErrBatch, b.Index, m.now.index)
	}
	m.now.apply(&b, false)
	m.waiting = append(m.waiting, b)
	return nil
}

// Reader implements node.Store. It is for use until the next Apply, as all readers in a simulation are.
func (m *memory) Reader() (node.Reader, error) { return &pictureReader{m.now, m.generation}, nil }

// ForEach implements node.Store.
func (m *memory) ForEach(bucket string, fn func(key, value []byte) error) error {
	rows := m.committed.rows[bucket]
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if err := fn([]byte(key), rows[key]); err != nil {
			return err
		}
	}
	return nil
}

// Image implements node.Store.
func (m *memory) Image(context.Context) (raftnode.Image, error) {
	if err := m.commit(-1); err != nil {
		return nil, err
	}
	return pictureImage{m.committed.clone()}, nil
}

// Install implements node.Store.
func (m *memory) Install(path string) error {
	p := m.images[path]
	switch {
	case p == nil:
		return fmt.Errorf("no image %s", path)
	case p.index <= m.now.index:
		return fmt.Errorf("%w: index %d, applied %d", store.ErrStale, p.index, m.now.index)
	}
	m.take(path)
	m.durable()
	return nil
}

func (m *memory) take(path string) {
	p := m.images[path]
	delete(m.images, path)
	m.committed, m.now, m.waiting = p.clone(), p, nil
	m.generation++
}

// Durable implements node.Store.
func (m *memory) Durable() uint64 { return m.committed.index }

func (m *memory) open(mark uint64) error {
	if path := raftnode.IncomingImage("", mark); mark > 0 && m.images[path] != nil && m.committed.index < mark {
		m.take(path)
	}
	clear(m.images)
	return nil
}

func (m *memory) meta() (store.Meta, error) {
	return store.Meta{Index: m.committed.index, Term: m.committed.term, ConfState: m.committed.conf}, nil
}

func (m *memory) commit(n int) error {
	if n < 0 || n > len(m.waiting) {
		n = len(m.waiting)
	}
	if n == 0 {
		return nil
	}
	for i := range m.waiting[:n] {
		m.committed.apply(&m.waiting[i], m.torn && i == n-1 && len(m.waiting[i].Drop) == 0)
	}
	m.waiting = m.waiting[n:]
	m.generation++
	m.durable()
	return nil
}

func (m *memory) pending() int { return len(m.waiting) }

func (m *memory) crash(landed int) {
	_ = m.commit(min(landed, len(m.waiting)))
	m.now, m.waiting = m.committed.clone(), nil
}

func (m *memory) payload(img raftnode.Image) (any, error) { return img.(pictureImage).p, nil }

func (m *memory) receive(index uint64, payload any) (string, error) {
	path := raftnode.IncomingImage("", index)
	m.images[path] = payload.(*picture).clone()
	return path, nil
}

func (m *memory) discard(path string) { delete(m.images, path) }

type pictureImage struct{ p *picture }

func (i pictureImage) Metadata() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{Index: new(i.p.index), Term: new(i.p.term), ConfState: i.p.conf}
}
func (i pictureImage) Size() int64  { return int64(len(i.p.revs)) }
func (i pictureImage) Close() error { return nil }
func (i pictureImage) WriteTo(io.Writer) (int64, error) {
	return 0, errors.New("a picture is handed over as it is")
}

// pictureReader reads what a database holds now.
type pictureReader struct {
	p          *picture
	generation uint64
}

func (r *pictureReader) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	i, ok := r.p.find(rev)
	if !ok {
		return nil, fmt.Errorf("%w: %d_%d", store.ErrNoRevision, rev.Main, rev.Sub)
	}
	return r.p.revs[i].kv, nil
}

func (r *pictureReader) Encoded(rev mvcc.Revision) ([]byte, error) {
	i, ok := r.p.find(rev)
	if !ok {
		return nil, fmt.Errorf("%w: %d_%d", store.ErrNoRevision, rev.Main, rev.Sub)
	}
	return r.p.revs[i].data, nil
}

func (r *pictureReader) Scan(from, to mvcc.Revision, fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error {
	for i, _ := r.p.find(from); i < len(r.p.revs) && !to.Less(r.p.revs[i].rev); i++ {
		s := &r.p.revs[i]
		if err := fn(s.rev, s.tombstone, s.kv); err != nil {
			return err
		}
	}
	return nil
}

func (r *pictureReader) Visit(fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error {
	for _, s := range r.p.revs {
		if err := fn(s.rev, s.tombstone, s.kv); err != nil {
			return err
		}
	}
	return nil
}

func (r *pictureReader) Stored(*error) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for _, s := range r.p.revs {
			if !yield(mvcc.AppendBucketKey(nil, s.rev, s.tombstone), s.data) {
				return
			}
		}
	}
}

func (r *pictureReader) Generation() uint64 { return r.generation }
func (r *pictureReader) Close()             {}

// checked shows the checker what is stored.
type checked struct {
	database
	m *machine
}

// Apply implements node.Store.
func (c checked) Apply(b store.Batch) error {
	if b.Index > c.m.stored {
		c.m.w.note(c.m, evBatch, b.Index, c.m.w.check.stored(c.m, &b), 0)
		c.m.stored = b.Index
	}
	return c.database.Apply(b)
}

// batchSum is a hash of all that an entry changes.
func batchSum(b *store.Batch) uint64 {
	h := mix(b.Index, b.Term)
	for i, w := range b.Writes {
		h = mix(mix(h, uint64(w.Rev.Main)), uint64(w.Rev.Sub))
		h = sum(h, b.Encoded[i])
		if w.Tombstone {
			h = mix(h, 1)
		}
	}
	for _, r := range b.Rows {
		h = sum(sum(sum(h, []byte(r.Bucket)), r.Key), r.Value)
		if r.Delete {
			h = mix(h, 2)
		}
	}
	if b.ConfState != nil {
		for _, ids := range [][]uint64{b.ConfState.GetVoters(), b.ConfState.GetLearners(), b.ConfState.GetVotersOutgoing()} {
			h = mix(h, 3)
			for _, id := range ids {
				h = mix(h, id)
			}
		}
	}
	return h
}

// contentSum is a hash of all that a database shows: committed rows and all revisions.
func contentSum(db node.Store) (uint64, error) {
	h := uint64(0)
	for _, bucket := range []string{
		store.BucketMeta, store.BucketLease, store.BucketAlarm, store.BucketCluster, store.BucketMembers, store.BucketMembersRemoved,
		lease.ClusterBucket,
	} {
		err := db.ForEach(bucket, func(key, value []byte) error {
			if !bytes.Equal(key, []byte("storageVersion")) {
				h = sum(sum(h, key), value)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	r, err := db.Reader()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var damage error
	for key, value := range r.Stored(&damage) {
		h = sum(sum(h, key), value)
	}
	return h, damage
}
