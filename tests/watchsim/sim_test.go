package watchsim

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	proxyapp "github.com/holdfastdb/holdfast/proxy/app"
	hubapp "github.com/holdfastdb/holdfast/watch-hub/app"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the only run; 0 takes HOLDFAST_SEED, or the fixed seeds")
	durationFlag = flag.Duration("duration", 0, "how long to try other seeds")
	onlyFlag     = flag.String("only", "", "the only fault")
)

// seedsFixed is how many seeds run without flags; each has a share of the faults.
const seedsFixed = 3

func TestWatches(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	switch {
	case seed != 0:
		one(t, seed, 1)
	case *durationFlag > 0:
		for began := time.Now(); time.Since(began) < *durationFlag && !t.Failed(); {
			one(t, rand.Uint64(), 1)
		}
	default:
		seen := map[string]int{}
		for seed := range uint64(seedsFixed) {
			for what, count := range one(t, seed+1, seedsFixed) {
				seen[what] += count
			}
		}
		for _, what := range []string{"events", "notices", "common notices", "compacted"} {
			require.Positive(t, seen[what], "%s were never seen", what)
		}
	}
}

// one runs a seed with one of so many shares of the faults.
func one(t *testing.T, seed uint64, shares int) (seen map[string]int) {
	t.Helper()
	ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		began := time.Now()
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t, seed)
			s.shares = shares
			s.run()
			seen = s.seen
			t.Logf("%d revisions, %v", s.world.head(), s.seen)
		})
		t.Log("took", time.Since(began))
	})
	if !ok {
		t.Errorf("run it again with -seed=%d", seed)
	}
	return seen
}

type sim struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	// shares: only one of so many parts of the faults happens.
	shares int
	// calm: clients ask for nothing more and read at once.
	calm atomic.Bool

	world *world
	bus   *badBus
	net   *network
	run1  uint64
	nodes map[uint64]context.CancelFunc

	mu      sync.Mutex
	hubs    map[string]*process
	proxies map[string]*proxyProcess
	seen    map[string]int
	clients []*client
	running sync.WaitGroup
	ctx     context.Context
}

// process is one that can be killed.
type process struct {
	name  string
	dead  *atomic.Bool
	stop  context.CancelFunc
	ended chan struct{}
}

type proxyProcess struct {
	process
	listener *pipes
}

func newSim(t *testing.T, seed uint64) *sim {
	return &sim{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)), world: newWorld(seed), bus: newBadBus(seed), net: newNetwork(),
		nodes: map[uint64]context.CancelFunc{}, hubs: map[string]*process{}, proxies: map[string]*proxyProcess{}, seen: map[string]int{},
	}
}

// saw counts, so that a run that checks nothing shows.
func (s *sim) saw(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[what]++
}

const (
	nodeCount, hubCount, proxyCount, clientCount = 3, 2, 2, 8
)

func (s *sim) run() {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.ctx = ctx
	for id := range uint64(nodeCount) {
		s.startNode(id + 1)
	}
	s.world.elect(1)
	s.bus.do(func() { s.bus.weather = weather{lose: 3, repeat: 3, delay: 10, delayMax: 50 * time.Millisecond} })
	for i := range hubCount {
		s.startHub(fmt.Sprint("h", i+1))
	}
	for i := range proxyCount {
		s.startProxy(fmt.Sprint("p", i+1))
	}
	writing, stopWriting := context.WithCancel(ctx)
	s.running.Go(func() { s.write(writing) })
	s.running.Go(func() { s.compact(writing) })
	for i := range clientCount {
		c := &client{sim: s, name: fmt.Sprint("c", i), rng: rand.New(rand.NewPCG(s.seed, uint64(100+i))), slow: i%4 == 3}
		s.clients = append(s.clients, c)
		s.running.Go(func() { c.run(ctx) })
	}
	time.Sleep(3 * time.Second)
	for _, f := range s.chosen() {
		if s.t.Failed() {
			break
		}
		s.t.Log("fault: ", f.name)
		s.suffer(f)
	}
	stopWriting()
	if !s.t.Failed() {
		s.finish()
	}
	cancel()
	s.running.Wait()
	for _, p := range s.hubs {
		<-p.ended
	}
	for _, p := range s.proxies {
		p.dead.Store(true)
		p.listener.kill()
		<-p.ended
	}
	for id := range s.nodes {
		s.net.gone(nodeAddress(id))
	}
}

// chosen is the faults of this run.
func (s *sim) chosen() []fault {
	list := faults()
	if *onlyFlag != "" {
		return slices.DeleteFunc(list, func(f fault) bool { return f.name != *onlyFlag })
	}
	if s.shares > 1 {
		list = slices.Collect(func(yield func(fault) bool) {
			for i := int(s.seed) % s.shares; i < len(list) && yield(list[i]); i += s.shares {
			}
		})
	}
	s.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

const (
	// noticedAfter is how long a fault may last before it changes nothing any more, and arriveWithin how long what was written then may
	// take.
	noticedAfter = 8 * time.Second
	arriveWithin = 4 * time.Second
	healWithin   = 15 * time.Second
)

// suffer goes through one fault.
func (s *sim) suffer(f fault) {
	heal := f.begin(s)
	time.Sleep(noticedAfter)
	if f.goesOn {
		s.arrives(f.name, s.world.head(), arriveWithin, false)
	}
	heal()
	time.Sleep(100 * time.Millisecond)
	if s.world.leader == 0 {
		s.t.Fatalf("%s left no leader", f.name)
	}
	s.arrives("after "+f.name, s.world.head(), healWithin, false)
}

// arrives waits until every client that reads has everything up to a revision.
func (s *sim) arrives(when string, revision int64, within time.Duration, noticed bool) {
	var left string
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		left = ""
		for _, c := range s.clients {
			if c.slow && !noticed {
				continue
			}
			if w := c.behind(revision, noticed); w != nil {
				left = w.String()
				if c.mu.Lock(); noticed && c.session != nil {
					c.session.ask()
				}
				c.mu.Unlock()
			}
		}
		if left == "" || s.t.Failed() {
			return
		}
	}
	s.t.Errorf("%s: %v later %s has not all up to %d", when, within, left, revision)
}

