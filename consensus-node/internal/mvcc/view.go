package mvcc

import (
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Values gives the key-value that was stored under a revision, from the
// database or from what is not committed yet. The result is shared: neither
// side changes it afterwards. An error means that storage is in trouble, also
// when the revision is not there, since the index knows that it must be.
type Values interface {
	Value(rev Revision) (*mvccpb.KeyValue, error)
}

// View is the key space as of one revision of a State, immutable and safe for
// use from any goroutine.
type View struct{ snapshot }

// Revision returns the newest main revision that the view holds.
func (v *View) Revision() int64 { return v.rev }

// CompactRevision returns the revision of the last compaction: reads below it
// fail. It is -1 if there never was one, as etcd has it.
func (v *View) CompactRevision() int64 { return v.compact }

// Keys returns the number of keys that exist at Revision.
func (v *View) Keys() int64 { return v.live }

// snapshot is the part that reads need, common to a View and to a State in
// the midst of a write.
type snapshot struct {
	tree    *tree
	rev     int64
	compact int64
	live    int64
}

// readRevision returns the revision that a request for rev reads, by etcd's
// rules: 0 and below mean the newest.
func (s *snapshot) readRevision(rev int64) (int64, error) {
	if rev > s.rev {
		return 0, rpctypes.ErrGRPCFutureRev
	}
	if rev <= 0 {
		rev = s.rev
	}
	if rev < s.compact {
		return 0, rpctypes.ErrGRPCCompacted
	}
	return rev, nil
}

// load reads the value of a revision and says which one if that fails.
func load(vals Values, rev Revision) (*mvccpb.KeyValue, error) {
	kv, err := vals.Value(rev)
	if err != nil {
		return nil, loadError(rev, err)
	}
	if kv == nil {
		return nil, loadError(rev, errors.New("no value"))
	}
	return kv, nil
}

func loadError(rev Revision, err error) error {
	return fmt.Errorf("mvcc: reading revision %d_%d: %w", rev.Main, rev.Sub, err)
}
