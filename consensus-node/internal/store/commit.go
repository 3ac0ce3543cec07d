package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// fillPercent packs the revision bucket tight: it is only appended to.
const fillPercent = 0.9

// slowCommit is when a commit deserves a line in the log.
const slowCommit = time.Second

// capacities of a new generation's records and rows: a guess from the last one, so that
// they are seldom copied while they grow.
const (
	recordsMin = 64
	recordsMax = 16 << 10
)

func newGeneration(lastRecords, lastRows int) *generation {
	n := min(max(lastRecords, recordsMin), recordsMax)
	return &generation{segment: segment{recs: make([]record, 0, n)}, rows: make([]Row, 0, min(lastRows, recordsMax))}
}

// run commits until the Store is closed or fails.
func (s *Store) run() {
	defer close(s.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, end := s.due()
		switch {
		case end:
			return
		case wait <= 0:
			if err := s.commit(); err != nil {
				s.fail(err)
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.kick:
		case <-timer.C:
		}
	}
}

// idle is how long the committer sleeps when it waits for a kick alone.
const idle = time.Hour

// due says how long the committer may still wait, or that it is done.
func (s *Store) due() (wait time.Duration, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.cur
	switch {
	case s.err != nil:
		return 0, true
	case g.seq == 0:
		return idle, s.closing
	case s.closing, s.urgent > s.done, s.full(g):
		return 0, false
	}
	return time.Until(s.slot(g.since)), false
}

// slot is the next moment after one at which a commit by time begins.
func (s *Store) slot(after time.Time) time.Time {
	interval := int64(s.opts.CommitInterval)
	past := (after.UnixNano() - s.turn.Load()) % interval
	if past < 0 { // a clock that has just begun
		past += interval
	}
	return after.Add(time.Duration(interval - past))
}

// SetTurn says that this is the store with that number, from 0, of so many that take the same changes at the same time. As far as their
// clocks agree their commits then begin as far apart as CommitInterval allows, and most of them are free at any time. May be called at
// any time.
func (s *Store) SetTurn(number, of int) {
	s.turn.Store(int64(s.opts.CommitInterval) / int64(max(of, 1)) * int64(number))
}

// Turn is by how much commits begin later than the multiples of CommitInterval.
func (s *Store) Turn() time.Duration { return time.Duration(s.turn.Load()) }

// full says whether a generation is worth a commit by its size alone.
func (s *Store) full(g *generation) bool {
	return g.count >= s.opts.CommitOps || g.bytes >= s.opts.CommitBytes || s.Pressure() >= 1
}

// commit writes all that was applied until now, and publishes it as committed.
func (s *Store) commit() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	g, f := s.cur, s.file
	if g.seq == 0 || s.err != nil { // an install has come first
		defer s.mu.Unlock()
		return s.err
	}
	// The published view stays right: it holds the same records as cur.
	s.frozen, s.cur = g, newGeneration(len(g.recs), len(g.rows))
	s.mu.Unlock()

	start := time.Now()
	times, err := f.write(g)
	if err != nil {
		return fmt.Errorf("commit up to index %d to %s: %w", g.index, s.path, err)
	}
	took := time.Since(start)
	if s.opts.ObserveCommit != nil {
		times.Whole = took
		s.opts.ObserveCommit(times)
	}
	if took >= slowCommit {
		s.opts.Logger.Warn("slow database commit", slog.Duration("took", took),
			slog.Int("operations", g.count), slog.Int("bytes", g.bytes))
	}
	if s.notes != nil {
		s.notes.add(g)
	}
	b, err := openBase(f, s.generation.Load()+1)
	if err != nil {
		return fmt.Errorf("after commit to %s: %w", s.path, err)
	}
	s.replaceBase(b, g)
	s.opts.OnDurable(b.meta.Index)
	return nil
}

// replaceBase publishes b, which holds g.
func (s *Store) replaceBase(b *base, g *generation) {
	// In this order, so that nobody who adds the two up counts g twice.
	s.bytes.Add(-int64(g.bytes))
	s.measure(b)
	s.mu.Lock()
	old := s.base
	s.base, s.frozen, s.done = b, nil, g.seq
	s.durable.Store(b.meta.Index)
	s.generation.Store(b.generation)
	s.publish()
	s.broadcast()
	s.mu.Unlock()
	old.release() // only now: a Reader that misses it finds the new view
}

