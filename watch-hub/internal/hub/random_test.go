package hub_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the simulation; 0 takes HOLDFAST_SEED or a new one")
	runsFlag = flag.Int("runs", 8, "how many simulations")
)

// TestSimulation runs a hub between a naive consensus tier and naive proxies while everything in between goes wrong: messages
// are lost, repeated, reordered and cut differently, publishers start again and jump, proxies are slow and go away, history is
// compacted. Each watch must get each matching revision once, in order, with its previous values.
func TestSimulation(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if seed == 0 {
		seed = rand.Uint64()
	}
	ended, again, events := 0, 0, 0
	for run := range *runsFlag {
		s := newSim(t, seed+uint64(run))
		if !t.Run(fmt.Sprint("seed=", seed+uint64(run)), func(t *testing.T) { s.t = t; s.run() }) {
			t.Fatalf("run again with -seed=%d -runs=1", seed+uint64(run))
		}
		ended, again, events = ended+s.ended, again+s.again, events+s.events
	}
	t.Logf("%d events arrived, %d watches ended compacted, %d were registered again", events, ended, again)
	if *runsFlag >= 8 {
		require.Positive(t, events)
		require.Positive(t, ended, "compaction was never tried")
		require.Positive(t, again, "overflow was never tried")
	}
}

type sim struct {
	t       *testing.T
	rng     *rand.Rand
	tier    *tier
	core    *hub.Core
	air     []*feedv1.Message // on their way
	cursors [3]int64
	runs    [3]uint64
	proxies map[uint64]*proxyModel
	watches []*watchModel
	starts  map[*watchModel]int64
	at      map[*watchModel]uint64 // proxy
	passes  map[uint64]*simPass
	looks   []hub.LookUp
	nextID  uint64
	loss    int
	slow    bool
	// cut is the most revisions of a history message.
	cut int64
	// what happened, so that a test that checks nothing shows.
	ended, again, events int
}

// simPass is a history request on its way.
type simPass struct {
	hub.StartHistory
	position int64
	may      bool
}

func newSim(t *testing.T, seed uint64) *sim {
	t.Helper()
	s := &sim{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), tier: newTier(), proxies: map[uint64]*proxyModel{},
		cut: 6, starts: map[*watchModel]int64{}, at: map[*watchModel]uint64{}, passes: map[uint64]*simPass{},
	}
	s.loss = s.rng.IntN(40)
	s.slow = seed%2 == 0
	s.core = hub.New(hub.Config{
		ClusterID: clusterID, WindowBytes: 400 + s.rng.IntN(20_000),
		Limits: hub.Limits{
			StepRevisions: 1 + s.rng.IntN(10), StepBytes: 5000, Passes: 1 + s.rng.IntN(3), PassRanges: 1 + s.rng.IntN(4),
			PassSpan: s.rng.Int64N(30), HeldBytes: 200 + s.rng.IntN(5000), Registrations: 50, LookUpKeys: 1 + s.rng.IntN(4),
		},
		Follower: window.Limits{PendingBytes: s.rng.IntN(20_000), PartsBytes: 10_000},
	})
	return s
}

func (s *sim) key() string { return fmt.Sprintf("k%d", s.rng.IntN(8)) }

func (s *sim) run() {
	for round := range 800 {
		s.step()
		s.settle()
		if round%32 == 0 {
			s.check()
		}
	}
	s.finish()
}

func (s *sim) step() {
	switch s.rng.IntN(14) {
	case 0, 1, 2:
		s.write()
	case 3, 4:
		s.publish()
	case 5, 6:
		s.arrive()
	case 7:
		s.register()
	case 8:
		s.answerHistory()
	case 9:
		s.fill()
	case 10:
		s.answerLookUp()
	case 11, 12:
		s.drain()
	case 13:
		s.upset()
	}
}

