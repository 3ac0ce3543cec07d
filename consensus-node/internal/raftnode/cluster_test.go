package raftnode

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes HOLDFAST_SEED or the clock")

// testSeed returns the seed of a random test and prints it if the test fails.
func testSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if seed == 0 {
		seed = uint64(os.Getpid())<<32 ^ rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return seed
}

// faults is what the network does to messages.
type faults struct {
	drop, duplicate    float64 // probabilities
	delayMin, delayMax time.Duration
}

// network joins the members of a cluster. Each message is encoded and decoded, as raft may not share memory between members.
type network struct {
	t *testing.T

	mu     sync.Mutex
	rand   *rand.Rand
	faults faults
	nodes  map[uint64]*member
	cut    map[[2]uint64]bool
	// filter, if set, sees each message before it is sent; false takes it out.
	filter func(m *raftpb.Message) bool
	// image, if set, is what becomes of images that are sent.
	image func(ctx context.Context) error
}

type link struct {
	net  *network
	from uint64
}

func (l *link) Send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		l.net.send(l.from, m)
	}
}

func (w *network) send(from uint64, m *raftpb.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.filter != nil && !w.filter(m) {
		return
	}
	copies := 1
	switch {
	case w.cut[[2]uint64{from, m.GetTo()}] || w.rand.Float64() < w.faults.drop:
		return
	case w.rand.Float64() < w.faults.duplicate:
		copies = 2
	}
	for range copies {
		delay := w.faults.delayMin + time.Duration(w.rand.Int64N(int64(w.faults.delayMax-w.faults.delayMin)+1))
		time.AfterFunc(delay, func() { w.deliver(m.GetTo(), b) })
	}
}

func (w *network) deliver(to uint64, b []byte) {
	m := &raftpb.Message{}
	if err := proto.Unmarshal(b, m); err != nil {
		panic(err)
	}
	if node := w.node(to); node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = node.Step(ctx, m)
	}
}

// node returns the running node of a member, or nil.
func (w *network) node(id uint64) *Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.nodes[id]; m != nil {
		return m.node
	}
	return nil
}

func (l *link) SendSnapshot(ctx context.Context, m *raftpb.Message, img Image) error {
	w := l.net
	w.mu.Lock()
	lost, to, image := w.cut[[2]uint64{l.from, m.GetTo()}], w.nodes[m.GetTo()], w.image
	w.mu.Unlock()
	if image != nil {
		return image(ctx)
	}
	node := w.node(m.GetTo())
	if lost || node == nil {
		return errors.New("unreachable")
	}
	path := IncomingImage(to.dir, m.GetSnapshot().GetMetadata().GetIndex())
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := img.WriteTo(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	err = node.ReceiveSnapshot(ctx, proto.Clone(m).(*raftpb.Message), path)
	if errors.Is(err, ErrSnapshotRefused) {
		return errors.Join(err, os.Remove(path))
	}
	return err
}

func (w *network) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// isolate cuts a member off, in both directions; heal joins all.
func (w *network) isolate(id uint64) {
	w.set(func() {
		for other := range w.nodes {
			w.cut[[2]uint64{id, other}], w.cut[[2]uint64{other, id}] = true, true
		}
	})
}

func (w *network) heal() { w.set(func() { clear(w.cut) }) }

// member is one node with what survives it.
type member struct {
	c     *cluster
	id    uint64
	dir   string
	log   *testLog
	state *testState
	node  *Node // nil while down
	stop  context.CancelFunc
	ended chan error
}

// cluster is several members in one synctest bubble.
type cluster struct {
	t       *testing.T
	net     *network
	members []*member
	tune    func(*Config)
}

func newCluster(t *testing.T, seed uint64, size int, tune func(*Config)) *cluster {
	t.Helper()
	w := &network{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), nodes: map[uint64]*member{}, cut: map[[2]uint64]bool{},
		faults: faults{delayMin: time.Millisecond, delayMax: 2 * time.Millisecond},
	}
	c := &cluster{t: t, net: w, tune: tune}
	var peers []raft.Peer
	for id := uint64(1); id <= uint64(size); id++ {
		peers = append(peers, raft.Peer{ID: id})
		c.add(id)
	}
	for _, m := range c.members {
		m.start(peers)
	}
	t.Cleanup(func() {
		for _, m := range c.members {
			m.crash()
		}
		time.Sleep(2 * time.Second) // what is on the wire
	})
	return c
}

