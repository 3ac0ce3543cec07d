package app

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// history is every entry that a log ever held, also those that it has let go since.
type history map[uint64]*raftpb.Entry

// read adds what a log holds, which nobody writes.
func (h history) read(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	require.NoError(t, wal.Dump(fsys, dir, func(r wal.Record) error {
		if r.Kind == wal.RecordEntry {
			h[r.Entry.GetIndex()] = r.Entry
		}
		return nil
	}))
}

// model is the replicated state by the simplest means: entries in their order, each once, and a map in the place of the database.
type model struct {
	machine *apply.Machine
	rows    map[string][]byte // the revision bucket
	values  map[mvcc.Revision]*mvccpb.KeyValue
}

// replay applies the entries up to an index.
func replay(t *testing.T, h history, upTo uint64) *model {
	t.Helper()
	m := &model{machine: apply.New(), rows: map[string][]byte{}, values: map[mvcc.Revision]*mvccpb.KeyValue{}}
	for index := uint64(1); index <= upTo; index++ {
		entry := h[index]
		require.NotNil(t, entry, "entry %d was let go unseen", index)
		m.apply(t, entry)
	}
	return m
}

func (m *model) apply(t *testing.T, entry *raftpb.Entry) {
	t.Helper()
	index, term := entry.GetIndex(), entry.GetTerm()
	if entry.GetType() != raftpb.EntryNormal {
		var change raftpb.ConfChangeI
		if entry.GetType() == raftpb.EntryConfChange {
			change = &raftpb.ConfChange{}
		} else {
			change = &raftpb.ConfChangeV2{}
		}
		require.NoError(t, proto.Unmarshal(entry.GetData(), change.(proto.Message)))
		result, err := m.machine.ApplyConf(index, term, change.AsV2())
		require.NoError(t, err)
		m.store(result.Batch)
		return
	}
	var commands *journalv1.Entry
	if len(entry.GetData()) > 0 {
		commands = &journalv1.Entry{}
		require.NoError(t, commands.UnmarshalVT(entry.GetData()))
	}
	result, err := m.machine.Apply(index, term, commands, m)
	require.NoError(t, err)
	m.store(result.Batch)
}

func (m *model) store(b apply.Batch) {
	for i, w := range b.Writes {
		m.rows[string(mvcc.AppendBucketKey(nil, w.Rev, w.Tombstone))] = b.Encoded[i]
		m.values[w.Rev] = proto.CloneOf(w.KV)
	}
	for _, d := range b.Drop {
		delete(m.rows, string(mvcc.AppendBucketKey(nil, d.Rev, d.Tombstone)))
	}
}

// compact does all that compactions have left to do.
func (m *model) compact() {
	for m.machine.Compacting() {
		batch, _ := m.machine.CompactStep(1000)
		m.store(batch)
	}
}

// Value implements mvcc.Values.
func (m *model) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	if kv := m.values[rev]; kv != nil {
		return kv, nil
	}
	return nil, fmt.Errorf("the model has no revision %v", rev)
}

func (m *model) stored() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(m.rows)) {
			if !yield([]byte(k), m.rows[k]) {
				return
			}
		}
	}
}

func (m *model) text(t *testing.T) string {
	t.Helper()
	view := m.machine.View()
	hash, err := view.KV.Hash(0, m.stored())
	require.NoError(t, err)
	return stateText(t, view, m, hash)
}

// nodeText is the same of a node.
func nodeText(t *testing.T, n *Node) (text string, index uint64) {
	t.Helper()
	view, err := n.machine.Current()
	require.NoError(t, err)
	defer view.Release()
	hash, err := view.Hash(0)
	require.NoError(t, err)
	return stateText(t, view.View, view.Values, hash), view.Index
}

// stateText is all of the replicated state, for people.
func stateText(t *testing.T, v *apply.View, values mvcc.Values, hash mvcc.KVHash) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "entry %d of term %d, revision %d, compacted %d, hash %x, lease sequence %d, view %s\n", v.Index, v.Term,
		v.KV.Revision(), v.KV.CompactRevision(), hash.Hash, v.Leases.Sequence(), prototext.MarshalOptions{}.Format(v.Leases.Cluster()))
	kvs, err := v.KV.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, values)
	require.NoError(t, err)
	for _, kv := range kvs.Kvs {
		fmt.Fprintf(&out, "%q = %x created %d modified %d version %d lease %d\n",
			kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	leases, _ := v.Leases.Page(0, v.Leases.Len())
	for _, l := range leases {
		fmt.Fprintf(&out, "lease %+v keys %q\n", l, v.Leases.Keys(l.ID))
	}
	for _, m := range v.Members.Members() {
		fmt.Fprintf(&out, "member %+v\n", m)
	}
	fmt.Fprintf(&out, "removed %x, cluster version %s, alarms %v\n", v.Members.Removed(), v.Members.ClusterVersion(), v.Alarms)
	return out.String()
}
