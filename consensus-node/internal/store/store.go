package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Store is an open database. Apply and Install are for one goroutine at a
// time, all other methods for any.
type Store struct {
	path string
	opts Options

	view       atomic.Pointer[view] // nil once closed
	generation atomic.Uint64
	durable    atomic.Uint64
	turn       atomic.Int64 // see Turn
	bytes      atomic.Int64 // uncommitted
	size       atomic.Int64
	sizeInUse  atomic.Int64
	sizeMax    atomic.Int64

	// Of the goroutine that calls Apply and Install.
	lastRev mvcc.Revision

	// commitMu is held while a commit or an install is under way, and at the end of a defragmentation.
	commitMu sync.Mutex
	notes    *notes // what commits change while the file is copied, nil if it is not

	// copying holds a token while a Defragment is at work.
	copying chan struct{}
	// onStep, if a test has set it, is told how far a Defragment is.
	onStep func(step string)

	// mu guards what follows. It is held for moments, never across I/O.
	mu      sync.Mutex
	file    *file
	base    *base
	frozen  *generation // being committed, nil if none is
	cur     *generation
	applied uint64
	seq     uint64 // batches taken
	done    uint64 // batches committed
	urgent  uint64 // commit up to this batch at once
	closing bool
	err     error         // what ended the Store
	changed chan struct{} // closed and made anew when done, closing or err changes

	kick    chan struct{} // wakes the committer to look again
	stopped chan struct{} // closed when the committer has ended
}

// Open opens the database at path and makes one if there is none. The caller
// closes it. Errors, wrapped with the path: ErrInUse, ErrForeign, ErrFormat,
// ErrCorrupt, and those of the os package. After an error nothing is changed.
func Open(path string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	// A relative path would change its meaning with the working directory.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	f, err := openFile(path, opts, true)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = createFile(path, opts)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{
		path: path, opts: opts, cur: newGeneration(0, 0),
		changed: make(chan struct{}), kick: make(chan struct{}, 1), stopped: make(chan struct{}),
		copying: make(chan struct{}, 1),
	}
	if err := removeStale(path + copySuffix); err != nil {
		f.release()
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	if err := s.start(f); err != nil {
		f.release()
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	go s.run()
	return s, nil
}

// start makes f the Store's file.
func (s *Store) start(f *file) error {
	b, last, err := adopt(f, 1)
	if err != nil {
		return err
	}
	s.use(f, b, last)
	return nil
}

// use makes f, with its base and last revision, what the Store works on. The
// caller holds mu or is alone.
func (s *Store) use(f *file, b *base, last mvcc.Revision) {
	s.file, s.base, s.lastRev, s.applied = f, b, last, b.meta.Index
	s.durable.Store(b.meta.Index)
	s.generation.Store(b.generation)
	s.measure(b)
	s.sizeMax.Store(f.sizeMax())
	s.publish()
}

// adopt reads what the Store must know of a file that it takes over.
func adopt(f *file, generation uint64) (b *base, last mvcc.Revision, err error) {
	// Only the end of a write transaction makes bbolt count its free pages.
	tx, err := f.db.Begin(true)
	if err != nil {
		return nil, last, err
	}
	if err := tx.Rollback(); err != nil {
		return nil, last, err
	}
	if b, err = openBase(f, generation); err != nil {
		return nil, last, err
	}
	if last, err = b.last(); err != nil {
		b.release()
		return nil, last, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return b, last, nil
}

// measure sets the sizes. Pages that were freed but wait for a Reader to close
// count as free: the present content does not need them.
func (s *Store) measure(b *base) {
	size := b.tx.Size()
	stats := b.file.db.Stats()
	s.size.Store(size)
	s.sizeInUse.Store(size - int64(stats.FreePageN+stats.PendingPageN)*int64(b.file.db.Info().PageSize))
}

// publish lets Readers see the present state. The caller holds mu.
func (s *Store) publish() {
	v := &view{base: s.base, cur: s.cur.segment, index: s.applied}
	if s.frozen != nil {
		v.frozen = s.frozen.segment
	}
	s.view.Store(v)
}

// broadcast wakes all that wait for a change. The caller holds mu.
func (s *Store) broadcast() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Apply takes what an entry changes. When it returns, each Reader opened
// afterwards sees it; it is committed later. It blocks while Pressure is 1 or
// more. Errors: ErrBatch for a batch that breaks the rules, of which nothing
// is taken; ErrClosed; what ended the Store.
func (s *Store) Apply(b Batch) error {
	// Reading applied needs no lock here: only this goroutine changes it.
	if err := b.check(s.applied, s.lastRev); err != nil {
		return err
	}
	encoded := b.encode()

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoom(); err != nil {
		return err
	}
	g := s.cur
	first := g.seq == 0
	if first {
		g.since = time.Now()
	}
	s.seq++
	g.seq, s.applied = s.seq, b.Index
	s.bytes.Add(int64(g.add(&b, encoded)))
	if n := len(b.Writes); n > 0 {
		s.lastRev = b.Writes[n-1].Rev
	}
	s.publish()
	if first || s.full(g) {
		s.wake()
	}
	return nil
}

// waitForRoom waits, without mu, until something may be taken.
func (s *Store) waitForRoom() error {
	for {
		switch {
		case s.err != nil:
			return s.err
		case s.closing:
			return ErrClosed
		case s.Pressure() < 1:
			return nil
		}
		changed := s.changed
		s.wake()
		s.mu.Unlock()
		<-changed
		s.mu.Lock()
	}
}

func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // it will look anyway
	}
}

// Durable returns the index up to which entries are in the fsynced file. The
// log must keep all above it.
func (s *Store) Durable() uint64 { return s.durable.Load() }

// Generation counts the commits, installs and defragmentations.
func (s *Store) Generation() uint64 { return s.generation.Load() }

// Pressure is how much of MaxPendingBytes is in use; from 1 on Apply blocks.
func (s *Store) Pressure() float64 {
	return float64(s.bytes.Load()) / float64(s.opts.MaxPendingBytes)
}

// Size returns the size of the database in bytes as of the last commit.
func (s *Store) Size() int64 { return s.size.Load() }

// SizeInUse returns Size without the free pages: the dbSizeInUse of etcd's Status.
func (s *Store) SizeInUse() int64 { return s.sizeInUse.Load() }

// Pending returns about how many bytes wait to be committed.
func (s *Store) Pending() int64 { return s.bytes.Load() }

// SizeMax returns what Size must stay below, in bytes, so that what is under way still fits into the memory map: three
// quarters of it.
func (s *Store) SizeMax() int64 { return s.sizeMax.Load() }

// Path returns where the file is.
func (s *Store) Path() string { return s.path }
