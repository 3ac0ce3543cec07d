package apply_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

var errDisk = errors.New("disk on fire")

type broken struct{}

func (broken) Value(mvcc.Revision) (*mvccpb.KeyValue, error) { return nil, errDisk }

// Trouble with the storage is no outcome of a command: one node would answer
// with an error what the others carried out.
func TestStorageTroubleEndsTheMachine(t *testing.T) {
	m, db := apply.New(), newDatabase()
	step(t, m, db, putCommand(t, &pb.PutRequest{Key: []byte("k")}))
	c := putCommand(t, &pb.PutRequest{Key: []byte("k"), IgnoreValue: true})
	_, err := m.Apply(2, 1, &journalv1.Entry{Version: apply.EntryVersion, Commands: []*journalv1.Command{c}}, broken{})
	require.ErrorIs(t, err, errDisk)
}

func TestUnknownEntryVersion(t *testing.T) {
	m := apply.New()
	_, err := m.Apply(1, 1, &journalv1.Entry{Version: apply.EntryVersion + 1}, newDatabase())
	require.ErrorIs(t, err, apply.ErrEntry)
	require.Zero(t, m.Index())
}

// Where nobody waits, what only the response shows is not read; where somebody
// does, it is.
func TestReadsOnlyForThoseWhoWait(t *testing.T) {
	m, db := apply.New(), newDatabase()
	m.Waits = func(id uint64) bool { return id == 1 }
	step(t, m, db, putCommand(t, &pb.PutRequest{Key: []byte("k"), Value: []byte("old")}))
	c := putCommand(t, &pb.PutRequest{Key: []byte("k"), PrevKv: true})
	res, err := m.Apply(2, 1, &journalv1.Entry{Version: apply.EntryVersion, Commands: []*journalv1.Command{c}}, broken{})
	require.NoError(t, err)
	ev := res.Revisions[0].Events[0]
	require.Empty(t, ev.PreviousKv)
	require.EqualValues(t, 2, ev.PreviousModRevision)
	db.store(t, res.Batch)

	c.Id = 1
	res = step(t, m, db, c)
	require.EqualValues(t, 3, res.Outcomes[0].Response.(*pb.PutResponse).PrevKv.ModRevision)
}

// Views are read while entries are applied; the race detector watches.
func TestViewsAreReadFromOtherGoroutines(t *testing.T) {
	m, db := apply.New(), newDatabase()
	step(t, m, db, grantCommand(t, 1))
	var readers sync.WaitGroup
	for i := range 200 {
		step(t, m, db, grantCommand(t, int64(i+2)),
			putCommand(t, &pb.PutRequest{Key: fmt.Appendf(nil, "%d", i%50), Lease: int64(i + 2)}))
		v := m.View()
		require.Same(t, v, m.View())
		readers.Go(func() {
			leases, more := v.Leases.Page(0, 1000)
			if len(leases) != i+2 || more || len(v.Leases.Keys(int64(i+2))) != 1 || v.KV.Revision() != int64(i+2) {
				t.Errorf("view of entry %d has %d leases, revision %d", v.Index, len(leases), v.KV.Revision())
			}
		})
	}
	readers.Wait()
}

// A restart in the midst of a compaction finds what is left to do.
func TestCompactionGoesOnAfterRestart(t *testing.T) {
	n := newNode()
	for range 10 {
		n.apply(t, &journalv1.Entry{Version: 1, Commands: []*journalv1.Command{putCommand(t, &pb.PutRequest{Key: []byte("k")})}})
	}
	compact := &journalv1.Command{Command: &journalv1.Command_Compact{Compact: marshal(t, &pb.CompactionRequest{Revision: 11})}}
	n.apply(t, &journalv1.Entry{Version: 1, Commands: []*journalv1.Command{compact}})
	require.True(t, n.m.Compacting())
	n.compact(t, 3)
	require.Len(t, n.db.revs, 7)
	n.restart(t)
	require.True(t, n.m.Compacting())
	n.compactAll(t)
	require.Len(t, n.db.revs, 1)
	require.Equal(t, n.db.rows[apply.MetaBucket][apply.ScheduledCompactKey], n.db.rows[apply.MetaBucket][apply.FinishedCompactKey])
	n.restart(t)
	require.False(t, n.m.Compacting())
}

// A compaction that left nothing to drop is finished too.
func TestCompactionOfNothingIsFinished(t *testing.T) {
	n := newNode()
	n.db.put(apply.MetaBucket, []byte(apply.ScheduledCompactKey), mvcc.AppendBucketKey(nil, mvcc.Revision{Main: 9}, false))
	var err error
	n.m, err = apply.Restore(n.db)
	require.NoError(t, err)
	require.EqualValues(t, 9, n.m.View().KV.Revision())
	require.True(t, n.m.Compacting())
	n.compactAll(t)
	require.Contains(t, n.db.rows[apply.MetaBucket], apply.FinishedCompactKey)
}

func TestDamagedRowsAreRefused(t *testing.T) {
	for _, row := range []struct {
		bucket, key string
		value       []byte
		err         error
	}{
		{apply.MetaBucket, apply.ConsistentIndexKey, []byte("7"), apply.ErrRow},
		{apply.MetaBucket, apply.ScheduledCompactKey, []byte("7"), apply.ErrRow},
		{lease.Bucket, "\x00\x00\x00\x00\x00\x00\x00\x05", []byte{8, 6}, lease.ErrRow},
		{lease.ClusterBucket, lease.SequenceKey, []byte("7"), lease.ErrRow},
		{lease.ClusterBucket, lease.ViewKey, []byte{0xff}, lease.ErrRow},
		{member.Bucket, "a", []byte(`{"id":11}`), member.ErrRow},
		{member.RemovedBucket, "not hex", nil, member.ErrRow},
	} {
		db := newDatabase()
		db.put(row.bucket, []byte(row.key), row.value)
		_, err := apply.Restore(db)
		require.ErrorIs(t, err, row.err, "%s %q", row.bucket, row.key)
	}
	db := newDatabase()
	db.put(apply.AlarmBucket, []byte{0xff}, nil)
	_, err := apply.Restore(db)
	require.Error(t, err)
}

func TestConfChangesThatAreNotUnderstood(t *testing.T) {
	cc, err := member.ConfChange(member.Add, &journalv1.MemberContext{MemberId: 5, PeerUrls: []string{"http://h:1"}})
	require.NoError(t, err)
	cc.Context = marshal(t, &journalv1.MemberContext{Version: 2, MemberId: 5})
	m := apply.New()
	_, err = m.ApplyConf(1, 1, cc)
	require.ErrorIs(t, err, member.ErrConfChange)
	require.Zero(t, m.Index())
	_, err = m.ApplyConf(2, 1, &raftpb.ConfChangeV2{})
	require.ErrorIs(t, err, apply.ErrIndex)
}
