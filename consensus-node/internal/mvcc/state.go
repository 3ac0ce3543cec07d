package mvcc

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// State is the key space that the writer changes. Its methods are for one
// goroutine at a time; the Views it hands out are for any.
type State struct {
	snapshot
	view  *View // of the present state, nil if none was asked for yet
	sweep sweep
	freed freed
}

// New returns an empty key space at revision 1, never compacted.
func New() *State {
	return &State{snapshot: snapshot{tree: newTree(), rev: 1, compact: -1}, freed: freed{max: freedMax}}
}

// View returns the key space as it is now. It copies nothing; as long as
// nothing changes it returns the same View.
func (s *State) View() *View {
	if s.view == nil {
		s.view = &View{s.snapshot}
		s.view.tree = s.tree.Copy()
	}
	return s.view
}

// Revision returns the main revision of the last change.
func (s *State) Revision() int64 { return s.rev }

// CompactRevision returns the revision of the last compaction, -1 for none.
func (s *State) CompactRevision() int64 { return s.compact }

// Leased calls fn for every key that hangs on a lease, in key order: what a
// lease table needs after a restart.
func (s *State) Leased(fn func(key string, lease int64)) {
	s.tree.Scan(func(e entry) bool {
		if h := e.slot.Load(); h.lease != 0 {
			fn(e.key, h.lease)
		}
		return true
	})
}

// Leases tells which leases exist at this point of the log.
type Leases interface{ Exists(id int64) bool }

// Env is what a write sees besides the State.
type Env struct {
	Values Values
	Leases Leases // nil: there are none
	// SkipReads leaves out of the response what only a client wants to see:
	// the results of ranges and previous key-values. For nodes on which nobody
	// waits for the answer. What is written is the same.
	SkipReads bool
}

// Write is one entry of etcd's "key" bucket: KV encoded, under the bucket key
// of Rev and Tombstone. The KV of a tombstone holds the key alone.
type Write struct {
	Rev       Revision
	Tombstone bool
	KV        *mvccpb.KeyValue
}

// Event is one change as watchers see it.
type Event struct {
	Type mvccpb.Event_EventType
	// Kv is as in etcd's event: of a deletion it holds key and mod revision.
	Kv *mvccpb.KeyValue
	// PrevKv is what the key held before this main revision, if the request had
	// read it anyway; nil says nothing.
	PrevKv *mvccpb.KeyValue
	// Prev is the revision of what the key held before this main revision. It
	// is zero if the key did not exist, and in History also if that is compacted.
	Prev Revision
}

// creates says whether the event makes the key. It has nothing before it then,
// as in etcd, also if the same main revision deleted the key before.
func (e Event) creates() bool {
	return e.Type == mvccpb.Event_PUT && e.Kv.CreateRevision == e.Kv.ModRevision
}

// Proto returns the event in etcd's form, with PrevKv if it is known.
func (e Event) Proto() *mvccpb.Event {
	return &mvccpb.Event{Type: e.Type, Kv: e.Kv, PrevKv: e.PrevKv}
}

// LeaseKey says that a key hangs on a lease.
type LeaseKey struct {
	ID  int64
	Key []byte
}

// Effects is what one write request changed, for the caller to store and
// publish. All slices are in the order of sub revisions and are the caller's.
type Effects struct {
	Revision int64 // of all changes; 0 if there are none
	Writes   []Write
	Events   []Event
	// Detach and Attach are net of what the request did and undid: a key is at
	// most once in each. Detach goes first.
	Detach, Attach []LeaseKey
	// Ops are the operations carried out, of which some changed nothing.
	Ops Ops
}

// Put stores a key-value. The response's header holds the revision.
//
// Errors, in etcd's order: ErrGRPCLeaseNotFound, then ErrGRPCKeyNotFound for
// ignore_value or ignore_lease of a key that does not exist.
func (s *State) Put(req *pb.PutRequest, env Env) (*pb.PutResponse, Effects, error) {
	if err := s.checkPut(req, env.Leases); err != nil {
		return nil, Effects{}, err
	}
	w := s.write(env)
	resp, err := w.put(req)
	if err != nil {
		return nil, Effects{}, err
	}
	return resp, w.finish(), nil
}

// DeleteRange deletes the keys of a range, each under a sub revision in key
// order. Deleting nothing raises no revision.
func (s *State) DeleteRange(req *pb.DeleteRangeRequest, env Env) (*pb.DeleteRangeResponse, Effects, error) {
	w := s.write(env)
	resp, err := w.deleteRange(req)
	if err != nil {
		return nil, Effects{}, err
	}
	return resp, w.finish(), nil
}

// DeleteKeys deletes those of the keys that exist, in one revision and in key
// order: what is left to do when leases are revoked. The caller's slice is not
// changed.
func (s *State) DeleteKeys(keys [][]byte) Effects {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, slices.Compare)
	w := s.write(Env{})
	for _, key := range keys {
		if e, h := find(s.tree, key); h != nil && !h.last.tombstone() {
			w.ops.Deletes++
			w.remove(e, h, nil)
		}
	}
	return w.finish()
}

// checkPut is what must hold of the state before a put, alone or in a Txn.
func (s *snapshot) checkPut(req *pb.PutRequest, leases Leases) error {
	if req.Lease != 0 && (leases == nil || !leases.Exists(req.Lease)) {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	if req.IgnoreValue || req.IgnoreLease {
		h := lookup(s.tree, req.Key)
		if h == nil {
			return rpctypes.ErrGRPCKeyNotFound
		}
		if _, ok := h.at(s.rev); !ok {
			return rpctypes.ErrGRPCKeyNotFound
		}
	}
	return nil
}
