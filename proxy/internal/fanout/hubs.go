package fanout

import (
	"context"
	"hash/fnv"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
	"github.com/holdfastdb/holdfast/proxy/internal/upstream"
	"github.com/holdfastdb/holdfast/proxy/internal/watch"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// How long a hub that failed is passed over, and how often registrations without a hub are tried again. Both are
// jittered, so that many proxies do not come back at once.
const (
	avoidShortest = 100 * time.Millisecond
	avoidLongest  = 400 * time.Millisecond
	placeShortest = 20 * time.Millisecond
	placeLongest  = 60 * time.Millisecond
	// lookEvery is how often hubs are looked at though nothing calls for it.
	lookEvery = 250 * time.Millisecond
)

// HubsConfig is what Hubs needs.
type HubsConfig struct {
	Name     string
	Pool     *upstream.Pool
	Topology *topology.Follower
	Seen     Seen // may be nil
	Log      *slog.Logger
}

// Seen is told how the hubs do, for metrics.
type Seen interface {
	// Lag is how far the hub furthest behind is from what is known to exist, of those that have watches here, and for how
	// long it has been so.
	Lag(revisions int64, since time.Duration)
	// Moved is told that watches are registered anew, and why.
	Moved(cause Cause, watches int)
}

// Cause is why watches are registered anew.
type Cause string

// The causes.
const (
	// HubLost: the stream to the hub ended.
	HubLost Cause = "hub_lost"
	// HubUnfit: the hub was behind, or silent.
	HubUnfit Cause = "hub_unfit"
	// Balance: the hub of the watch is another now that hubs came.
	Balance Cause = "balance"
	// Hole: what the hub told does not follow what it told before.
	Hole Cause = "hole"
	// Ended: the hub gave the registration up, as when its queue for this proxy is full.
	Ended Cause = "ended"
)

func (h *Hubs) moved(cause Cause, watches int) {
	if h.config.Seen != nil && watches > 0 {
		h.config.Seen.Moved(cause, watches)
	}
}

// Hubs holds the registrations of all client streams and one stream to each hub in use.
type Hubs struct {
	config HubsConfig
	lastID atomic.Uint64

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of Run, for the links that it outlives
	links   map[routing.Hub]*link
	avoid   map[routing.Hub]time.Time
	regs    map[uint64]*registration
	waiting map[uint64]*registration
	wake    chan struct{}
	running sync.WaitGroup

	// known is the highest revision heard of, from any hub or fence; the rest of this is what fit.go knows.
	known atomic.Int64
	// due is a revision that was known behindAfter ago: a hub that has nothing to tell and is not there is behind.
	due     atomic.Int64
	samples []sampled
	// balanced are the hubs that registrations were last spread over, steady since when others or as many are there; misplaced
	// are those that should be at another.
	balanced, present []routing.Hub
	steady            time.Time
	misplaced         []*registration
}

// registration is one watch's place at a hub.
type registration struct {
	spec  watch.Register
	owner owner
	// link is nil while it waits for a hub; guarded by Hubs.mu.
	link *link
	// joined is guarded by link.mu.
	joined bool
}

// owner is the client stream that a registration belongs to; with runs f on its Core under the stream's
// lock. later: registrations that follow from it wait for the next sweep, so that a hub that keeps refusing is not asked in a
// tight loop.
type owner interface {
	with(later bool, f func(*watch.Core))
}

// NewHubs makes a Hubs; Run must be running for registrations to find hubs.
func NewHubs(config HubsConfig) *Hubs {
	return &Hubs{
		config: config, links: map[routing.Hub]*link{}, avoid: map[routing.Hub]time.Time{},
		regs: map[uint64]*registration{}, waiting: map[uint64]*registration{}, wake: make(chan struct{}, 1),
	}
}

// newID gives registration ids; they are never used again in this process.
func (h *Hubs) newID() uint64 { return h.lastID.Add(1) }

// Run finds hubs for the registrations that have none, and moves those whose hub leaves, until the context ends. Then it
// ends every stream to a hub.
func (h *Hubs) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	defer h.running.Wait()
	defer func() {
		// Under the lock, so that no link starts after this.
		h.mu.Lock()
		cancel()
		h.mu.Unlock()
	}()
	for {
		table, changed := h.config.Topology.Changed()
		next := lookEvery
		if h.sweep(table) { //nolint:contextcheck // h.ctx is this context
			next = placeShortest + rand.N(placeLongest-placeShortest)
		}
		again := time.After(next)
		select {
		case <-changed:
		case <-h.wake:
			// What came back to the waiting list waits one interval, or a hub that refuses it at once would spin.
			again = time.After(placeShortest)
			select {
			case <-again:
			case <-ctx.Done():
			}
		case <-again:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// sweep places what waits, keeps a stream to each hub, and moves what should leave. It tells whether to look again soon.
func (h *Hubs) sweep(table *routing.Table) bool {
	moves, soon := h.look(table)
	for _, reg := range moves {
		id := reg.spec.ID
		reg.owner.with(false, func(c *watch.Core) { c.Broken(id) })
	}
	return soon
}

// look is sweep but for the moves, which must be made without the lock.
func (h *Hubs) look(table *routing.Table) (moves []*registration, soon bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.sample(now)
	h.tellLag(now)
	maps.DeleteFunc(h.avoid, func(_ routing.Hub, until time.Time) bool { return now.After(until) })
	fit := h.fit(table, now)
	h.probe(table, fit)
	for _, reg := range h.waiting {
		h.place(reg, table)
	}
	for hub, l := range h.links {
		switch stays := slices.Contains(table.Hubs, hub); {
		case len(fit) == 0 || len(fit) == 1 && fit[0] == hub:
			// Without another hub the old one is better than none.
			soon = soon || l.leaving.Load()
		case !stays, l.leaving.Load(), fit[0].Address == table.Own && hub != fit[0]:
			l.cancel()
		case l.behind.Load() || l.mute(now):
			moves = append(moves, l.held()...)
		}
	}
	h.moved(HubUnfit, len(moves))
	misplaced := h.balance(fit, now)
	h.moved(Balance, len(misplaced))
	moves = append(moves, misplaced...)
	return moves, soon || len(h.waiting) > 0 || len(h.misplaced) > 0
}

// place gives a registration to a hub, or puts it on the waiting list. The caller holds h.mu.
func (h *Hubs) place(reg *registration, table *routing.Table) {
	hubs := h.candidates(table, time.Now())
	if len(hubs) > 0 && h.ctx != nil && h.ctx.Err() == nil {
		l := h.link(hubs[choose(reg.spec.Key, hubs)])
		if l.add(reg) {
			reg.link = l
			delete(h.waiting, reg.spec.ID)
			return
		}
	}
	h.waiting[reg.spec.ID] = reg
	h.signal()
}

// choose spreads watches over hubs by key, so that watches of one key share deliveries.
func choose(key []byte, hubs []routing.Hub) int {
	return chooseNamed(key, namesOf(hubs))
}

func namesOf(hubs []routing.Hub) []string {
	names := make([]string, len(hubs))
	for i, hub := range hubs {
		names[i] = hub.Name
	}
	return names
}

func chooseNamed(key []byte, names []string) int {
	hash := fnv.New64a()
	_, _ = hash.Write(key) // a hash never fails
	return rendezvous.Owner(int64(hash.Sum64()), names)
}

// link gives the stream to a hub and starts it if need be. The caller holds h.mu.
func (h *Hubs) link(hub routing.Hub) *link {
	l := h.links[hub]
	if l == nil {
		ctx, cancel := context.WithCancel(h.ctx)
		l = newLink(h, hub, cancel)
		h.links[hub] = l
		h.running.Go(func() {
			err := l.run(ctx)
			cancel()
			h.lost(l, err)
		})
	}
	return l
}

// lost moves everything off a hub whose stream ended.
func (h *Hubs) lost(l *link, err error) {
	h.mu.Lock()
	if h.links[l.hub] == l {
		delete(h.links, l.hub)
	}
	h.avoid[l.hub] = time.Now().Add(avoidShortest + rand.N(avoidLongest-avoidShortest))
	ctx := h.ctx
	h.mu.Unlock()
	regs := l.close()
	if ctx.Err() != nil {
		return
	}
	level := slog.LevelInfo
	if len(regs) == 0 {
		level = slog.LevelDebug // one that is tried again and again, mostly
	}
	h.config.Log.Log(ctx, level, "watch-hub left", "hub", l.hub.Name, "address", l.hub.Address, "registrations", len(regs), "error", err)
	h.moved(HubLost, len(regs))
	for _, reg := range regs {
		id := reg.spec.ID
		reg.owner.with(false, func(c *watch.Core) { c.Broken(id) })
	}
	h.signal()
}

// apply carries out a Core's effects. The caller holds the stream's lock, so that effects keep their order; later says that
// new registrations wait for the next sweep.
func (h *Hubs) apply(o owner, effects watch.Effects, later bool) {
	if len(effects.Drop) == 0 && len(effects.Register) == 0 {
		return
	}
	h.moved(Hole, effects.Holes)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range effects.Drop {
		reg := h.regs[id]
		delete(h.regs, id)
		delete(h.waiting, id)
		if reg != nil && reg.link != nil {
			reg.link.remove(id)
		}
	}
	for _, spec := range effects.Register {
		reg := &registration{spec: spec, owner: o}
		h.regs[spec.ID] = reg
		if later {
			h.waiting[spec.ID] = reg
			h.signal()
			continue
		}
		h.place(reg, h.config.Topology.Table())
	}
}

func (h *Hubs) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
