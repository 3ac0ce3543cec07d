package mvcc

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
)

// Revision names one change: Main counts the write requests that changed
// something, Sub the changes within one, from 0. A new store is at Main 1 and
// the first change is 2_0, as in etcd.
type Revision struct{ Main, Sub int64 }

// Compare orders revisions by Main, then Sub: -1, 0 or 1.
func (r Revision) Compare(o Revision) int {
	if c := cmp.Compare(r.Main, o.Main); c != 0 {
		return c
	}
	return cmp.Compare(r.Sub, o.Sub)
}

// Less says whether r comes before o.
func (r Revision) Less(o Revision) bool { return r.Compare(o) < 0 }

const (
	bucketKeyLen  = 17 // main, big-endian | '_' | sub, big-endian
	tombstoneMark = 't'
)

// ErrBucketOrder is returned, wrapped, for a "key" bucket that no history can
// have left behind: revisions out of order or missing, or values at odds with
// their revision.
var ErrBucketOrder = errors.New("mvcc: revision bucket is damaged")

// ErrBucketKey is returned for bytes that are no key of etcd's "key" bucket.
var ErrBucketKey = errors.New("mvcc: malformed key of the revision bucket")

// AppendBucketKey appends the bytes under which a change is stored in etcd's
// "key" bucket: 17 bytes, and a trailing 't' for a tombstone. Their byte order
// is the order of revisions.
func AppendBucketKey(dst []byte, rev Revision, tombstone bool) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev.Main))
	dst = append(dst, '_')
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev.Sub))
	if tombstone {
		dst = append(dst, tombstoneMark)
	}
	return dst
}

// ParseBucketKey is the reverse of AppendBucketKey. It returns ErrBucketKey
// for anything that AppendBucketKey could not have made.
func ParseBucketKey(b []byte) (rev Revision, tombstone bool, err error) {
	switch {
	case len(b) == bucketKeyLen+1 && b[bucketKeyLen] == tombstoneMark:
		tombstone = true
	case len(b) != bucketKeyLen:
		return Revision{}, false, ErrBucketKey
	}
	rev.Main = int64(binary.BigEndian.Uint64(b))
	rev.Sub = int64(binary.BigEndian.Uint64(b[9:]))
	if b[8] != '_' || rev.Main < 0 || rev.Sub < 0 {
		return Revision{}, false, ErrBucketKey
	}
	return rev, tombstone, nil
}

// sequence checks that a run of changes has no hole: above the compact
// revision every main revision has changes, numbered from sub revision 0.
type sequence struct{ at Revision }

// sequenceFrom starts a run whose first change is that of main revision first.
func sequenceFrom(first int64) sequence { return sequence{Revision{Main: first - 1}} }

// add takes the next change; it returns ErrBucketOrder, wrapped, for a hole.
func (s *sequence) add(rev Revision) error {
	if rev != (Revision{s.at.Main, s.at.Sub + 1}) && rev != (Revision{Main: s.at.Main + 1}) {
		return fmt.Errorf("%w: %d_%d follows %d_%d", ErrBucketOrder, rev.Main, rev.Sub, s.at.Main, s.at.Sub)
	}
	s.at = rev
	return nil
}

// end checks that the run came as far as main revision last.
func (s *sequence) end(last int64) error {
	if s.at.Main < last {
		return fmt.Errorf("%w: revision %d is missing", ErrBucketOrder, s.at.Main+1)
	}
	return nil
}
