package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// crashChildEnv makes the test binary a process that applies entries to the
// database crashName in its working directory until it is killed.
const crashChildEnv = "HOLDFAST_STORE_CRASH_CHILD"

const crashName = "db"

// crashLag is how many entries later an entry's first revision is dropped:
// some while it is pending, most when it is committed.
const crashLag = 40

// crashEntry is what the child applies at an index, a function of it alone.
func crashEntry(index uint64) Batch {
	main := int64(index) + 1
	b := Batch{Index: index, Term: 1 + index/1000, Rows: []Row{{
		Bucket: OwnPrefix + "crash", Key: []byte("index"), Value: binary.BigEndian.AppendUint64(nil, index),
	}}}
	for sub := range int64(index%4) + 1 {
		b.Writes = append(b.Writes, putAt(rev(main, sub), fmt.Sprintf("key-%d", sub), strings.Repeat("x", int(index%300))))
	}
	if main > crashLag+1 {
		b.Drop = []mvcc.Drop{{Rev: rev(main-crashLag, 0)}}
	}
	return b
}

// crashDefrags is the value of crashChildEnv for a child that also defragments all the time.
const crashDefrags = "defragment"

// crashChild prints each durable index. It ends by being killed.
func crashChild() {
	opts := testOptions()
	opts.CommitInterval, opts.CommitOps = time.Millisecond, 100
	opts.MaxPendingBytes = 256 << 10
	opts.OnDurable = func(index uint64) { fmt.Println(index) }
	s, err := Open(crashName, opts)
	if err == nil && os.Getenv(crashChildEnv) == crashDefrags {
		go func() {
			for {
				if err := s.Defragment(context.Background()); err != nil {
					fmt.Println("error:", err)
					os.Exit(1)
				}
			}
		}()
	}
	for i := uint64(1); err == nil; i++ {
		if i == 1 {
			i = s.Durable() + 1
		}
		err = s.Apply(crashEntry(i))
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

func TestKilledProcessLeavesAPrefix(t *testing.T) { killOften(t, "1") }

func TestKilledProcessThatDefragmentsLeavesAPrefix(t *testing.T) { killOften(t, crashDefrags) }

func killOften(t *testing.T, mode string) {
	t.Helper()
	rng := newRand(t)
	path := filepath.Join(t.TempDir(), crashName)
	var last uint64
	for range 4 {
		durable := runAndKill(t, mode, path, 1+rng.IntN(12), time.Duration(rng.IntN(3000))*time.Microsecond)
		s := open(t, path, testOptions())
		index := s.Durable()
		require.GreaterOrEqual(t, index, durable, "what was reported durable is gone")
		require.Greater(t, index, last, "the child got nowhere")
		last = index
		requirePrefix(t, s, index)
		require.NoFileExists(t, path+copySuffix, "a copy was left behind")
		require.NoError(t, s.Close(t.Context()))
	}
}

// runAndKill runs the child until it has reported some commits and a little
// longer, kills it, and returns the last index it reported.
func runAndKill(t *testing.T, mode, path string, commits int, longer time.Duration) (durable uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self, "-test.run=^$")
	cmd.Env = append(os.Environ(), crashChildEnv+"="+mode)
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		durable, err = strconv.ParseUint(lines.Text(), 10, 64)
		require.NoError(t, err, "the child says %q", lines.Text())
		if n == commits {
			time.AfterFunc(longer, func() { _ = cmd.Process.Kill() })
		}
	}
	require.ErrorContains(t, cmd.Wait(), "killed")
	return durable
}

// requirePrefix checks that a file holds exactly entries 1 to index.
func requirePrefix(t *testing.T, s *Store, index uint64) {
	t.Helper()
	want := map[string]string{}
	for i := uint64(1); i <= index; i++ {
		b := crashEntry(i)
		for _, w := range b.Writes {
			want[string(mvcc.AppendBucketKey(nil, w.Rev, false))] = fmt.Sprintf("%s=%s@%d", w.KV.Key, w.KV.Value, w.Rev.Main)
		}
		for _, d := range b.Drop {
			delete(want, string(mvcc.AppendBucketKey(nil, d.Rev, false)))
		}
	}
	r, err := s.Reader()
	require.NoError(t, err)
	defer r.Close()
	got := content(t, r)
	require.Len(t, got, len(want))
	for k, v := range want {
		if got[k] != v {
			t.Fatalf("revision %x holds %q, not %q", k, got[k], v)
		}
	}
	require.NoError(t, s.ForEach(OwnPrefix+"crash", func(_, v []byte) error {
		require.Equal(t, index, binary.BigEndian.Uint64(v))
		return nil
	}))
	meta, err := s.Meta()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{index, 1 + index/1000}, [2]uint64{meta.Index, meta.Term})
}