func (c *cluster) add(id uint64) *member {
	m := &member{c: c, id: id, dir: c.t.TempDir(), log: &testLog{}, state: &testState{flushEvery: 7}}
	c.members = append(c.members, m)
	c.net.set(func() { c.net.nodes[id] = m })
	return m
}

func (m *member) start(bootstrap []raft.Peer) {
	t := m.c.t
	t.Helper()
	m.mend()
	d := m.log.durable
	cfg := Config{
		ID: m.id, Mark: d.mark, Entries: d.entries, HardState: d.hard,
		Applied: m.state.durable.Index, AppliedTerm: m.state.durable.Term, ConfState: m.state.durable.confState(),
		Bootstrap: bootstrap, Transport: &link{m.c.net, m.id}, Log: m.log, Applier: m.state,
	}
	if m.c.tune != nil {
		m.c.tune(&cfg)
	}
	node, err := New(cfg)
	require.NoError(t, err)
	m.state.node = node
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.ended = cancel, make(chan error, 1)
	m.c.net.set(func() { m.node = node })
	go func() { m.ended <- node.Run(ctx) }()
}

// mend does what the assembly does at a start: an image for which the log has a mark, and which is not installed, takes the database's place.
func (m *member) mend() {
	if mark := m.log.durable.mark.Index; m.state.durable.Index < mark {
		image, err := readImage(IncomingImage(m.dir, mark))
		require.NoError(m.c.t, err)
		m.state.durable = image
		m.state.crash()
	}
	require.NoError(m.c.t, RemoveIncoming(m.dir))
}

// crash ends the member; what was not durable is gone.
func (m *member) crash() error {
	if m.node == nil {
		return nil
	}
	m.c.net.set(func() { m.node = nil })
	m.stop()
	m.log.hold(nil)
	err := <-m.ended
	m.log.crash()
	m.state.crash()
	return err
}

// leader waits for a leader that is up, and returns it.
func (c *cluster) leader() *member {
	c.t.Helper()
	for range 100_000 { // of the bubble's time; where ticks are slow, elections are
		var best *member
		for _, m := range c.members {
			n := c.net.node(m.id)
			if n == nil || n.Status().State != raft.StateLeader {
				continue
			}
			if best == nil || n.Status().Term > c.net.node(best.id).Status().Term {
				best = m
			}
		}
		if best != nil {
			return best
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.FailNow(c.t, "no leader after 1000 s")
	return nil
}

// put proposes on a member and waits for the outcome: nil means acknowledged.
func (m *member) put(ctx context.Context, value string) (uint64, error) {
	node := m.c.net.node(m.id)
	if node == nil {
		return 0, ErrStopped
	}
	pos, err := node.Propose(ctx, []byte(value))
	if err != nil {
		return 0, err
	}
	r, err := m.state.await(ctx, pos.Index)
	if err == nil && r.Value != value {
		err = fmt.Errorf("lost: %q stands at %d", r.Value, pos.Index)
	}
	return pos.Index, err
}

func (c *cluster) mustPut(value string) uint64 {
	c.t.Helper()
	lead := c.leader() // may take several elections
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	index, err := lead.put(ctx, value)
	require.NoError(c.t, err)
	return index
}

// agree waits until all members have applied the same, and returns it.
func (c *cluster) agree() tables {
	c.t.Helper()
	for range 3000 {
		same, first := true, c.members[0].state.snapshot().Index
		for _, m := range c.members {
			same = same && m.state.snapshot().Index == first
		}
		if same {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	first := c.members[0].state.snapshot()
	for _, m := range c.members[1:] {
		require.Equal(c.t, first.Rows, m.state.snapshot().Rows, "member %d differs", m.id)
	}
	return first
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
