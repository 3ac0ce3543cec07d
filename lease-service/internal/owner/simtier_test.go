package owner_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

const (
	removal = 2 * time.Second
	// late is how long a lease may live on while nothing fails.
	late   = 2 * time.Second
	ttlMax = 8 * time.Second
	// clocks run at rates that differ from the global one by up to half a percent.
	rateOff = 0.005
	// checkpointEvery is so short that most leases have their rests recorded now and then.
	checkpointEvery = 2500 * time.Millisecond
)

// world is the consensus tier, the clients and the network between all.
type world struct {
	scheduler
	t    *testing.T
	seed uint64

	processes []*process
	faults    bool
	clients   bool
	// majority tells whether the tier can confirm and apply anything.
	majority bool

	// The replicated state.
	leases map[int64]*record
	// last is what was granted last under each id, whether it is there or not.
	last    map[int64]*record
	changes []*feedv1.LeaseChange
	view    *feedv1.View
	// What the leader alone knows.
	heard map[uint64]heard
	led   time.Duration

	// refused counts decisions that met a lease granted after them.
	expired, refused, acknowledged int
	// recorded, cleared and late count checkpoints: late ones are refused. stopped counts revokes that went through the owner, again those
	// that met a change of views.
	recorded, cleared, late, stopped, again int

	tickets uint64
	// incarnations are those of all starts.
	incarnations map[uint64]bool
	// punctual has each expiry held against the bound that counts while nothing fails.
	punctual bool
}

// record is a lease with what the checks know of it.
type record struct {
	ttl time.Duration
	// sequence is that of its grant.
	sequence uint64
	alive    bool // its client still sends keepalives
	// sent is when the last keepalive that was acknowledged left its client.
	sent time.Duration
	// renewed is when the last keepalive was acknowledged, or the grant applied.
	renewed time.Duration
	// rest is what the table says of it, and marked the sequence of that.
	rest   int64
	marked uint64
	// stopped is who had stopped it, and under which epoch, when a client revoked it.
	stopped *feedv1.Instance
	epoch   uint64
	// answered is when a client was told of its revoke, 0 if none was.
	answered time.Duration
	// to is whom the client's proxy holds for the owner, rightly or not.
	to *process
	// every is the time between its keepalives.
	every time.Duration
}

type heard struct {
	instance *feedv1.Instance
	at       time.Duration
	leaving  bool
}

// names are those of the processes.
var names = []string{"a", "b", "c", "d"}

func newWorld(t *testing.T, seed uint64, faults bool) *world {
	t.Helper()
	w := &world{
		scheduler: scheduler{rand: rand.New(rand.NewPCG(seed, 1))}, t: t, seed: seed,
		faults: faults, clients: true, majority: true,
		leases: map[int64]*record{}, last: map[int64]*record{}, view: &feedv1.View{}, heard: map[uint64]heard{}, incarnations: map[uint64]bool{},
	}
	for _, name := range names {
		p := &process{world: w, name: name}
		w.processes = append(w.processes, p)
		p.start()
	}
	for id := int64(1); id <= 24; id++ {
		w.after(w.between(0, 5*time.Second), func() { w.grant(id) })
	}
	w.look()
	w.speak()
	w.after(3*time.Second, w.plague)
	return w
}

func (w *world) sequence() uint64 { return uint64(len(w.changes)) }

// commit appends a change and publishes it.
func (w *world) commit(change *feedv1.LeaseChange) {
	change.Sequence = w.sequence() + 1
	w.changes = append(w.changes, change)
	for _, p := range w.processes {
		w.toProcess(p, func() { p.hear(change) })
	}
}

// speak tells the head of the sequence again and again, so that a lost last change is seen.
func (w *world) speak() {
	for _, p := range w.processes {
		head := w.sequence()
		w.toProcess(p, func() { p.follower.Told(head) })
	}
	w.after(100*time.Millisecond, w.speak)
}

func (w *world) grant(id int64) {
	switch {
	case !w.clients:
		return
	case w.leases[id] != nil || !w.majority:
		w.after(time.Second, func() { w.grant(id) })
		return
	}
	seconds := 2 + w.rand.Int64N(int64(ttlMax/time.Second)-1)
	r := &record{ttl: time.Duration(seconds) * time.Second, sequence: w.sequence() + 1, alive: true, sent: w.now, renewed: w.now}
	w.leases[id], w.last[id] = r, r
	w.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Granted{Granted: &feedv1.LeaseGranted{Id: id, TtlS: seconds}}})
	r.every = w.between(100*time.Millisecond, r.ttl/3)
	w.after(r.every, func() { w.keepAlive(id, r) })
}

// remove revokes a lease. Some client grants the id anew soon, often sooner than messages about the lease have arrived.
func (w *world) remove(id int64, expired bool) {
	delete(w.leases, id)
	w.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Revoked{Revoked: &feedv1.LeaseRevoked{Ids: []int64{id}, Expired: expired}}})
	soon := 200 * time.Millisecond
	if w.chance(30) {
		soon = 4 * time.Second
	}
	w.after(w.between(0, soon), func() { w.grant(id) })
}

