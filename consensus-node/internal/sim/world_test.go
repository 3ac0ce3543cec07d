package sim

import (
	"crypto/rand"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

const (
	// tickMoments is the length of a tick while clocks agree. A moment is the time of one step of anything.
	tickMoments = 60
	// proposalTimeout is a packer's, in its own clock, of which one second is one moment.
	proposalTimeout = 20 * tickMoments * 1e9
)

// world is one run.
type world struct {
	seed     uint64
	rng      *mathrand.Rand
	faults   Faults
	mutation mutation
	now      uint64
	steps    uint64
	members  []*machine // by id
	net      *network
	clients  []*client
	check    *checker
	trace    trace
	done     []result
	openDB   func(m *machine) database

	nextFault  uint64
	healed     bool
	nextID     uint64 // of members
	arrivals   int    // members that were added and have no machine yet
	operations uint64
}

// violation is how a run ends that breaks a promise.
type violation struct{ text string }

func (w *world) fail(format string, args ...any) {
	panic(violation{fmt.Sprintf(format, args...)})
}

func (w *world) note(m *machine, k kind, a, b, c uint64) {
	w.trace.add(event{at: w.now, node: m.id, kind: k, a: a, b: b, c: c})
}

func (w *world) noteOf(id uint64, k kind, a, b, c uint64) {
	w.trace.add(event{at: w.now, node: id, kind: k, a: a, b: b, c: c})
}

func (w *world) member(id uint64) *machine {
	i, _ := slices.BinarySearchFunc(w.members, id, func(m *machine, id uint64) int { return int(m.id) - int(id) })
	return w.members[i]
}

// seededReader stands in for the operating system's randomness, from which raft draws its election timeouts and raftnode the ids of
// its reads.
type seededReader struct {
	chance   *mathrand.ChaCha8
	constant bool // a mutation: what ids are made of is the same for ever
}

func (r *seededReader) Read(p []byte) (int, error) {
	if r.constant && len(p) == 8 {
		clear(p)
		return len(p), nil
	}
	return r.chance.Read(p)
}

// randomness puts the seeded reader in the place of the system's and returns how to undo it.
func randomness(seed uint64, constant bool) (undo func()) {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	old := rand.Reader
	rand.Reader = io.Reader(&seededReader{mathrand.NewChaCha8(key), constant})
	return func() { rand.Reader = old }
}

// init makes the first members and starts them.
func (w *world) init(seed uint64, faults Faults, mutation mutation, openDB func(m *machine) database) {
	w.seed, w.rng = seed, mathrand.New(mathrand.NewPCG(seed, 0x73696d))
	w.faults, w.mutation, w.openDB = faults, mutation, openDB
	w.net = &network{w: w, queue: map[uint64][]*packet{}, last: map[[2]uint64]uint64{}, cut: map[[2]uint64]bool{}}
	w.check = newChecker(w)
	var peers []raft.Peer
	for i := range w.faults.Voters {
		id := uint64(i + 1)
		data, err := (&journalv1.MemberContext{
			Version: member.ContextVersion, MemberId: id, Name: fmt.Sprint("m", id), PeerUrls: []string{fmt.Sprint("http://m", id)},
		}).MarshalVT()
		if err != nil {
			panic(err)
		}
		peers = append(peers, raft.Peer{ID: id, Context: data})
	}
	for range w.faults.Voters {
		w.join(peers)
	}
	for i := range w.faults.Clients {
		w.clients = append(w.clients, &client{w: w, number: i})
	}
	w.nextFault = w.later(w.faults.Every)
}

// join adds a machine and starts it.
func (w *world) join(peers []raft.Peer) *machine {
	w.nextID++
	m := &machine{
		w: w, id: w.nextID, fs: faultfs.New(w.seed ^ w.nextID<<32), peers: peers,
		tick: tickMoments, nextTick: w.now + w.rng.Uint64N(tickMoments) + 1,
	}
	m.db = checked{w.openDB(m), m}
	w.members = append(w.members, m)
	m.start()
	return m
}

// later draws a time whose mean distance is mean.
func (w *world) later(mean uint64) uint64 {
	if mean == 0 {
		return math.MaxUint64
	}
	return w.now + 1 + w.rng.Uint64N(2*mean)
}

// run goes on until a time, or until enough says so.
func (w *world) run(until uint64, enough func() bool) {
	for w.now < until && !enough() {
		if w.step() {
			w.now++
			w.steps++
			w.settleDone()
			for ; w.arrivals > 0; w.arrivals-- {
				w.join(nil)
			}
			continue
		}
		w.now = max(w.now+1, min(until, w.next()))
	}
}

// step lets one of those who can do something do it.
func (w *world) step() bool {
	if w.now >= w.nextFault && !w.healed {
		w.nextFault = w.later(w.faults.Every)
		w.fault()
		return true
	}
	actors := len(w.members) + len(w.clients)
	first := w.rng.IntN(actors)
	for i := range actors {
		k := (first + i) % actors
		if k < len(w.members) {
			if w.members[k].step() {
				return true
			}
		} else if w.clients[k-len(w.members)].step() {
			return true
		}
	}
	return false
}

// next is when somebody can do something again.
func (w *world) next() uint64 {
	next := w.nextFault
	if w.healed {
		next = math.MaxUint64
	}
	for _, m := range w.members {
		next = min(next, m.next())
	}
	for _, c := range w.clients {
		next = min(next, c.next())
	}
	return next
}

// settleDone hands outcomes to their clients, in the order of the operations: the packer gives them out in any.
func (w *world) settleDone() {
	if len(w.done) == 0 {
		return
	}
	done := w.done
	w.done = nil
	slices.SortFunc(done, func(a, b result) int { return int(a.op.number) - int(b.op.number) })
	for _, r := range done {
		r.op.client.returned(r)
	}
}

// abandon ends what clients asked of a process that is gone.
func (w *world) abandon(m *machine) {
	for _, c := range w.clients {
		c.abandoned(m)
	}
}

// live says that everything is as it should be once nothing goes wrong any more.
func (w *world) live() bool {
	for _, c := range w.clients {
		if !c.idle() || !c.probed {
			return false
		}
	}
	w.retire()
	last := w.check.last()
	for _, m := range w.members {
		if w.belongs(m) && (!m.up || m.raft.Status().Applied < last || m.raft.Status().Leader == 0) {
			return false
		}
	}
	return true
}

// belongs says whether a member is one, as far as anybody has applied.
func (w *world) belongs(m *machine) bool {
	return w.check.members[m.id] || w.check.last() < uint64(w.faults.Voters)
}

// retire switches the machines of removed members off, as soon as the others know that they are: until then the votes of the removed may
// be needed, for who has not heard that they are removed counts on them.
func (w *world) retire() {
	for _, m := range w.members {
		if w.belongs(m) && (!m.up || m.raft.Status().Applied < w.check.changedAt) {
			return
		}
	}
	for _, m := range w.members {
		if !m.gone && !w.belongs(m) {
			m.gone = true
			m.crash(false)
		}
	}
}

// heal ends all faults: from here on the cluster must make progress.
func (w *world) heal() {
	w.noteOf(0, evHeal, 0, 0, 0)
	w.healed, w.check.healedAt = true, w.check.known
	w.net.heal()
	for _, m := range w.members {
		m.tick, m.pausedUntil, m.doomed = tickMoments, 0, false
		m.fs.SetFault(nil)
		m.fs.CutAfter(-1)
		m.fs.SetCapacity(-1)
		if !m.up {
			m.restartAt = w.now
		}
	}
}
