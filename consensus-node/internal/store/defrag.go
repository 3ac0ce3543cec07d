package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// copySuffix names the copy that a Defragment makes. Open removes one that a crash left behind.
const copySuffix = ".defrag"

// How a Defragment gets on.
const (
	// chunkBytes and chunkKeys bound one transaction on the copy: about a millisecond of a processor.
	chunkBytes = 256 << 10
	chunkKeys  = 500
	// chunkRests is how long it rests after a chunk while entries come, as a multiple of what the chunk took; chunkRestMax is the most: what
	// a chunk took is also what it waited for a processor.
	chunkRests   = 3
	chunkRestMax = 12 * time.Millisecond
	// syncBytes is how much goes to the disk at once: a sync of the log waits behind no more.
	syncBytes = 1 << 20
	// A round that copied less than roundBytes is followed by the last one; no more than roundsMax go before it, of which the last few do
	// not rest, lest they never catch up with those who write.
	roundBytes  = 1 << 20
	roundsMax   = 8
	roundsEager = 4
)

// errReplaced says that an Install took the place of the file that was being copied.
var errReplaced = errors.New("the database was replaced while it was copied")

// Defragment writes the database anew, without its free pages, while Apply, commits and Readers go on; for the last few changes and
// the change of files commits wait, and Apply does not. Readers and Images opened before keep the old file, which is gone with the
// last of them. A second call waits for the first. If an Install comes meanwhile it starts again.
//
// It needs room on the disk for a second copy. A crash at any time leaves the old file or the new one, both whole, and at most a copy
// that the next Open removes. What is dropped meanwhile (Batch.Drop) is remembered until the end, at 24 bytes each: the caller
// had better hold compaction back while Defragmenting.
//
// After an error, such as that of ctx, ErrClosed or a full disk, the Store goes on with the old file; the exception is that the new
// name cannot be made durable, which ends the Store like a failed commit.
func (s *Store) Defragment(ctx context.Context) error {
	select {
	case s.copying <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("defragment: %w", ctx.Err())
	}
	defer func() { <-s.copying }()
	began := time.Now()
	if err := s.Flush(ctx); err != nil { // drops that are pending would leave holes in the new file
		return fmt.Errorf("defragment: %w", err)
	}
	for {
		err := s.defragment(ctx)
		switch {
		case err == nil:
			if s.opts.ObserveDefragment != nil {
				s.opts.ObserveDefragment(time.Since(began))
			}
			return nil
		case !errors.Is(err, errReplaced):
			return fmt.Errorf("defragment %s: %w", s.path, err)
		}
	}
}

// OpenReads is how many transactions of the database are open for reading.
func (s *Store) OpenReads() int {
	s.mu.Lock()
	f := s.file
	s.mu.Unlock()
	return f.db.Stats().OpenTxN
}

// Defragmenting tells whether a Defragment is at work.
func (s *Store) Defragmenting() bool { return len(s.copying) > 0 }

// notes are what a copy does not have yet although it has read past it.
type notes struct {
	drops []mvcc.Drop
	// rows are noted from when withRows is set: once the buckets of rows are being copied.
	rows     []Row
	withRows bool
}

func (n *notes) add(g *generation) {
	n.drops = append(n.drops, g.drops.sorted()...)
	if n.withRows {
		n.rows = append(n.rows, g.rows...)
	}
}

// defragmentation is one copy on its way.
type defragmentation struct {
	store *Store
	ctx   context.Context //nolint:containedctx // lives as long as the call
	temp  string
	src   *file // with a reference of its own
	dst   *file
	last  mvcc.Revision // copied up to and with it
}

func (s *Store) defragment(ctx context.Context) (err error) {
	d := &defragmentation{store: s, ctx: ctx, temp: s.path + copySuffix, last: mvcc.Revision{Sub: -1}}
	defer func() { err = d.end(err) }()
	if err := d.begin(); err != nil {
		return err
	}
	if err := d.copyAhead(); err != nil {
		return err
	}
	return d.finish()
}

// begin makes the empty copy; from then on what is dropped is noted.
func (d *defragmentation) begin() error {
	s := d.store
	if err := removeStale(d.temp); err != nil {
		return err
	}
	s.commitMu.Lock()
	err := s.mayInstall()
	if err == nil {
		d.src = s.file
		d.src.acquire()
		s.notes = &notes{}
	}
	s.commitMu.Unlock()
	if err != nil {
		return err
	}
	opts := s.opts
	opts.NoSync = true // until the end, when all of it is synced at once
	d.dst, err = openChecked(d.temp, s.size.Load(), opts)
	return err
}

// end lets the source go, and after an error the copy too.
func (d *defragmentation) end(err error) error {
	s := d.store
	s.commitMu.Lock()
	s.notes = nil
	s.commitMu.Unlock()
	if d.src != nil {
		d.src.release()
	}
	if err == nil {
		return nil
	}
	if d.dst != nil {
		d.dst.release()
	}
	return errors.Join(err, removeStale(d.temp))
}

