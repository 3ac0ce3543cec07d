package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// imageFile writes an image of s to a new file in the directory of s.
func imageFile(t *testing.T, s *Store) (path string, image *Image) {
	t.Helper()
	image, err := s.Image(t.Context())
	require.NoError(t, err)
	defer image.Close()
	path = filepath.Join(filepath.Dir(s.path), "received")
	f, err := os.Create(path)
	require.NoError(t, err)
	n, err := image.WriteTo(f)
	require.NoError(t, err)
	require.Equal(t, image.Size, n)
	require.NoError(t, f.Close())
	return path, image
}

func TestImageUnderLoad(t *testing.T) {
	opts := testOptions()
	opts.CommitInterval, opts.CommitOps, opts.MaxPendingBytes = time.Millisecond, 50, 64<<10
	s := open(t, filepath.Join(t.TempDir(), "db"), opts)
	stop := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(stop)
	group.Go(func() {
		for i := uint64(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Apply(crashEntry(i)); err != nil {
				t.Errorf("apply %d: %v", i, err)
				return
			}
		}
	})
	waitDurable(t, s, 1)
	for range 4 {
		image, err := s.Image(t.Context())
		require.NoError(t, err)
		waitDurable(t, s, image.Index+20) // the image is of the past when it is written
		var b bytes.Buffer
		_, err = image.WriteTo(&b)
		require.NoError(t, err)
		image.Close()

		path := filepath.Join(t.TempDir(), "db")
		meta, err := CreateFromImage(path, &b)
		require.NoError(t, err)
		require.Equal(t, [2]uint64{image.Index, image.Term}, [2]uint64{meta.Index, meta.Term})
		copied := open(t, path, testOptions())
		requirePrefix(t, copied, image.Index)
		require.NoError(t, copied.Close(t.Context()))
	}
}

// waitDurable waits until the Store has committed up to index.
func waitDurable(t *testing.T, s *Store, index uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Durable() >= index }, waitTime, waitTick)
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	source := open(t, filepath.Join(dir, "source"), testOptions())
	for i := uint64(1); i <= 90; i++ {
		b := crashEntry(i)
		if i == 90 {
			b.ConfState = &raftpb.ConfState{Voters: []uint64{4, 5}}
		}
		require.NoError(t, source.Apply(b))
	}
	path, image := imageFile(t, source)
	require.Equal(t, uint64(90), image.Index)
	require.True(t, proto.Equal(&raftpb.ConfState{Voters: []uint64{4, 5}}, image.ConfState))

	opts := testOptions()
	var told []uint64
	opts.OnDurable = func(index uint64) { told = append(told, index) }
	s := open(t, filepath.Join(dir, "db"), opts)
	for i := uint64(1); i <= 30; i++ {
		require.NoError(t, s.Apply(crashEntry(i)))
		if i == 20 {
			require.NoError(t, s.Flush(t.Context()))
		}
	}
	old := reader(t, s) // of committed and of pending entries
	before := content(t, old)
	require.NoError(t, s.Install(path))

	require.Equal(t, uint64(90), s.Durable())
	require.Equal(t, []uint64{20, 90}, told)
	requirePrefix(t, s, 90)
	require.Equal(t, before, content(t, old), "an old reader sees another file")
	require.Zero(t, s.Pressure())
	require.Greater(t, s.Generation(), old.Generation())
	_, err := os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	// The old file is closed with its last reader.
	oldFile := old.v.base.file
	old.Close()
	<-oldFile.closed
	require.NoError(t, oldFile.err)

	require.NoError(t, s.Apply(crashEntry(91)))
	require.NoError(t, s.Close(t.Context()))
	s = open(t, filepath.Join(dir, "db"), testOptions())
	requirePrefix(t, s, 91)
}

func TestInstallRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "db"), testOptions())
	require.NoError(t, s.Apply(crashEntry(1)))
	path, image := imageFile(t, s)
	generation := s.Generation()
	require.ErrorIs(t, s.Install(path), ErrStale)
	require.NoError(t, os.Truncate(path, image.Size-1))
	require.NoError(t, s.Apply(crashEntry(2)))
	require.ErrorIs(t, s.Install(path), ErrCorrupt)
	require.ErrorIs(t, s.Install(filepath.Join(dir, "none")), fs.ErrNotExist)

	// All goes on as before, and the file is the caller's to remove.
	require.Equal(t, generation, s.Generation())
	require.FileExists(t, path)
	require.NoError(t, s.Flush(t.Context()))
	requirePrefix(t, s, 2)
}

func TestCreateFromImageRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "db"), testOptions())
	require.NoError(t, s.Apply(crashEntry(1)))
	path, _ := imageFile(t, s)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	_, err = CreateFromImage(s.path, bytes.NewReader(whole))
	require.ErrorIs(t, err, fs.ErrExist)
	fresh := filepath.Join(dir, "fresh")
	_, err = CreateFromImage(fresh, bytes.NewReader(whole[:len(whole)-1]))
	require.ErrorIs(t, err, ErrCorrupt)
	broken := errors.New("connection lost")
	_, err = CreateFromImage(fresh, errorReader{broken})
	require.ErrorIs(t, err, broken)
	for _, name := range []string{fresh, fresh + newSuffix} {
		require.NoFileExists(t, name)
	}
	_, err = CreateFromImage(fresh, bytes.NewReader(whole))
	require.NoError(t, err)
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestImageAfterClose(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	image, err := s.Image(t.Context())
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Close(ctx), context.DeadlineExceeded, "the image is still open")
	image.Close()
	image.Close()
	require.NoError(t, s.Close(t.Context()))
	_, err = s.Image(t.Context())
	require.ErrorIs(t, err, ErrClosed)
	_, err = image.WriteTo(nil)
	require.ErrorIs(t, err, ErrClosed)
}
