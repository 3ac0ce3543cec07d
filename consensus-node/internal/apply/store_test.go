package apply_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// database stores batches in memory. What it gives back went through bytes, as
// with the real store.
type database struct {
	rows map[string]map[string][]byte
	revs []stored
}

type stored struct {
	rev       mvcc.Revision
	tombstone bool
	kv        []byte
}

func newDatabase() *database { return &database{rows: map[string]map[string][]byte{}} }

func (d *database) put(bucket string, key, value []byte) {
	if d.rows[bucket] == nil {
		d.rows[bucket] = map[string][]byte{}
	}
	d.rows[bucket][string(key)] = bytes.Clone(value)
}

// store takes a batch in and fails the test for one that no store could take.
func (d *database) store(t *testing.T, b apply.Batch) {
	t.Helper()
	d.put(apply.MetaBucket, []byte(apply.ConsistentIndexKey), binary.BigEndian.AppendUint64(nil, b.Index))
	d.put(apply.MetaBucket, []byte(apply.TermKey), binary.BigEndian.AppendUint64(nil, b.Term))
	require.Len(t, b.Encoded, len(b.Writes))
	for i, w := range b.Writes {
		if n := len(d.revs); n > 0 {
			require.True(t, d.revs[n-1].rev.Less(w.Rev), "writes are in order")
		}
		d.revs = append(d.revs, stored{w.Rev, w.Tombstone, bytes.Clone(b.Encoded[i])})
	}
	for _, drop := range b.Drop {
		i, ok := d.find(drop.Rev)
		require.True(t, ok, "dropped revisions are there")
		require.Equal(t, drop.Tombstone, d.revs[i].tombstone)
		d.revs = slices.Delete(d.revs, i, i+1)
	}
	for _, r := range b.Rows {
		if r.Delete {
			delete(d.rows[r.Bucket], string(r.Key))
		} else {
			d.put(r.Bucket, r.Key, r.Value)
		}
	}
}

func (d *database) find(rev mvcc.Revision) (int, bool) {
	i := sort.Search(len(d.revs), func(i int) bool { return !d.revs[i].rev.Less(rev) })
	return i, i < len(d.revs) && d.revs[i].rev == rev
}

// Value implements mvcc.Values.
func (d *database) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	i, ok := d.find(rev)
	if !ok {
		return nil, fmt.Errorf("no revision %v", rev)
	}
	kv := &mvccpb.KeyValue{}
	return kv, proto.Unmarshal(d.revs[i].kv, kv)
}

// Revisions implements apply.Loader.
func (d *database) Revisions(fn func(mvcc.Revision, bool, *mvccpb.KeyValue) error) error {
	for _, s := range d.revs {
		kv, err := d.Value(s.rev)
		if err != nil {
			return err
		}
		if err := fn(s.rev, s.tombstone, kv); err != nil {
			return err
		}
	}
	return nil
}

// Rows implements apply.Loader.
func (d *database) Rows(bucket string, fn func(key, value []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(d.rows[bucket])) {
		if err := fn([]byte(key), d.rows[bucket][key]); err != nil {
			return err
		}
	}
	return nil
}

// content is everything that is stored, as text to compare.
func (d *database) content() string {
	var b bytes.Buffer
	for _, s := range d.revs {
		fmt.Fprintf(&b, "%d_%d %v %x\n", s.rev.Main, s.rev.Sub, s.tombstone, s.kv)
	}
	for _, bucket := range slices.Sorted(maps.Keys(d.rows)) {
		for _, key := range slices.Sorted(maps.Keys(d.rows[bucket])) {
			fmt.Fprintf(&b, "%s %q %x\n", bucket, key, d.rows[bucket][key])
		}
	}
	return b.String()
}

// batchText is every byte of a batch.
func batchText(b apply.Batch) string {
	var out bytes.Buffer
	fmt.Fprintf(&out, "index %d term %d conf %v\n", b.Index, b.Term, b.ConfState)
	for i, w := range b.Writes {
		fmt.Fprintf(&out, "write %d_%d %v %x\n", w.Rev.Main, w.Rev.Sub, w.Tombstone, b.Encoded[i])
	}
	for _, d := range b.Drop {
		fmt.Fprintf(&out, "drop %d_%d %v\n", d.Rev.Main, d.Rev.Sub, d.Tombstone)
	}
	for _, r := range b.Rows {
		fmt.Fprintf(&out, "row %s %x %x %v\n", r.Bucket, r.Key, r.Value, r.Delete)
	}
	return out.String()
}