func (s *sim) write() {
	for range 1 + s.rng.IntN(3) {
		keys := []string{s.key()}
		if s.rng.IntN(3) == 0 {
			keys = append(keys, s.key())
		}
		keys = slices.Compact(keys)
		for i, key := range keys {
			if s.tier.last[key] > 0 && s.rng.IntN(4) == 0 {
				keys[i] = "-" + key
			}
		}
		s.tier.write(keys...)
	}
}

// publish lets one publisher tell what is new, cut as it likes.
func (s *sim) publish() {
	who := s.rng.IntN(len(s.cursors))
	for s.cursors[who] < s.tier.head() {
		from := s.cursors[who]
		to := min(s.tier.head(), from+1+s.rng.Int64N(4))
		m := s.tier.message(uint64(who), s.runs[who], from, to)
		s.cursors[who] = to
		switch s.rng.IntN(12) {
		case 0:
			m.BodyLess, m.Revisions = true, nil
			s.send(m)
		case 1:
			s.sendParts(m)
		default:
			s.send(m)
		}
	}
	if s.rng.IntN(3) == 0 {
		m := s.tier.message(uint64(who), s.runs[who], s.cursors[who], s.cursors[who])
		s.send(m)
	}
}

func (s *sim) sendParts(m *feedv1.Message) {
	var events []*feedv1.Revision
	for _, r := range m.GetRevisions() {
		for _, e := range r.GetEvents() {
			events = append(events, &feedv1.Revision{Revision: r.GetRevision(), Events: []*feedv1.Event{e}})
		}
	}
	for i, r := range events {
		s.send(&feedv1.Message{
			Version: 1, ClusterId: clusterID, Publisher: m.GetPublisher(), PublisherRun: m.GetPublisherRun(), HeadRevision: m.GetHeadRevision(),
			CompactRevision: m.GetCompactRevision(), PreviousRevision: m.GetPreviousRevision(), LastRevision: m.GetLastRevision(),
			Part: uint32(i + 1), Parts: uint32(len(events)), Revisions: []*feedv1.Revision{r},
		})
	}
}

// send loses, repeats and reorders.
func (s *sim) send(m *feedv1.Message) {
	for range 1 + s.rng.IntN(2)*s.rng.IntN(2) {
		if s.rng.IntN(100) < s.loss {
			continue
		}
		at := len(s.air)
		if s.rng.IntN(5) == 0 {
			at = s.rng.IntN(len(s.air) + 1)
		}
		s.air = slices.Insert(s.air, at, m)
	}
}

func (s *sim) arrive() {
	n := min(len(s.air), s.rng.IntN(6))
	for _, m := range s.air[:n] {
		s.core.Receive(m)
	}
	s.air = s.air[n:]
}