// copyAhead copies what it can while commits go on: the revisions in rounds, each up to the newest, then the rows.
func (d *defragmentation) copyAhead() error {
	for i := range roundsMax {
		copied, err := d.round(false, i < roundsMax-roundsEager)
		if err != nil {
			return err
		}
		d.step("round")
		if copied < roundBytes {
			break
		}
	}
	if _, err := d.round(true, true); err != nil {
		return err
	}
	d.step("rows")
	// The pages go to the disk before the last sync, for which commits wait.
	return d.dst.db.Sync()
}

// round copies the revisions above d.last as of one transaction, and with rows the other buckets. One that rests makes way for entries.
func (d *defragmentation) round(rows, rests bool) (bytes int, err error) {
	tx, err := d.snapshot(rows)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	if bytes, err = d.copyRevisions(tx, rests); err != nil || !rows {
		return bytes, err
	}
	return bytes, d.copyRows(tx)
}

// snapshot begins a transaction on the source between two commits. With rows they are noted from here on.
func (d *defragmentation) snapshot(rows bool) (*bbolt.Tx, error) {
	s := d.store
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := d.mayGoOn(); err != nil {
		return nil, err
	}
	s.notes.withRows = rows
	return d.src.db.Begin(false)
}

// mayGoOn returns why not. The caller holds commitMu.
func (d *defragmentation) mayGoOn() error {
	if err := d.store.mayInstall(); err != nil {
		return err
	}
	if d.store.file != d.src {
		return errReplaced
	}
	return d.ctx.Err()
}

// finish copies the rest while no commit is under way, and puts the copy in the place of the file.
func (d *defragmentation) finish() error {
	s := d.store
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := d.mayGoOn(); err != nil {
		return err
	}
	start := time.Now()
	if err := d.copyRest(); err != nil {
		return err
	}
	d.step("copied")
	if err := d.dst.db.Sync(); err != nil {
		return err
	}
	d.dst.db.NoSync = s.opts.NoSync
	d.step("synced")
	b, _, err := adopt(d.dst, s.generation.Load()+1)
	if err != nil {
		return err
	}
	if b.meta.Index != s.base.meta.Index {
		b.release()
		return fmt.Errorf("%w: the copy ends at index %d, not %d", ErrCorrupt, b.meta.Index, s.base.meta.Index)
	}
	if err := os.Rename(d.temp, s.path); err != nil {
		b.release()
		return err
	}
	d.step("renamed")
	if err := syncDir(s.path); err != nil {
		b.release()
		err = fmt.Errorf("sync directory of %s: %w", s.path, err)
		s.fail(err)
		return err
	}
	s.swapFile(d.dst, b)
	s.opts.OnDurable(b.meta.Index)
	s.opts.Logger.Debug("database defragmented", "bytes", s.size.Load(), "commits_held", time.Since(start).String())
	return nil
}

// copyRest brings the copy up to the last commit, which the caller keeps the last. The notes have no row older than the last round, so
// they end with what the source holds.
func (d *defragmentation) copyRest() error {
	src, err := d.src.db.Begin(false)
	if err != nil {
		return err
	}
	defer src.Rollback() //nolint:errcheck // it only reads
	if _, err := d.copyRevisions(src, false); err != nil {
		return err
	}
	n := d.store.notes
	tx, err := d.dst.db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after Commit
	if err := dropRevisions(tx.Bucket([]byte(BucketKey)), n.drops); err != nil {
		return err
	}
	if err := writeRows(tx, n.rows); err != nil {
		return err
	}
	// The consistent index, the term and the ConfState are no rows.
	if err := src.Bucket([]byte(BucketMeta)).ForEach(tx.Bucket([]byte(BucketMeta)).Put); err != nil {
		return err
	}
	return tx.Commit()
}

func dropRevisions(keys *bbolt.Bucket, drops []mvcc.Drop) error {
	var buf [bucketKeyLen + 1]byte
	for _, drop := range drops {
		if err := keys.Delete(mvcc.AppendBucketKey(buf[:0], drop.Rev, drop.Tombstone)); err != nil {
			return err
		}
	}
	return nil
}

// swapFile publishes f and its base, which hold what the present ones do. The caller holds commitMu.
func (s *Store) swapFile(f *file, b *base) {
	s.mu.Lock()
	oldFile, oldBase := s.file, s.base
	s.file, s.base = f, b
	s.generation.Store(b.generation)
	s.sizeMax.Store(f.sizeMax())
	s.measure(b)
	s.publish()
	s.mu.Unlock()
	oldBase.release()
	oldFile.release()
}

func (d *defragmentation) step(name string) {
	if d.store.onStep != nil {
		d.store.onStep(name)
	}
}
