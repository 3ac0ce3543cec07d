package restore_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/restore"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	"github.com/holdfastdb/holdfast/services/failure"
)

// rows are a database by bucket.
type rows map[string][][2][]byte

func (r rows) put(bucket string, key, value []byte) {
	r[bucket] = append(r[bucket], [2][]byte{key, value})
}

// sample is what an etcd of a version would save: 3.4 has neither term, ConfState, nor storage version.
func sample(version string) rows {
	r := rows{}
	for i := int64(2); i < 200; i++ {
		key := fmt.Sprintf("k%02d", i%50)
		kv := &mvccpb.KeyValue{
			Key: []byte(key), Value: bytes.Repeat([]byte{byte(i)}, 500), ModRevision: i, CreateRevision: (i-2)%50 + 2, Version: (i-2)/50 + 1,
		}
		r.put("key", mvcc.AppendBucketKey(nil, mvcc.Revision{Main: i}, false), store.Encode(kv))
	}
	leaseKey, leaseValue := lease.Row(lease.Lease{ID: 77, TTLS: 100, RemainingTTLS: 3, GrantedSequence: 9})
	r.put("lease", leaseKey, leaseValue)
	for _, bucket := range []string{"alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed", "meta"} {
		r[bucket] = nil
	}
	r.put("members", []byte("abc"), []byte(`{"id":2748,"peerURLs":["http://old:1"],"name":"old"}`))
	r.put("members_removed", []byte("def"), []byte("removed"))
	r.put("cluster", []byte("clusterVersion"), []byte("3.5.0"))
	r.put("cluster", []byte("downgrade"), []byte(`{"enabled":true}`))
	r.put("authUsers", []byte("alice"), []byte("x"))
	r.put("auth", []byte("authEnabled"), []byte{0})
	r.put("meta", []byte("consistent_index"), []byte{0, 0, 0, 0, 0, 0, 4, 0})
	r.put("holdfast_lease", []byte("sequence"), []byte{0, 0, 0, 0, 0, 0, 0, 99})
	if version != "" {
		r.put("meta", []byte("storageVersion"), []byte(version))
		r.put("meta", []byte("term"), []byte{0, 0, 0, 0, 0, 0, 0, 7})
		r.put("meta", []byte("confState"), []byte(`{"voters":[2748],"auto_leave":false}`))
	}
	return r
}

