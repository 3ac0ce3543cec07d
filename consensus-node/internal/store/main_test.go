package store

import (
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes HOLDFAST_SEED or the clock")

func TestMain(m *testing.M) {
	if os.Getenv(crashChildEnv) != "" {
		crashChild()
		return
	}
	goleak.VerifyTestMain(m)
}

// newRand returns the test's source of chance, and prints its seed on failure.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if env := os.Getenv("HOLDFAST_SEED"); seed == 0 && env != "" {
		var err error
		seed, err = strconv.ParseUint(env, 10, 64)
		require.NoError(t, err, "HOLDFAST_SEED")
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

// never is an interval after which no commit begins.
const never = time.Duration(math.MaxInt64)

// testOptions has a small map and commits only when told to.
func testOptions() Options {
	return Options{MapBytes: 256 << 20, CommitInterval: never, LockTimeout: 60 * time.Millisecond}
}

func open(tb testing.TB, path string, opts Options) *Store {
	tb.Helper()
	s, err := Open(path, opts)
	require.NoError(tb, err)
	tb.Cleanup(func() { // a test that failed may have left readers open
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s
}

func reader(tb testing.TB, s *Store) *Reader {
	tb.Helper()
	r, err := s.Reader()
	require.NoError(tb, err)
	tb.Cleanup(r.Close)
	return r
}

func rev(main, sub int64) mvcc.Revision { return mvcc.Revision{Main: main, Sub: sub} }

func putAt(r mvcc.Revision, key, value string) mvcc.Write {
	return mvcc.Write{Rev: r, KV: &mvccpb.KeyValue{
		Key: []byte(key), Value: []byte(value), CreateRevision: r.Main, ModRevision: r.Main, Version: 1,
	}}
}

func deleteAt(r mvcc.Revision, key string) mvcc.Write {
	return mvcc.Write{Rev: r, Tombstone: true, KV: &mvccpb.KeyValue{Key: []byte(key)}}
}

// content returns the stored revision bucket as text.
func content(tb testing.TB, r *Reader) map[string]string {
	tb.Helper()
	all := map[string]string{}
	var err error
	for k, v := range r.Stored(&err) {
		kv, decodeErr := Decode(v)
		require.NoError(tb, decodeErr)
		all[string(k)] = fmt.Sprintf("%s=%s@%d", kv.Key, kv.Value, kv.ModRevision)
	}
	require.NoError(tb, err)
	return all
}

// How long a condition is waited for, and how often it is looked at.
const (
	waitTime = 20 * time.Second
	waitTick = time.Millisecond
)
