package node

import (
	"sync/atomic"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// View is the replicated state as of one applied index together with a reader that holds its values. It is shared by
// everyone who acquired it; Release gives it back.
type View struct {
	*apply.View
	// Values reads what the view's index names.
	Values Reader
	refs   atomic.Int64
}

func newView(state *apply.View, values Reader) *View {
	v := &View{View: state, Values: values}
	v.refs.Store(1)
	return v
}

// Hash gives HashKV up to a revision, 0 being the newest. Errors: those of mvcc's Hash, and what reading the database met.
func (v *View) Hash(revision int64) (mvcc.KVHash, error) {
	var damage error
	hash, err := v.KV.Hash(revision, v.Values.Stored(&damage))
	if err == nil {
		err = damage
	}
	return hash, err
}

// acquire takes a reference unless the last one has gone.
func (v *View) acquire() bool {
	for {
		n := v.refs.Load()
		if n == 0 {
			return false
		}
		if v.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives the view back; it must not be used afterwards.
func (v *View) Release() {
	if v.refs.Add(-1) == 0 {
		v.Values.Close()
	}
}
