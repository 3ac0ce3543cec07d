package store

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// The bytes here are spelled out: they are etcd's format, not ours to change.
func TestFileHasEtcdsSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	kv := &mvccpb.KeyValue{
		Key: []byte("k"), Value: []byte("v"), CreateRevision: 2, ModRevision: 258, Version: 3, Lease: 77,
	}
	require.NoError(t, s.Apply(Batch{
		Index: 300, Term: 5,
		ConfState: &raftpb.ConfState{Voters: []uint64{1, 0xfedcba9876543210}, Learners: []uint64{3}, AutoLeave: new(false)},
		Writes:    []mvcc.Write{{Rev: rev(258, 0), KV: kv}, deleteAt(rev(258, 1), "gone")},
		Rows: []Row{
			ScheduledCompact(17), FinishedCompact(16),
			{Bucket: BucketLease, Key: []byte("lease row"), Value: []byte("x")},
			{Bucket: BucketMembers, Key: []byte("abc"), Value: []byte("{}")},
			{Bucket: BucketAlarm, Key: []byte("alarm")},
			{Bucket: OwnPrefix + "view", Key: []byte("epoch"), Value: []byte("9")},
		},
	}))
	require.NoError(t, s.Close(t.Context()))

	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		get := func(bucket, key string) []byte { return tx.Bucket([]byte(bucket)).Get([]byte(key)) }
		stored := get("key", "\x00\x00\x00\x00\x00\x00\x01\x02_\x00\x00\x00\x00\x00\x00\x00\x00")
		var back mvccpb.KeyValue
		require.NoError(t, proto.Unmarshal(stored, &back))
		require.True(t, proto.Equal(kv, &back))
		require.Equal(t, "0a04676f6e65",
			hex.EncodeToString(get("key", "\x00\x00\x00\x00\x00\x00\x01\x02_\x00\x00\x00\x00\x00\x00\x00\x01t")))

		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x01\x2c", string(get("meta", "consistent_index")))
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x05", string(get("meta", "term")))
		require.Equal(t, "3.7.0", string(get("meta", "storageVersion")))
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x11_\x00\x00\x00\x00\x00\x00\x00\x00", string(get("meta", "scheduledCompactRev")))
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x10_\x00\x00\x00\x00\x00\x00\x00\x00", string(get("meta", "finishedCompactRev")))
		require.JSONEq(t, `{"voters":[1,18364758544493064720],"learners":[3],"auto_leave":false}`, string(get("meta", "confState")))
		var conf raftpb.ConfState                                           // as etcd reads it
		require.NoError(t, json.Unmarshal(get("meta", "confState"), &conf)) //nolint:musttag // etcd does so

		require.Equal(t, "x", string(get("lease", "lease row")))
		require.Equal(t, "{}", string(get("members", "abc")))
		require.NotNil(t, get("alarm", "alarm"))
		require.Equal(t, "9", string(get("holdfast_view", "epoch")))
		for _, name := range []string{"cluster", "members_removed", "auth", "authUsers", "authRoles", "holdfast_meta"} {
			require.NotNil(t, tx.Bucket([]byte(name)), name)
		}
		return nil
	}))
}

func TestMetaIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	meta, err := s.Meta()
	require.NoError(t, err)
	require.Equal(t, Meta{ScheduledCompact: -1, FinishedCompact: -1, StorageVersion: "3.7.0"}, meta)

	conf := &raftpb.ConfState{
		Voters: []uint64{1, 2}, VotersOutgoing: []uint64{3}, LearnersNext: []uint64{3}, AutoLeave: new(true),
	}
	require.NoError(t, s.Apply(Batch{Index: 9, Term: 2, ConfState: conf, Rows: []Row{ScheduledCompact(8), FinishedCompact(3)}}))
	require.NoError(t, s.Apply(Batch{Index: 10, Term: 3})) // an entry that changes nothing counts too
	require.NoError(t, s.Close(t.Context()))

	meta, err = ReadMeta(path)
	require.NoError(t, err)
	require.Equal(t, [2]uint64{10, 3}, [2]uint64{meta.Index, meta.Term})
	require.Equal(t, int64(8), meta.CompactRevision())
	require.True(t, proto.Equal(conf, meta.ConfState), "%v", meta.ConfState)
}
