package watchsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

const clusterID = 0xc1

// keysMax is how many keys there are.
const keysMax = 12

// change is one event as the model knows it.
type change struct {
	key      string
	deleted  bool
	kv, prev []byte // encoded; prev nil: there was none
	prevMod  int64
}

// world is the model of the consensus tier: one history, which each node shows as far as it has applied it.
type world struct {
	mu      sync.Mutex
	rng     *rand.Rand
	changed chan struct{}

	history [][]change // of revision i
	now     map[string]*mvccpb.KeyValue
	// over is where the value that a key got at a revision was overwritten.
	over    map[keyAt]int64
	values  map[keyAt][]byte
	compact int64
	leader  uint64 // 0: none
	term    uint64
	nodes   map[uint64]*node
}

type keyAt struct {
	key string
	mod int64
}

func newWorld(seed uint64) *world {
	return &world{
		rng: rand.New(rand.NewPCG(seed, 1)), changed: make(chan struct{}), history: make([][]change, 2),
		now: map[string]*mvccpb.KeyValue{}, over: map[keyAt]int64{}, values: map[keyAt][]byte{}, term: 1, nodes: map[uint64]*node{},
	}
}

// do changes the world under its lock and wakes everybody.
func (w *world) do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) head() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.history)) - 1
}

func (w *world) compacted() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.compact
}

// write makes one revision of chance, if there is a leader.
func (w *world) write() {
	w.do(func() {
		if w.leader == 0 {
			return
		}
		revision := int64(len(w.history))
		size := 20
		switch n := w.rng.IntN(200); {
		case n == 0:
			size = 700 << 10
		case n < 10:
			size = 60 << 10
		}
		count := 1
		if w.rng.IntN(4) == 0 {
			count = 1 + w.rng.IntN(6)
		}
		var changes []change
		for _, i := range w.rng.Perm(keysMax)[:count] {
			changes = append(changes, w.set(fmt.Sprintf("k%02d", i), revision, size))
		}
		w.history = append(w.history, changes)
		for _, n := range w.nodes {
			if n.up && (!n.lags || n.id == w.leader) {
				n.applied = revision
			}
		}
	})
}

// set puts or deletes one key; the caller holds the lock.
func (w *world) set(key string, revision int64, size int) change {
	c := change{key: key}
	before := w.now[key]
	kv := &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}
	if before != nil {
		c.prev, c.prevMod = encode(before), before.ModRevision
		w.over[keyAt{key, before.ModRevision}] = revision
	}
	if before != nil && w.rng.IntN(5) == 0 {
		c.deleted = true
		delete(w.now, key)
	} else {
		kv.Value = []byte(fmt.Sprint(revision, strings.Repeat("v", w.rng.IntN(size))))
		kv.CreateRevision, kv.Version = revision, 1
		if before != nil {
			kv.CreateRevision, kv.Version = before.CreateRevision, before.Version+1
		}
		w.now[key] = kv
		w.values[keyAt{key, revision}] = encode(kv)
	}
	c.kv = encode(kv)
	return c
}

func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// revisions gives (from, to] as a node tells them, in some ranges; previous values may or may not be at hand. The caller holds
// the lock.
func (w *world) revisions(from, to int64, ranges []*consensusv1.KeyRange) []*feedv1.Revision {
	var list []*feedv1.Revision
	for r := max(from+1, 2); r <= to; r++ {
		revision := &feedv1.Revision{Revision: r}
		for _, c := range w.history[r] {
			if len(ranges) > 0 && !slices.ContainsFunc(ranges, func(k *consensusv1.KeyRange) bool {
				return inRange(c.key, string(k.GetKey()), string(k.GetRangeEnd()))
			}) {
				continue
			}
			event := &feedv1.Event{Key: []byte(c.key), Deleted: c.deleted, Kv: c.kv, PreviousModRevision: c.prevMod}
			if c.prev != nil && w.rng.IntN(3) > 0 && r > w.compact {
				event.PreviousKv = c.prev
			}
			revision.Events = append(revision.Events, event)
		}
		if len(revision.Events) > 0 {
			list = append(list, revision)
		}
	}
	return list
}

func inRange(key, from, end string) bool {
	switch end {
	case "":
		return key == from
	case "\x00":
		return key >= from
	}
	return key >= from && key < end
}

// previous gives the value of a key at exactly a revision, nil if it is compacted.
func (w *world) previous(key string, mod int64) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := keyAt{key, mod}
	if over, ok := w.over[at]; ok && over <= w.compact {
		return nil
	}
	return w.values[at]
}

// compactSome compacts to a revision that is not long past.
func (w *world) compactSome() {
	w.do(func() {
		if w.leader != 0 {
			w.compact = max(w.compact, int64(len(w.history))-1-w.rng.Int64N(400))
		}
	})
}

// elect makes another node the leader, or says that there is none.
func (w *world) elect(leader uint64) {
	w.do(func() {
		w.leader = leader
		if leader != 0 {
			w.term++
			w.nodes[leader].applied = int64(len(w.history)) - 1
		}
	})
}