// write makes a snapshot file of rows: a database, and its hash.
func write(t *testing.T, r rows) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		for bucket, list := range r {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err != nil {
				return err
			}
			for _, row := range list {
				if err := b.Put(row[0], row[1]); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	require.NoError(t, db.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	require.NoError(t, os.WriteFile(path, append(data, sum[:]...), 0o600))
	return path
}

func plan(t *testing.T, snapshot string) restore.Plan {
	t.Helper()
	members, err := member.Initial("token", map[string][]string{"a": {"http://a:1"}, "b": {"http://b:1"}, "c": {"http://c:1"}})
	require.NoError(t, err)
	return restore.Plan{
		Snapshot: snapshot, Dir: filepath.Join(t.TempDir(), "new"), Members: members, Self: members[1].ID, Log: wal.Options{SegmentBytes: 1 << 16},
	}
}

// stored are the rows of a restored database.
func stored(t *testing.T, p restore.Plan) map[string]map[string]string {
	t.Helper()
	source, err := store.OpenForeign(filepath.Join(p.Dir, "member", "snap", "db"))
	require.NoError(t, err)
	defer func() { require.NoError(t, source.Close()) }()
	out := map[string]map[string]string{}
	require.NoError(t, source.ForEach(
		func(bucket string) error { out[bucket] = map[string]string{}; return nil },
		func(bucket string, key, value []byte) error { out[bucket][string(key)] = string(value); return nil }))
	return out
}

// Keys, users and compactions are carried; what was the old cluster's is replaced, the same on each member.
func TestWhatIsCarried(t *testing.T) {
	for _, version := range []string{"", "3.6.0", "3.7.0"} {
		r := sample(version)
		r.put("meta", []byte("finishedCompactRev"), mvcc.AppendBucketKey(nil, mvcc.Revision{Main: 10}, false))
		p := plan(t, write(t, r))
		result, err := restore.Run(t.Context(), p)
		require.NoError(t, err)
		require.EqualValues(t, 199, result.Revision)
		require.EqualValues(t, 10, result.CompactRevision)
		require.EqualValues(t, 50, result.Keys)
		require.Equal(t, 1, result.Leases)
		require.Equal(t, member.ClusterID(p.Members), result.ClusterID)
		got := stored(t, p)
		require.Len(t, got["key"], 198)
		for _, row := range r["key"] {
			require.Equal(t, string(row[1]), got["key"][string(row[0])])
		}
		require.Equal(t, map[string]string{"alice": "x"}, got["authUsers"])
		require.Empty(t, got["cluster"])
		require.Empty(t, got["members_removed"])
		require.NotContains(t, got, "holdfast_lease")
		require.Len(t, got["members"], 3)
		for _, m := range p.Members {
			require.Contains(t, got["members"][string(member.RowKey(m.ID))], m.Name)
		}
		full, err := lease.ParseRow(lease.RowKey(77), []byte(got["lease"][string(lease.RowKey(77))]))
		require.NoError(t, err)
		require.Equal(t, lease.Lease{ID: 77, TTLS: 100}, full)
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x03", got["meta"]["consistent_index"])
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x01", got["meta"]["term"])
		require.Equal(t, "3.7.0", got["meta"]["storageVersion"])

		log, state, err := wal.Open(vfs.OS{}, filepath.Join(p.Dir, "member", "log"), wal.Options{})
		require.NoError(t, err)
		require.NoError(t, log.Close())
		require.Equal(t, p.Self, state.Metadata.NodeID)
		require.Equal(t, result.ClusterID, state.Metadata.ClusterID)
		require.EqualValues(t, 3, state.Snapshot.Index)
		require.EqualValues(t, 1, state.Snapshot.Term)
		require.Len(t, state.Snapshot.ConfState.GetVoters(), 3)

		other := p
		other.Self, other.Dir = p.Members[2].ID, filepath.Join(t.TempDir(), "other")
		_, err = restore.Run(t.Context(), other)
		require.NoError(t, err)
		require.Equal(t, got, stored(t, other))
	}
}

// A raised revision is the latest stored plus the bump, and compacted.
func TestRaise(t *testing.T) {
	p := plan(t, write(t, sample("3.7.0")))
	p.BumpRevision = 1000
	result, err := restore.Run(t.Context(), p)
	require.NoError(t, err)
	require.EqualValues(t, 1199, result.Revision)
	require.EqualValues(t, 1199, result.CompactRevision)
	raised := string(mvcc.AppendBucketKey(nil, mvcc.Revision{Main: 1199}, false))
	got := stored(t, p)
	require.Contains(t, got["key"], raised)
	require.Empty(t, got["key"][raised])
	require.Equal(t, raised, got["meta"]["scheduledCompactRev"])
	require.NotContains(t, got["meta"], "finishedCompactRev")
}

// What cannot be restored is refused in one line that helps, and nothing is written.
func TestRefused(t *testing.T) {
	change := func(r rows, bucket, key, value string) rows {
		r.put(bucket, []byte(key), []byte(value))
		return r
	}
	good := write(t, sample("3.7.0"))
	data, err := os.ReadFile(good)
	require.NoError(t, err)
	file := func(data []byte) string {
		path := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	whole, err := store.OpenForeign(good)
	require.NoError(t, err)
	size, err := whole.Size()
	require.NoError(t, err)
	require.NoError(t, whole.Close())
	flipped := bytes.Clone(data)
	flipped[9000] ^= 1
	full := filepath.Join(t.TempDir(), "full")
	require.NoError(t, os.MkdirAll(filepath.Join(full, "x"), 0o700))
	half := filepath.Join(t.TempDir(), "half")
	require.NoError(t, os.MkdirAll(filepath.Join(half, "member.restoring"), 0o700))
	for name, c := range map[string]struct {
		change func(p *restore.Plan)
		want   string
	}{
		"wrong hash":     {func(p *restore.Plan) { p.Snapshot = file(flipped) }, "expected sha256"},
		"no hash":        {func(p *restore.Plan) { p.Snapshot = file(data[:len(data)-32]) }, "--skip-hash-check"},
		"cut":            {func(p *restore.Plan) { p.Snapshot = file(data[:5000]) }, "no hash"},
		"cut, unchecked": {func(p *restore.Plan) { p.Snapshot, p.SkipHash = file(data[:16384]), true }, "damaged"},
		"cut by a byte":  {func(p *restore.Plan) { p.Snapshot, p.SkipHash = file(data[:size-1]), true }, "bytes of"},
		"empty":          {func(p *restore.Plan) { p.Snapshot, p.SkipHash = file(nil), true }, "empty"},
		"text":           {func(p *restore.Plan) { p.Snapshot, p.SkipHash = file(bytes.Repeat([]byte("no\n"), 9000)), true }, "no database"},
		"missing":        {func(p *restore.Plan) { p.Snapshot = "/nowhere/snapshot.db" }, "does not exist"},
		"a folder":       {func(p *restore.Plan) { p.Snapshot = t.TempDir() }, "is no file"},
		"another's":      {func(p *restore.Plan) { p.Snapshot = write(t, rows{"other": nil}) }, "no database of etcd"},
		"later schema":   {func(p *restore.Plan) { p.Snapshot = write(t, sample("3.8.0")) }, "3.8.0"},
		"next major":     {func(p *restore.Plan) { p.Snapshot = write(t, sample("4.0.0")) }, "4.0.0"},
		"auth":           {func(p *restore.Plan) { p.Snapshot = write(t, change(sample(""), "auth", "authEnabled", "\x01")) }, "authentication enabled"},
		"full":           {func(p *restore.Plan) { p.Dir = full }, "not empty"},
		"half":           {func(p *restore.Plan) { p.Dir = half }, "interrupted"},
		"impossible key": {func(p *restore.Plan) { p.Snapshot = write(t, change(sample(""), "key", "short", "")) }, "damaged"},
		"impossible value": {func(p *restore.Plan) {
			p.Snapshot = write(t, change(sample(""), "key", string(mvcc.AppendBucketKey(nil, mvcc.Revision{Main: 500}, false)), "\xff\xff\xff"))
		}, "damaged"},
		"impossible lease":  {func(p *restore.Plan) { p.Snapshot = write(t, change(sample(""), "lease", "12345678", "\x08\x01")) }, "damaged"},
		"too large a raise": {func(p *restore.Plan) { p.BumpRevision = 1<<63 - 100 }, "--bump-revision"},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan(t, good)
			c.change(&p)
			before := files(t, p.Dir)
			_, err := restore.Run(t.Context(), p)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, failure.ExitInput, failure.ExitCode(err), err)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, before, files(t, p.Dir), "something was written")
		})
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			names = append(names, strings.TrimPrefix(path, dir))
		}
		return nil
	})
	return names
}