// keepAlive is a client at work: it asks whom it holds for the owner, often long after that has changed, and dies one day. Any client
// may revoke the lease, whether the one that keeps it is alive or not, and its proxy does not reach the owner to tell it.
func (w *world) keepAlive(id int64, r *record) {
	if w.leases[id] != r {
		return
	}
	if w.clients && w.majority && w.chance(4) {
		if p := r.to; p != nil && w.chance(60) {
			w.toStart(p, p.starts, func() { p.stop(id, r) })
			w.after(r.every, func() { w.keepAlive(id, r) })
			return
		}
		w.remove(id, false)
		return
	}
	r.alive = r.alive && w.clients && !w.chance(4)
	if r.alive {
		if owner := w.owner(id); r.to == nil || owner != nil && w.chance(20) {
			for _, q := range w.processes {
				if q.name == owner.GetName() {
					r.to = q
				}
			}
		}
		sent, p := w.now, r.to
		if d, ok := w.delay(); ok && p != nil {
			w.after(d, func() { p.when(func() { p.keepAlive(id, r, sent) }) })
		}
	}
	w.after(r.every, func() { w.keepAlive(id, r) })
}

func (w *world) owner(id int64) *feedv1.Instance {
	alive := make([]string, len(w.view.GetInstances()))
	for i, instance := range w.view.GetInstances() {
		alive[i] = instance.GetName()
	}
	if i := rendezvous.Owner(id, alive); i >= 0 {
		return w.view.GetInstances()[i]
	}
	return nil
}

// expire applies a decision and checks the promise.
func (w *world) expire(p *feedv1.Instance, d owner.Decision) []consensusv1.ExpireOutcome {
	outcomes := make([]consensusv1.ExpireOutcome, len(d.IDs))
	for i, id := range d.IDs {
		r, owner := w.leases[id], w.owner(id)
		switch {
		case r == nil:
			outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND
			continue
		case d.Epoch != w.view.GetEpoch() || owner == nil || owner.GetIncarnation() != p.GetIncarnation():
			outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER
			continue
		case r.sequence > d.Sequence:
			outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER
			w.refused++
			continue
		}
		outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED
		if least := r.sent + time.Duration(float64(r.ttl)*(1-2*rateOff)); w.now < least {
			w.failf("lease %d of %v expired by %v under epoch %d, %v after the last acknowledged keepalive was sent",
				id, r.ttl, p, d.Epoch, w.now-r.sent)
		}
		if most := r.renewed + time.Duration(float64(r.ttl)*(1+2*rateOff)) + late; w.punctual && w.now > most {
			w.failf("lease %d of %v expired %v after the last keepalive was acknowledged, though nothing failed", id, r.ttl, w.now-r.renewed)
		}
		w.expired++
		w.remove(id, true)
	}
	return outcomes
}

// look changes the view where that is due, as a leader does.
func (w *world) look() {
	w.decideView()
	w.after(100*time.Millisecond, w.look)
}

func (w *world) decideView() {
	if !w.majority {
		return
	}
	next := &feedv1.View{Epoch: w.view.GetEpoch() + 1}
	present := map[string]bool{}
	for _, instance := range w.view.GetInstances() {
		stays, released := w.judge(instance)
		if stays {
			next.Instances = append(next.Instances, instance)
			present[instance.GetName()] = true
			continue
		}
		next.Departed = append(next.Departed, &feedv1.Departed{
			Name: instance.GetName(), Incarnation: instance.GetIncarnation(), Released: released,
		})
	}
	joined := 0
	for _, p := range w.processes {
		for _, h := range w.heard {
			same := slices.ContainsFunc(w.view.GetInstances(), func(i *feedv1.Instance) bool { return i.GetIncarnation() == h.instance.GetIncarnation() })
			if h.instance == p.instance && !present[p.name] && !same && !h.leaving && w.now-h.at <= removal {
				next.Instances = append(next.Instances, h.instance)
				joined++
			}
		}
	}
	if joined == 0 && len(next.GetDeparted()) == 0 {
		return
	}
	slices.SortFunc(next.Instances, func(a, b *feedv1.Instance) int { return cmp.Compare(a.GetName(), b.GetName()) })
	w.view = next
	w.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_View{View: next}})
}

// judge tells whether an instance stays, and if not whether its right to acknowledge is surely over.
func (w *world) judge(instance *feedv1.Instance) (stays, released bool) {
	h, ok := w.heard[instance.GetIncarnation()]
	last := max(w.led, h.at)
	switch {
	case ok && h.leaving:
		return false, true
	case w.now-last > removal+removal/10:
		return false, true
	}
	for _, other := range w.heard {
		if other.instance.GetName() == instance.GetName() && other.instance.GetIncarnation() > instance.GetIncarnation() &&
			!other.leaving && w.now-other.at <= removal {
			return false, false
		}
	}
	return true, false
}

// checkpoint applies rests as the tier does.
func (w *world) checkpoint(p *feedv1.Instance, epoch, decided uint64, rests []*feedv1.LeaseCheckpoint) {
	for _, rest := range rests {
		if owner := w.owner(rest.GetId()); epoch != w.view.GetEpoch() || owner.GetIncarnation() != p.GetIncarnation() {
			return
		}
	}
	for _, rest := range rests {
		r := w.leases[rest.GetId()]
		switch {
		case r == nil:
			continue
		case rest.GetRemainingTtlS() > 0 && max(r.sequence, r.marked) > decided:
			w.late++
			continue
		case rest.GetRemainingTtlS() > 0:
			w.recorded++
		default:
			w.cleared++
		}
		r.rest, r.marked = rest.GetRemainingTtlS(), w.sequence()+1
		w.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Checkpoint{Checkpoint: rest}})
	}
}

// incarnation is the next number of a process: its wall clock's, which may have been set back.
func (w *world) incarnation(p *process) uint64 {
	number := uint64(max(0, 1000*time.Hour+w.now+p.wall))
	for w.incarnations[number] {
		number++
	}
	w.incarnations[number] = true
	return number
}
