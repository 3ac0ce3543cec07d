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
)

// HubsConfig is what Hubs needs.
type HubsConfig struct {
	Name     string
	Pool     *upstream.Pool
	Topology *topology.Follower
	Log      *slog.Logger
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
		var again <-chan time.Time
		if h.sweep(table) { //nolint:contextcheck // h.ctx is this context
			again = time.After(placeShortest + rand.N(placeLongest-placeShortest))
		}
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

// sweep places what waits and moves what should leave. It tells whether to look again soon.
func (h *Hubs) sweep(table *routing.Table) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(h.avoid, func(_ routing.Hub, until time.Time) bool { return now.After(until) })
	for _, reg := range h.waiting {
		h.place(reg, table)
	}
	leaving := false
	for hub, l := range h.links {
		stays := !l.leaving.Load() && slices.Contains(table.Hubs, hub)
		if stays && (table.Own == "" || hub.Address == table.Own) {
			continue
		}
		// Without another hub the old one is better than none.
		switch others := h.candidates(table, hub); {
		case len(others) > 0 && (!stays || others[0].Address == table.Own):
			l.cancel()
		case !stays:
			leaving = true
		}
	}
	return len(h.waiting) > 0 || leaving
}

// candidates are the hubs that take registrations now, but one. Where the proxy runs beside a node, that node's hub is the only one if it
// can be had: it knows what the node has applied, whatever becomes of the network.
func (h *Hubs) candidates(table *routing.Table, but routing.Hub) []routing.Hub {
	var hubs []routing.Hub
	for _, hub := range table.Hubs {
		l := h.links[hub]
		if _, avoided := h.avoid[hub]; !avoided && hub != but && (l == nil || !l.leaving.Load()) {
			if table.Own != "" && hub.Address == table.Own {
				return []routing.Hub{hub}
			}
			hubs = append(hubs, hub)
		}
	}
	return hubs
}

// place gives a registration to a hub, or puts it on the waiting list. The caller holds h.mu.
func (h *Hubs) place(reg *registration, table *routing.Table) {
	hubs := h.candidates(table, routing.Hub{})
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
	names := make([]string, len(hubs))
	for i, hub := range hubs {
		names[i] = hub.Name
	}
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
	h.config.Log.Info("watch-hub left", "hub", l.hub.Name, "address", l.hub.Address, "registrations", len(regs), "error", err)
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