// Whatever the damage, a file whose hash nobody looked at is restored or refused in one line. Nothing panics.
func TestDamage(t *testing.T) {
	seed := uint64(rand.Uint32())
	if text := os.Getenv("HOLDFAST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("HOLDFAST_SEED=%d", seed)
		}
	})
	rnd := rand.New(rand.NewPCG(seed, 0))
	good, err := os.ReadFile(write(t, sample("3.7.0")))
	require.NoError(t, err)
	refused := 0
	for range 50 {
		data := bytes.Clone(good)
		switch start := rnd.IntN(len(data)); rnd.IntN(3) {
		case 0:
			data[start] ^= 1 << rnd.IntN(8)
		case 1:
			page := start / 4096 * 4096
			clear(data[page:min(page+4096, len(data))])
		default:
			for i := start; i < min(start+64, len(data)); i++ {
				data[i] = byte(rnd.Uint32())
			}
		}
		if bytes.Equal(data, good) {
			continue // what was cleared was empty
		}
		path := filepath.Join(t.TempDir(), "damaged")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		p := plan(t, path)
		_, err := restore.Run(t.Context(), p)
		require.Error(t, err, "the hash finds any damage")
		p.SkipHash = true
		if _, err := restore.Run(t.Context(), p); err != nil {
			refused++
			require.Equal(t, failure.ExitInput, failure.ExitCode(err), err)
			require.Empty(t, files(t, p.Dir))
		}
	}
	require.Positive(t, refused)
}
