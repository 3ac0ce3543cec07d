package mvcc

import (
	"fmt"
	"hash"
	"hash/crc32"
	"iter"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// bucketName goes into the hash first, as in etcd.
const bucketName = "key"

// KVHash is what HashKV answers.
type KVHash struct {
	Hash            uint32
	CompactRevision int64
	Revision        int64 // up to which changes went into the hash
}

// Hash returns etcd's HashKV (CRC-32C over the "key" bucket) of the changes up
// to revision rev; 0 means the newest. stored yields keys and values of the
// bucket in key order, at least those that the view's index holds; more do no
// harm: those above rev and those that compaction has yet to drop are left out,
// so that nodes agree whatever they have already dropped.
//
// Errors: ErrGRPCCompacted, ErrGRPCFutureRev, ErrBucketKey, and ErrBucketOrder
// for changes that stored should have and does not.
func (v *View) Hash(rev int64, stored iter.Seq2[[]byte, []byte]) (KVHash, error) {
	switch {
	case rev > 0 && rev < v.compact:
		return KVHash{}, rpctypes.ErrGRPCCompacted
	case rev > v.rev:
		return KVHash{}, rpctypes.ErrGRPCFutureRev
	case rev == 0:
		rev = v.rev
	}
	h := hasher{
		sum: crc32.New(crc32.MakeTable(crc32.Castagnoli)), compact: v.compact,
		rev: rev, kept: v.kept(rev), seq: sequenceFrom(max(v.compact+1, 2)),
	}
	h.sum.Write([]byte(bucketName))
	for k, val := range stored {
		if err := h.add(k, val); err != nil {
			return KVHash{}, err
		}
	}
	if err := h.end(); err != nil {
		return KVHash{}, err
	}
	return KVHash{Hash: h.sum.Sum32(), CompactRevision: v.compact, Revision: rev}, nil
}

type hasher struct {
	sum          hash.Hash32
	compact, rev int64
	kept         []Revision // up to compact, those still to come
	seq          sequence   // above compact
}

func (h *hasher) add(key, value []byte) error {
	rev, _, err := ParseBucketKey(key)
	if err != nil {
		return err
	}
	switch {
	case rev.Main > h.rev:
		return nil
	case rev.Main > h.compact:
		err = h.seq.add(rev)
	case len(h.kept) == 0 || rev.Less(h.kept[0]):
		return nil
	case rev == h.kept[0]:
		h.kept = h.kept[1:]
	default:
		err = h.end()
	}
	if err != nil {
		return err
	}
	h.sum.Write(key)
	h.sum.Write(value)
	return nil
}

// end finds what should have come by now.
func (h *hasher) end() error {
	if len(h.kept) > 0 {
		return fmt.Errorf("%w: %d_%d is missing", ErrBucketOrder, h.kept[0].Main, h.kept[0].Sub)
	}
	return h.seq.end(h.rev)
}

// kept returns, in order, the revisions up to the compact revision that go
// into a hash up to rev: for each key what it holds at rev. If no key exists
// at rev, etcd leaves nothing out, which is then what a finished compaction
// keeps but for tombstones.
func (v *View) kept(rev int64) []Revision {
	if rev < 0 {
		return nil // etcd lets it pass, and nothing is up to it
	}
	kept, exist := v.heldAt(rev)
	if !exist {
		kept, _ = v.heldAt(v.compact)
	}
	slices.SortFunc(kept, Revision.Compare)
	return kept
}

// heldAt returns what keys hold at rev and got by the last compaction, and
// whether any key exists at rev at all. A key that the change at rev deleted
// and put again counts for none, as in etcd, whose index looks at the first of
// a key's lives that had not ended before rev.
func (v *View) heldAt(rev int64) (held []Revision, exist bool) {
	v.tree.Scan(func(e entry) bool {
		h := e.slot.Load()
		if r, ok := h.at(rev); ok {
			exist = exist || !h.ends(rev)
			if r.rev.Main <= v.compact {
				held = append(held, r.rev)
			}
		}
		return true
	})
	return held, exist
}
