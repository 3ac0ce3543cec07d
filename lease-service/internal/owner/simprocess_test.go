package owner_test

import (
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/follow"
	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// process is one place where an instance runs, one start after the other.
type process struct {
	world *world
	name  string

	// start is which start this is; what belongs to an earlier one happens no more.
	starts   uint64
	up       bool
	cut      bool
	deaf     bool // hears nothing of the lease sequence, while its heartbeats are confirmed
	paused   time.Duration
	instance *feedv1.Instance
	core     *owner.Core
	follower follow.Follower
	// The instance's own clock.
	rate   float64
	offset time.Duration

	deciding  int
	recording bool
	clearing  bool
	reading   bool
	behind    time.Duration
	// wall is how far the wall clock of the machine is off. Nothing but the incarnation comes from it.
	wall time.Duration
}

func (p *process) clock() time.Duration {
	return p.offset + time.Duration(float64(p.world.now)*p.rate)
}

func (p *process) start() {
	w := p.world
	p.starts++
	p.up, p.reading, p.deciding, p.behind = true, false, 0, -1
	p.recording, p.clearing = false, false
	p.rate = 1 + rateOff*(2*w.rand.Float64()-1)
	p.offset = w.between(time.Hour, 100*time.Hour)
	p.instance = &feedv1.Instance{Name: p.name, Incarnation: w.incarnation(p)}
	p.core, p.follower = owner.New(p.instance, checkpointEvery, ownership.DriftDefault), follow.Follower{}
	p.every(0, 500*time.Millisecond, p.beat)
	p.every(w.between(0, 100*time.Millisecond), owner.TickEvery-5*time.Millisecond, p.tick)
}

// when does something as soon as the process runs, if it is still the same start by then.
func (p *process) when(do func()) {
	start := p.starts
	if wait := p.paused - p.world.now; wait > 0 {
		p.world.after(wait, func() {
			if p.starts == start {
				p.when(do)
			}
		})
		return
	}
	if p.up {
		do()
	}
}

func (p *process) every(first, period time.Duration, do func()) {
	start := p.starts
	var again func()
	again = func() {
		p.when(func() {
			if p.starts != start {
				return
			}
			do()
			p.world.after(period, again)
		})
	}
	p.world.after(first, again)
}

func (p *process) pause(d time.Duration) { p.paused = max(p.paused, p.world.now+d) }

func (p *process) crash(down time.Duration) {
	if !p.up {
		return
	}
	p.up = false
	p.world.after(down, p.start)
}

// leave gives the leases up, tells so once, and starts anew later.
func (p *process) leave(down time.Duration) {
	p.when(func() {
		p.core.Leave()
		instance := p.instance
		p.toTier(func() {
			if p.world.majority {
				p.world.heard[instance.GetIncarnation()] = heard{instance, p.world.now, true}
			}
		})
		p.crash(down)
	})
}

// toTier and toProcess are the network.
func (p *process) toTier(do func()) {
	if d, ok := p.world.delay(); ok && !p.cut {
		p.world.after(d, do)
	}
}

func (w *world) toProcess(p *process, do func()) {
	if !p.deaf {
		w.toStart(p, p.starts, do)
	}
}

// toStart is an answer: it reaches nobody but the start that asked.
func (w *world) toStart(p *process, start uint64, do func()) {
	if p.starts != start {
		return
	}
	if d, ok := w.delay(); ok && !p.cut {
		w.after(d, func() {
			if p.starts == start {
				p.when(do)
			}
		})
	}
}

func (p *process) beat() {
	w, sent, instance, start := p.world, p.clock(), p.instance, p.starts
	p.toTier(func() {
		if h := w.heard[instance.GetIncarnation()]; h.leaving || !w.majority {
			return
		}
		w.heard[instance.GetIncarnation()] = heard{instance, w.now, false}
		w.decideView()
		// The round begins after the heartbeat arrived, and the view is that applied at its end.
		w.after(w.between(0, 50*time.Millisecond), func() {
			if !w.majority {
				return
			}
			confirmation := ownership.Confirmation{Sent: sent, View: w.view, Sequence: w.sequence(), Removal: removal}
			w.toStart(p, start, func() {
				p.follower.Told(confirmation.Sequence)
				p.core.Confirmed(p.clock(), confirmation)
			})
		})
	})
}

func (p *process) tick() {
	w, now := p.world, p.clock()
	p.core.Tick(now)
	if p.deciding < 2 {
		if d := p.core.Decide(now, 5); len(d.IDs) > 0 {
			p.deciding++
			p.propose(p.starts, d)
		}
	}
	p.checkpoints(now)
	for _, id := range p.core.Stopped(now, 5) {
		p.settle(id)
	}
	switch {
	case !p.follower.Behind():
		p.behind = -1
	case p.behind < 0:
		p.behind = now
	case now-p.behind > 150*time.Millisecond && !p.reading:
		p.reading = true
		p.page(p.follower.Begin(), p.follower.Head())
		start := p.starts
		w.after(time.Second, func() {
			if p.starts == start {
				p.reading = false
			}
		})
	}
}

// checkpoints has rests recorded and cleared, one call of each at a time, which is given up after a while: what it proposed may come late
// or twice.
func (p *process) checkpoints(now time.Duration) {
	if epoch, ids := p.core.Clears(5); len(ids) > 0 && !p.clearing {
		p.clearing = true
		var rests []*feedv1.LeaseCheckpoint
		for _, id := range ids {
			rests = append(rests, &feedv1.LeaseCheckpoint{Id: id})
		}
		p.checkpoint(epoch, 0, rests, &p.clearing)
	}
	if p.recording {
		return
	}
	if epoch, sequence, rests := p.core.Rests(now, 5); len(rests) > 0 {
		p.recording = true
		p.checkpoint(epoch, sequence, rests, &p.recording)
	}
}

func (p *process) checkpoint(epoch, sequence uint64, rests []*feedv1.LeaseCheckpoint, underWay *bool) {
	w, instance, start := p.world, p.instance, p.starts
	apply := func() {
		if w.majority {
			w.checkpoint(instance, epoch, sequence, rests)
		}
	}
	p.toTier(apply)
	if w.faults && w.chance(30) {
		w.after(w.between(0, 5*time.Second), apply)
	}
	w.after(w.between(50*time.Millisecond, time.Second), func() {
		if p.starts == start {
			*underWay = false
		}
	})
}

// propose sends a decision until its outcome comes back. One call has ended, one way or the other, before the next begins; what it
// proposed may still be on its way, and come late or twice.
func (p *process) propose(start uint64, d owner.Decision) {
	if p.starts != start || !p.up {
		return
	}
	if !p.core.Standing(d) {
		p.deciding--
		return
	}
	w, instance, settled := p.world, p.instance, false
	p.toTier(func() {
		if !w.majority {
			return
		}
		outcomes, sequence := w.expire(instance, d), w.sequence()
		w.toStart(p, start, func() {
			if settled {
				return
			}
			settled = true
			p.deciding--
			p.follower.Told(sequence)
			p.core.Outcome(p.clock(), d, outcomes)
		})
	})
	if w.faults && w.chance(15) {
		w.after(w.between(0, 5*time.Second), func() {
			if w.majority {
				w.expire(instance, d)
			}
		})
	}
	w.after(3*time.Second, func() {
		p.when(func() {
			if !settled {
				settled = true
				p.propose(start, d)
			}
		})
	})
}

func (p *process) hear(change *feedv1.LeaseChange) {
	p.apply(p.follower.Accept([]*feedv1.LeaseChange{change}, nil))
}

func (p *process) apply(changes []*feedv1.LeaseChange) {
	for _, change := range changes {
		if _, err := p.core.Apply(p.clock(), change, nil); err != nil {
			p.world.failf("%v", err)
		}
	}
}

// page reads the next page of the table: a few leases, each page at the sequence of its moment.
func (p *process) page(build *follow.Build, least uint64) {
	w, start := p.world, p.starts
	p.toTier(func() {
		if w.sequence() < least {
			return
		}
		const limit = 10
		response := &consensusv1.LeaseTableResponse{Sequence: w.sequence(), View: w.view}
		for id := build.After() + 1; id <= 24; id++ {
			if r := w.leases[id]; r != nil && len(response.Leases) == limit {
				response.More = true
			} else if r != nil {
				response.Leases = append(response.Leases, &consensusv1.LeaseEntry{
					Id: id, TtlS: int64(r.ttl / time.Second), RemainingTtlS: r.rest, GrantedSequence: r.sequence,
				})
			}
		}
		if p.deaf {
			return
		}
		w.toStart(p, start, func() {
			build.Add(response)
			if !build.Done() {
				p.page(build, least)
				return
			}
			table, changes, _ := p.follower.Finish(nil)
			if table != nil {
				p.core.Load(p.clock(), table.Sequence, table.View, table.Leases, nil)
			}
			p.apply(changes)
			p.reading = false
		})
	})
}

// keepAlive arrives at the process.
func (p *process) keepAlive(id int64, r *record, sent time.Duration) {
	w := p.world
	verdict, _ := p.core.KeepAlive(p.clock(), id)
	if verdict != owner.Known {
		return
	}
	switch {
	case w.leases[id] == r:
		w.acknowledged++
		r.sent = max(r.sent, sent)
		r.renewed = w.now
	case w.last[id] == r && r.stopped == p.instance && r.epoch == p.core.Epoch():
		w.failf("a keepalive of lease %d was acknowledged after %s had stopped it and it was revoked", id, p.name)
	case w.last[id] == r && r.answered > 0 && sent >= r.answered:
		w.failf("%s acknowledged a keepalive of lease %d that was sent after the answer to its revoke", p.name, id)
	}
}

// stop arrives at the process, and goes on to the tier if it holds. The revoke may be lost on the way; then, sometimes, its proxy says so.
func (p *process) stop(id int64, r *record) {
	w := p.world
	w.tickets++
	ticket := w.tickets
	if verdict, err := p.core.Stop(p.clock(), id, ticket); verdict != owner.Known || err != nil || w.leases[id] != r {
		return
	}
	w.stopped++
	instance, epoch := p.instance, p.core.Epoch()
	if w.chance(30) {
		w.toStart(p, p.starts, func() { p.over(id, ticket) })
		return
	}
	if d, ok := w.delay(); ok {
		w.after(d, func() {
			if w.majority && w.leases[id] == r {
				r.stopped, r.epoch = instance, epoch
				w.remove(id, false)
				w.revoked(id, r, ticket, epoch, w.view.GetEpoch())
			}
		})
	}
}

// revoked is the proxy when the tier has revoked a lease, under an epoch: where the owner was stopped under an earlier one, it stops the owner of now
// before it answers its client. Keepalives that are sent after the answer must get nothing.
func (w *world) revoked(id int64, r *record, ticket, stopped, epoch uint64) {
	if stopped >= epoch {
		r.answered = w.now
		w.probe(id, r, w.now+3*time.Second)
		return
	}
	if p := w.named(w.owner(id).GetName()); p != nil {
		w.toStart(p, p.starts, func() {
			verdict, err := p.core.Stop(p.clock(), id, ticket)
			if err == nil && (verdict == owner.Known || verdict == owner.Unknown) {
				stopped = p.core.Epoch()
				w.again++
				p.over(id, ticket)
			}
		})
	}
	w.after(100*time.Millisecond, func() { w.revoked(id, r, ticket, stopped, epoch) })
}

// probe sends keepalives of a lease that is gone, to any process.
func (w *world) probe(id int64, r *record, until time.Duration) {
	if w.now >= until || w.last[id] != r {
		return
	}
	sent, p := w.now, w.processes[w.rand.IntN(len(w.processes))]
	if d, ok := w.delay(); ok {
		w.after(d, func() { p.when(func() { p.keepAlive(id, r, sent) }) })
	}
	w.after(w.between(time.Millisecond, 100*time.Millisecond), func() { w.probe(id, r, until) })
}

func (w *world) named(name string) *process {
	for _, p := range w.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

// over says that a revoke came to nothing; settle has a read tell what became of the lease.
func (p *process) over(id int64, ticket uint64) {
	p.core.Over(p.clock(), id, ticket)
	p.settle(id)
}

func (p *process) settle(id int64) {
	w, began, start := p.world, p.clock(), p.starts
	p.toTier(func() {
		sequence := w.sequence()
		w.toStart(p, start, func() { p.core.Resume(began, id, sequence) })
	})
}
