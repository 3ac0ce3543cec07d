package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Readers come and go on their own while entries are applied and committed and
// the file is replaced. Entry i decides what a Reader of index i sees, whatever
// file it comes from.
func TestReadersBesideCommitsAndInstalls(t *testing.T) {
	dir := t.TempDir()
	source := open(t, filepath.Join(dir, "source"), testOptions())
	opts := testOptions()
	opts.CommitInterval, opts.CommitOps = time.Millisecond, 30
	s := open(t, filepath.Join(dir, "db"), opts)

	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			var last, generation uint64
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, err := s.Reader()
				if err == nil {
					if r.Index() < last || r.Generation() < generation {
						err = fmt.Errorf("back from %d to %d", last, r.Index())
					}
					last, generation = r.Index(), r.Generation()
					err = errors.Join(err, seesEntry(r))
					r.Close()
				}
				if err != nil {
					t.Errorf("reader at index %d: %v", last, err)
					return
				}
			}
		})
	}
	i, sourceAt := uint64(1), uint64(1)
	for range 5 {
		for target := i + 150; i < target; i++ {
			require.NoError(t, s.Apply(crashEntry(i)))
		}
		for ; sourceAt < i+50; sourceAt++ {
			require.NoError(t, source.Apply(crashEntry(sourceAt)))
		}
		path, image := imageFile(t, source)
		require.NoError(t, s.Install(path))
		i = image.Index + 1
	}
	close(stop)
	group.Wait()
	requirePrefix(t, s, i-1)
}

// seesEntry checks the newest and the dropped end of what a Reader shows.
func seesEntry(r *Reader) error {
	newest := int64(r.Index()) + 1
	if newest == 1 {
		return nil
	}
	if kv, err := r.Value(rev(newest, 0)); err != nil || kv.ModRevision != newest {
		return fmt.Errorf("the newest revision %d: %v, %w", newest, kv, err)
	}
	if _, err := r.Value(rev(newest+1, 0)); !errors.Is(err, ErrNoRevision) {
		return fmt.Errorf("a revision to come: %w", err)
	}
	if gone := newest - crashLag; gone > 1 {
		if _, err := r.Value(rev(gone, 0)); !errors.Is(err, ErrNoRevision) {
			return fmt.Errorf("dropped revision %d: %w", gone, err)
		}
		if _, err := r.Value(rev(gone+1, 0)); err != nil {
			return fmt.Errorf("the oldest revision: %w", err)
		}
	}
	return nil
}
