package store

import (
	"fmt"
	"os"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Install puts the image in the file at path, which must be on the same file
// system and whole, in the place of the database. What is pending is dropped:
// the image holds it. Readers and Images opened before go on reading the old
// file, which is gone with the last of them. It is called by the goroutine that
// calls Apply.
//
// Until the file has its new name an error leaves all as it was, and the file
// where it was: ErrForeign, ErrFormat, ErrCorrupt, ErrInUse, ErrStale if it is
// not ahead of what was applied, ErrClosed, and those of the os package. A
// failure after that ends the Store.
func (s *Store) Install(path string) error {
	f, err := openFile(path, s.opts, false)
	if err != nil {
		return fmt.Errorf("install image: %w", err)
	}
	if err := s.install(path, f); err != nil {
		f.release()
		return fmt.Errorf("install image: %w", err)
	}
	return nil
}

func (s *Store) install(path string, f *file) error {
	if err := syncFile(path); err != nil {
		return err
	}
	s.commitMu.Lock() // no commit is under way, so nothing is frozen
	defer s.commitMu.Unlock()
	if err := s.mayInstall(); err != nil {
		return err
	}
	b, last, err := adopt(f, s.generation.Load()+1)
	if err != nil {
		return err
	}
	if b.meta.Index <= s.applied { // which only this goroutine changes
		b.release()
		return fmt.Errorf("%w: index %d, applied %d", ErrStale, b.meta.Index, s.applied)
	}
	if err := os.Rename(path, s.path); err != nil {
		b.release()
		return err
	}
	if err := syncDir(s.path); err != nil {
		b.release()
		err = fmt.Errorf("sync directory of %s: %w", s.path, err)
		s.fail(err)
		return err
	}
	s.replaceFile(f, b, last)
	s.opts.OnDurable(b.meta.Index)
	return nil
}

func (s *Store) mayInstall() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.closing {
		return ErrClosed
	}
	return s.err
}

// replaceFile publishes the new file and forgets what was pending.
func (s *Store) replaceFile(f *file, b *base, last mvcc.Revision) {
	s.mu.Lock()
	oldFile, oldBase := s.file, s.base
	s.bytes.Add(-int64(s.cur.bytes))
	s.cur, s.done = newGeneration(0, 0), s.seq
	s.use(f, b, last)
	s.broadcast()
	s.mu.Unlock()
	oldBase.release()
	oldFile.release()
}