// fail ends the Store.
func (s *Store) fail(err error) {
	s.opts.Logger.Error("database commit failed", slog.Any("error", err))
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
		s.broadcast()
		s.wake() // the committer, if it is not the one that failed
	}
	s.mu.Unlock()
	if first {
		s.opts.OnFailure(err)
	}
}

// CommitTimes are how long a commit took, and how long bbolt did at parts of it:
// at merging pages, at laying out new ones, and at writing and syncing them.
type CommitTimes struct{ Whole, Rebalance, Spill, Write time.Duration }

// write commits a generation in one transaction, fsynced. It leaves the time
// for the whole to its caller.
func (f *file) write(g *generation) (times CommitTimes, err error) {
	tx, err := f.db.Begin(true)
	if err != nil {
		return times, err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after Commit
	if err := writeRevisions(tx.Bucket([]byte(BucketKey)), &g.segment); err != nil {
		return times, fmt.Errorf("bucket %s: %w", BucketKey, err)
	}
	if err := writeRows(tx, g.rows); err != nil {
		return times, err
	}
	if err := writeProgress(tx.Bucket([]byte(BucketMeta)), g); err != nil {
		return times, fmt.Errorf("bucket %s: %w", BucketMeta, err)
	}
	err = tx.Commit()
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		err = fmt.Errorf("%w: the file has outgrown its memory map, which the next start makes larger", err)
	}
	stats := tx.Stats()
	return CommitTimes{Rebalance: stats.GetRebalanceTime(), Spill: stats.GetSpillTime(), Write: stats.GetWriteTime()}, err
}

// yieldEvery is how many drops or rows the committer does before it lets others have the processor: on few processors a
// commit of ten thousand would be in everybody's way for as long as it takes. Writes it does at once: Apply may be waiting for room.
const yieldEvery = 128

// writeRevisions leaves out what was dropped before it was ever committed.
func writeRevisions(keys *bbolt.Bucket, s *segment) error {
	keys.FillPercent = fillPercent
	var buf [bucketKeyLen + 1]byte
	drops := !s.drops.empty()
	for i := range s.recs {
		r := &s.recs[i]
		if drops && s.drops.has(r.rev) {
			continue
		}
		if err := keys.Put(mvcc.AppendBucketKey(buf[:0], r.rev, r.tombstone), r.data); err != nil {
			return err
		}
	}
	for i, d := range s.drops.sorted() {
		if len(s.recs) > 0 && !d.Rev.Less(s.recs[0].rev) {
			break
		}
		if i%yieldEvery == yieldEvery-1 {
			runtime.Gosched()
		}
		if err := keys.Delete(mvcc.AppendBucketKey(buf[:0], d.Rev, d.Tombstone)); err != nil {
			return err
		}
	}
	return nil
}

// writeRows looks a bucket up once for all rows of it that follow each other, which may be thousands.
func writeRows(tx *bbolt.Tx, rows []Row) error {
	for i := 0; i < len(rows); {
		n := i + 1
		for n < len(rows) && rows[n].Bucket == rows[i].Bucket {
			n++
		}
		bucket, err := tx.CreateBucketIfNotExists([]byte(rows[i].Bucket))
		if err == nil {
			err = writeBucket(bucket, rows[i:n])
		}
		if err != nil {
			return fmt.Errorf("bucket %s: %w", rows[i].Bucket, err)
		}
		i = n
	}
	return nil
}

// writeBucket deletes with one cursor, where bbolt makes a new one for each row.
func writeBucket(bucket *bbolt.Bucket, rows []Row) error {
	cursor := bucket.Cursor()
	for i := range rows {
		r := &rows[i]
		if i%yieldEvery == yieldEvery-1 {
			runtime.Gosched()
		}
		var err error
		if !r.Delete {
			err = bucket.Put(r.Key, r.Value)
		} else if key, _ := cursor.Seek(r.Key); bytes.Equal(key, r.Key) {
			err = cursor.Delete()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeProgress says up to which entry the transaction goes.
func writeProgress(meta *bbolt.Bucket, g *generation) error {
	if g.conf != nil {
		conf, err := encodeConfState(g.conf)
		if err != nil {
			return err
		}
		if err := meta.Put([]byte(keyConfState), conf); err != nil {
			return err
		}
	}
	if g.term > 0 {
		if err := meta.Put([]byte(keyTerm), binary.BigEndian.AppendUint64(nil, g.term)); err != nil {
			return err
		}
	}
	return meta.Put([]byte(keyConsistentIndex), binary.BigEndian.AppendUint64(nil, g.index))
}
