package e2e

import (
	"bytes"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// falsify changes the value of a key in the database of a stopped member; the file stays a good one.
func falsify(t *testing.T, path, key string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("key"))
		cursor := bucket.Cursor()
		for k, v := cursor.Last(); k != nil; k, v = cursor.Prev() {
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(v, &kv); err != nil || string(kv.Key) != key {
				continue
			}
			kv.Value = []byte("flipped")
			data, err := proto.Marshal(&kv)
			require.NoError(t, err)
			return bucket.Put(bytes.Clone(k), data)
		}
		require.Fail(t, "the key is not in the database")
		return nil
	}))
	require.NoError(t, db.Close())
}

// A member whose disk lies is found: before it serves, where it was asked to look first, or by the leader's comparison, which raises the
// alarm that ends all writes.
func TestAMemberThatDiffersIsFound(t *testing.T) {
	c := framework.StandaloneCluster(t, framework.Options{Args: []string{"--corrupt-check-time", "300ms"}})
	s := &system{Cluster: c, client: c.ClientAt(t, c.Endpoints()[0])}
	put(t, s, "k", "v")
	put(t, s, "l", "v")
	members, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	wrong := uint64(0)
	for _, m := range members.Members {
		if m.Name == "s3" {
			wrong = m.ID
		}
	}
	third := c.ClientAt(t, c.Endpoints()[2])
	require.Eventually(t, func() bool {
		r, err := third.Get(bounded(t), "l", clientv3.WithSerializable())
		return err == nil && r.Count == 1
	}, timeout, 10*time.Millisecond)
	require.Empty(t, ctl(t, s, "alarm", "list"), "nothing differs yet")
	c.Kill(t, "s3", syscall.SIGTERM)
	c.Wait(t, "s3")
	falsify(t, filepath.Join(c.Data, "s3", "member", "snap", "db"), "k")

	code, stderr := c.Exits(t, "s3", "--feature-gates", "InitialCorruptCheck=true")
	require.Equal(t, 2, code, stderr)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Contains(t, lines[len(lines)-1], "holds other keys or values than member")

	c.Start(t, "s3")
	require.Eventually(t, func() bool {
		out, _, err := c.Etcdctl(t, "alarm", "list")
		return err == nil && strings.TrimSpace(out) != ""
	}, timeout, 50*time.Millisecond)
	list, err := s.client.AlarmList(bounded(t))
	require.NoError(t, err)
	require.Len(t, list.Alarms, 1)
	require.Equal(t, wrong, list.Alarms[0].MemberID, "the member that differs is named, and no other")
	_, err = s.client.Put(bounded(t), "k", "w")
	require.ErrorIs(t, err, rpctypes.ErrCorrupt)
	require.Equal(t, "v", string(get(t, s, "k").Kvs[0].Value), "the leader still has the right value")

	// Without that member the alarm can be taken back, and stays away.
	c.Kill(t, "s3", syscall.SIGTERM)
	c.Wait(t, "s3")
	require.Contains(t, ctl(t, s, "alarm", "disarm"), "alarm:CORRUPT")
	put(t, s, "k", "w")
	require.Empty(t, ctl(t, s, "alarm", "list"))
}
