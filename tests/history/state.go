package history

import (
	"hash/fnv"
	"slices"
	"strings"
)

// State is the key space at a revision. It never changes.
type State struct {
	Revision int64
	kvs      []KV // by key
	hash     uint64
}

// Empty is the key space of a new cluster.
func Empty() *State { return &State{Revision: 1} }

// Get is one key.
func (s *State) Get(key string) (KV, bool) {
	i, ok := s.find(key)
	if !ok {
		return KV{}, false
	}
	return s.kvs[i], true
}

func (s *State) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.kvs, key, func(kv KV, key string) int { return strings.Compare(kv.Key, key) })
}

// Range is the keys of [key, end), or key alone. The caller must not change them.
func (s *State) Range(key, end string) []KV {
	from, found := s.find(key)
	if end == "" {
		if !found {
			return nil
		}
		return s.kvs[from : from+1]
	}
	if end == "\x00" { // everything from key on
		return s.kvs[from:]
	}
	to, _ := s.find(end)
	return s.kvs[from:max(from, to)]
}

// OfLease is the keys that hang on a lease.
func (s *State) OfLease(id int64) (out []string) {
	for _, kv := range s.kvs {
		if kv.LeaseID == id {
			out = append(out, kv.Key)
		}
	}
	return out
}

// hashOf makes the state's hash the sum of its keys', so that a change costs what it changes.
func hashOf(kv KV) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kv.Key))
	return h.Sum64()*31 + uint64(kv.Mod)*1099511628211
}

// edit is a state in the making.
type edit struct {
	State
	owned bool
}

func (e *edit) own() {
	if !e.owned {
		e.kvs, e.owned = slices.Clone(e.kvs), true
	}
}

func (e *edit) put(a Action, revision int64) {
	kv := KV{Key: a.Key, Value: a.Value, Create: revision, Mod: revision, Version: 1, LeaseID: a.Lease}
	i, found := e.find(a.Key)
	e.own()
	if found {
		kv.Create, kv.Version = e.kvs[i].Create, e.kvs[i].Version+1
		e.hash -= hashOf(e.kvs[i])
		e.kvs[i] = kv
	} else {
		e.kvs = slices.Insert(e.kvs, i, kv)
	}
	e.hash += hashOf(kv)
}

func (e *edit) remove(key string) bool {
	i, found := e.find(key)
	if !found {
		return false
	}
	e.own()
	e.hash -= hashOf(e.kvs[i])
	e.kvs = slices.Delete(e.kvs, i, i+1)
	return true
}

func (c Compare) holds(s *State) bool {
	kv, _ := s.Get(c.Key)
	switch c.Target {
	case CompareValue:
		return kv.Mod != 0 && kv.Value == c.Value
	case CompareMod:
		return kv.Mod == c.Number
	case CompareCreate:
		return kv.Create == c.Number
	default:
		return kv.Version == c.Number
	}
}

// Apply carries out a request as etcd's API says: the next state, and the answer. A request that changes nothing gives the
// state itself.
func (s *State) Apply(r *Request) (*State, Response) {
	out := Response{Succeeded: true}
	for _, c := range r.Compares {
		out.Succeeded = out.Succeeded && c.holds(s)
	}
	actions := r.Then
	if !out.Succeeded {
		actions = r.Else
	}
	e, changed := edit{State: *s}, false
	for _, a := range actions {
		var result Result
		switch a.Kind {
		case Range:
			result.KVs = e.Range(a.Key, a.End)
			if e.owned { // the next action may write here
				result.KVs = slices.Clone(result.KVs)
			}
			result.Count = int64(len(result.KVs))
		case Put:
			if kv, ok := e.Get(a.Key); ok && a.Prev {
				result.KVs = []KV{kv}
			}
			e.put(a, s.Revision+1)
			changed = true
		case Delete:
			gone := slices.Clone(e.Range(a.Key, a.End))
			for _, kv := range gone {
				e.remove(kv.Key)
				changed = true
			}
			result.Count = int64(len(gone))
			if a.Prev {
				result.KVs = gone
			}
		}
		out.Results = append(out.Results, result)
	}
	if !changed {
		out.Revision = s.Revision
		return s, out
	}
	e.Revision++
	out.Revision = e.Revision
	return &e.State, out
}