// finish lets everything arrive, at slow clients too, and be confirmed by notices.
func (s *sim) finish() {
	s.calm.Store(true)
	s.arrives("at the end", s.world.head(), 2*healWithin, true)
}

func (s *sim) write(ctx context.Context) {
	for ctx.Err() == nil {
		s.world.write()
		pause(ctx, time.Duration(s.world.random(100))*time.Millisecond)
	}
}

func (s *sim) compact(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, time.Duration(s.world.random(6000))*time.Millisecond)
		s.world.compactSome()
	}
}

func (w *world) random(n int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Int64N(n)
}

func (s *sim) startNode(id uint64) {
	n := s.world.nodes[id]
	s.world.do(func() {
		if n == nil {
			n = s.world.addNode(id)
		}
		n.up = true
		n.run++
		if !n.lags {
			n.applied = int64(len(s.world.history)) - 1
		}
	})
	s.net.serve(nodeAddress(id), func(r grpc.ServiceRegistrar) { consensusv1.RegisterConsensusServer(r, n) })
	ctx, cancel := context.WithCancel(s.ctx)
	s.nodes[id] = cancel
	s.running.Go(func() { n.publish(ctx, badConn{s.bus, nodeAddress(id)}) })
}

func (s *sim) killNode(id uint64) {
	s.nodes[id]()
	s.world.do(func() {
		s.world.nodes[id].up = false
		if s.world.leader == id {
			s.world.leader = 0
		}
	})
	s.net.gone(nodeAddress(id))
}

func endpoints() (list []string) {
	for id := range uint64(nodeCount) {
		list = append(list, "http://"+nodeAddress(id+1))
	}
	return list
}

func (s *sim) nextRun() uint64 { s.run1++; return s.run1 }

func hubAddress(name string) string { return name + ":1" }

func (s *sim) startHub(name string) {
	p := &process{name: name, dead: &atomic.Bool{}, ended: make(chan struct{})}
	config := hubapp.NewConfig()
	config.Name, config.Address, config.ConsensusEndpoints = name, hubAddress(name), endpoints()
	config.WatchBufferBytes = hubapp.WatchBufferBytesMin
	h, err := hubapp.New(config, hubapp.Dependencies{
		Logger: slog.New(slog.DiscardHandler), Bus: badConn{s.bus, name}, Run: s.nextRun(),
		Dial: func(address string) (hubapp.Conn, error) { return &line{s.net, name, address, p.dead}, nil },
	})
	require.NoError(s.t, err)
	s.net.serve(hubAddress(name), h.Register)
	ctx, cancel := context.WithCancel(s.ctx)
	p.stop = cancel
	s.mu.Lock()
	s.hubs[name] = p
	s.mu.Unlock()
	go func() {
		defer close(p.ended)
		if err := h.Run(ctx); err != nil {
			s.t.Errorf("%s: %v", name, err)
		}
		s.net.gone(hubAddress(name))
	}()
}

// killHub ends a hub without a word.
func (s *sim) killHub(name string) {
	p := s.hubs[name]
	p.dead.Store(true)
	s.net.gone(hubAddress(name))
	p.stop()
	s.net.do(func() {})
	<-p.ended
}

func (s *sim) startProxy(name string) {
	p := &proxyProcess{process: process{name: name, dead: &atomic.Bool{}, ended: make(chan struct{})}, listener: newPipes()}
	config := proxyapp.NewConfig()
	config.Name, config.ConsensusEndpoints = name, endpoints()
	config.WatchBufferBytes, config.WatchNotifyInterval = 1<<20, 2*time.Second
	proxy, err := proxyapp.New(s.ctx, config, proxyapp.Dependencies{
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Run: s.nextRun(), ClientListeners: []net.Listener{p.listener},
		Dial: func(address string) (proxyapp.Conn, error) { return &line{s.net, name, address, p.dead}, nil },
	})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(s.ctx)
	p.stop = cancel
	s.mu.Lock()
	s.proxies[name] = p
	s.mu.Unlock()
	go func() {
		defer close(p.ended)
		if err := proxy.Run(ctx); err != nil && !p.dead.Load() {
			s.t.Errorf("%s: %v", name, err)
		}
	}()
}

func (s *sim) killProxy(name string) {
	p := s.proxies[name]
	p.dead.Store(true)
	p.listener.kill()
	p.stop()
	s.net.do(func() {})
	<-p.ended
}

func (s *sim) anyProxy(rng *rand.Rand) *proxyProcess {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[fmt.Sprint("p", 1+rng.IntN(proxyCount))]
	if p == nil || p.dead.Load() {
		return nil
	}
	return p
}