func (s *sim) proxy() uint64 {
	if len(s.proxies) < 3 && s.rng.IntN(4) == 0 || len(s.proxies) == 0 {
		s.nextID++
		limits := egress.Limits{QueueBytes: 1 << 20, ResponseBytes: 300, ResponseEntries: 3}
		if s.slow {
			limits.QueueBytes = 500 + s.rng.IntN(1000)
		}
		p := newProxyModel(limits)
		s.proxies[s.nextID] = p
		s.core.Open(s.nextID, p.queue)
	}
	ids := make([]uint64, 0, len(s.proxies))
	for id := range s.proxies {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids[s.rng.IntN(len(ids))]
}

// register makes a new watch, or cancels one.
func (s *sim) register() {
	if len(s.watches) > 0 && s.rng.IntN(4) == 0 {
		i := s.rng.IntN(len(s.watches))
		w := s.watches[i]
		s.core.Cancel(s.at[w], w.reg.GetId())
		delete(s.proxies[s.at[w]].regs, w.reg.GetId())
		s.watches = slices.Delete(s.watches, i, i+1)
		return
	}
	reg := &watchv1.Registration{
		Key: []byte(s.key()), NoPut: s.rng.IntN(8) == 0, NoDelete: s.rng.IntN(8) == 0, PreviousKv: s.rng.IntN(3) == 0,
	}
	switch s.rng.IntN(3) {
	case 0:
		reg.RangeEnd = []byte{0}
	case 1:
		reg.RangeEnd = []byte(s.key())
	}
	reg.NextRevision = s.tier.compact + 1 + s.rng.Int64N(s.tier.head()-s.tier.compact+8)
	w := &watchModel{reg: reg}
	s.starts[w] = reg.GetNextRevision()
	s.watches = append(s.watches, w)
	s.place(w)
}

func (s *sim) place(w *watchModel) {
	id := s.proxy()
	s.nextID++
	w.reg = &watchv1.Registration{
		Id: s.nextID, Key: w.reg.GetKey(), RangeEnd: w.reg.GetRangeEnd(), NextRevision: w.reg.GetNextRevision(),
		NoPut: w.reg.GetNoPut(), NoDelete: w.reg.GetNoDelete(), PreviousKv: w.reg.GetPreviousKv(),
	}
	s.at[w] = id
	s.proxies[id].register(w)
	s.core.Register(id, w.reg)
}

func (s *sim) history(after, upTo int64, ranges []*consensusv1.KeyRange) *feedv1.Message {
	to := min(upTo, after+1+s.rng.Int64N(s.cut))
	m := s.tier.message(9, 9, after, to)
	if len(ranges) == 0 {
		return m
	}
	m.Revisions = nil
	for _, r := range s.tier.between(after, to) {
		var events []*feedv1.Event
		for _, e := range r.GetEvents() {
			if slices.ContainsFunc(ranges, func(k *consensusv1.KeyRange) bool {
				return match.Range{Key: string(k.GetKey()), End: string(k.GetRangeEnd())}.Contains(string(e.GetKey()))
			}) {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			m.Revisions = append(m.Revisions, &feedv1.Revision{Revision: r.GetRevision(), Events: events})
		}
	}
	return m
}

// answerHistory moves one pass on.
func (s *sim) answerHistory() {
	for _, id := range sortedKeys(s.passes) {
		p := s.passes[id]
		if !p.may || s.rng.IntN(3) == 0 {
			continue
		}
		switch {
		case p.position+1 < s.tier.compact:
			delete(s.passes, id)
			s.core.HistoryEnded(id, true)
		case p.position >= p.UpTo:
			delete(s.passes, id)
			s.core.HistoryEnded(id, false)
		default:
			m := s.history(p.position, p.UpTo, p.Ranges)
			p.position, p.may = m.GetLastRevision(), false
			s.core.History(id, m)
		}
		s.settle()
	}
}

// fill repairs the live position.
func (s *sim) fill() {
	need, ok := s.core.Need()
	if !ok {
		return
	}
	require.LessOrEqual(s.t, need.UpTo, s.tier.head())
	for position := need.After; position < need.UpTo; {
		if position+1 < s.tier.compact {
			s.core.LiveCompacted()
			return
		}
		m := s.history(position, need.UpTo, nil)
		position = m.GetLastRevision()
		s.core.Receive(m)
		if s.rng.IntN(5) == 0 {
			return // the node went away
		}
	}
}

func (s *sim) answerLookUp() {
	if len(s.looks) == 0 {
		return
	}
	i := s.rng.IntN(len(s.looks))
	look := s.looks[i]
	s.looks = slices.Delete(s.looks, i, i+1)
	kvs := make([][]byte, len(look.Keys))
	for i, k := range look.Keys {
		kvs[i] = fmt.Appendf(nil, "v%d", k.GetModRevision())
	}
	s.core.Values(look.Keys, kvs)
}

func (s *sim) drain() {
	for _, id := range sortedKeys(s.proxies) {
		p := s.proxies[id]
		for range s.rng.IntN(4) {
			took, relieved := p.take()
			if relieved {
				s.core.Relieved(id)
			}
			if !took {
				break
			}
		}
	}
	s.registerAgain()
}

// registerAgain registers anew what a hub gave up.
func (s *sim) registerAgain() {
	for _, w := range s.watches {
		if w.reason != "" {
			s.again++
			w.reg.NextRevision = w.covered + 1
			s.place(w)
		}
	}
}

// upset breaks something.
func (s *sim) upset() {
	switch s.rng.IntN(6) {
	case 0: // a publisher starts again
		who := s.rng.IntN(len(s.runs))
		s.runs[who]++
		s.cursors[who] = s.tier.head()
	case 1: // a publisher jumps
		who := s.rng.IntN(len(s.runs))
		s.cursors[who] = s.tier.head()
		m := s.tier.message(uint64(who), s.runs[who], s.cursors[who], s.cursors[who])
		m.Reset_ = true
		s.send(m)
	case 2: // a proxy goes away; its watches go to others
		if len(s.proxies) > 0 && s.rng.IntN(4) == 0 {
			s.check() // what ended is looked at while its proxy is there
			id := s.proxy()
			p := s.proxies[id]
			s.core.Close(id)
			delete(s.proxies, id)
			for _, w := range s.watches {
				if s.at[w] == id {
					w.covered = p.position(w)
					w.reg.NextRevision = w.covered + 1
					s.place(w)
				}
			}
		}
	case 3:
		if s.rng.IntN(8) == 0 && s.tier.head() > 10 {
			s.tier.compact = max(s.tier.compact, s.tier.head()-s.rng.Int64N(60))
		}
	case 4:
		s.core.Tick()
	case 5:
		s.air = nil
	}
}

// settle carries out effects and lets the core catch up a little.
func (s *sim) settle() {
	for range s.rng.IntN(3) {
		s.core.Work()
	}
	s.core.Dispatched()
	for _, e := range s.core.Take() {
		switch e := e.(type) {
		case hub.StartHistory:
			require.NotEmpty(s.t, e.Ranges)
			s.passes[e.Pass] = &simPass{StartHistory: e, position: e.After, may: true}
		case hub.Processed:
			s.passes[e.Pass].may = true
		case hub.StopHistory:
			delete(s.passes, e.Pass)
		case hub.LookUp:
			s.looks = append(s.looks, e)
		}
	}
}

// check compares what each watch has got with what it must have got by its position.
func (s *sim) check() {
	for _, p := range s.proxies {
		require.Empty(s.t, p.broken)
	}
	for _, w := range slices.Clone(s.watches) {
		position := s.proxies[s.at[w]].position(w)
		require.Equal(s.t, s.tier.expect(w.reg, s.starts[w], position), w.got, "watch %v from %d at %d", w.reg, s.starts[w], position)
		if w.compacted > 0 {
			require.LessOrEqual(s.t, w.compacted, s.tier.compact)
			require.Less(s.t, position+1, w.compacted, "only what is compacted ends")
			s.ended++
			s.watches = slices.DeleteFunc(s.watches, func(other *watchModel) bool { return other == w })
		}
	}
}

// finish stops breaking things: everything must arrive.
func (s *sim) finish() {
	s.write()
	s.proxy()
	s.cut = 200
	for round := 0; ; round++ {
		places := ""
		if round >= 3000 {
			places = hub.Places(s.core)
		}
		require.Less(s.t, round, 3000, "watches do not catch up: %+v, %s", s.core.Stats(), places)
		s.core.Receive(s.tier.message(1, s.runs[1], s.tier.head(), s.tier.head()))
		s.fill()
		s.answerHistory()
		for len(s.looks) > 0 {
			s.answerLookUp()
		}
		s.core.Tick()
		s.settle()
		s.drain()
		s.settle()
		done := true
		for _, w := range s.watches {
			done = done && (w.compacted > 0 || s.proxies[s.at[w]].position(w) >= s.tier.head())
		}
		if done {
			break
		}
	}
	s.check()
	for _, w := range s.watches {
		s.events += len(w.got)
	}
	for _, id := range sortedKeys(s.proxies) {
		s.core.Close(id)
	}
	require.Zero(s.t, s.core.Stats().Registrations)
	require.Zero(s.t, s.core.Stats().Live)
}

func sortedKeys[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
