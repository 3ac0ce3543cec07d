// Package propose turns writes into raft entries and waits for what comes of them.
//
// Writes from all streams queue here. A Packer packs what queued into one entry (up to PackBytesMax, or one request
// alone where it is larger or exclusive) and proposes it. At most PacksInFlight packs wait for their outcome unless a
// pack is full: an idle node proposes at once, and under load everything that arrives during one round of append,
// replication and apply shares the next entry.
//
// What concerns the life of leases (grants, revokes, expiry, checkpoints, views) is urgent: it has a queue of its own that puts do
// not fill, goes first into the next entry, and leaves at least half of an entry, or every fourth entry, to the others.
// Ordinary writes wait while InFlightBytesMax of them await their outcome. That is half of what raft takes in before it is
// committed (raftnode's UncommittedBytesMax), so that there is room for the urgent ones. Past the bounds of the queues a write is
// refused at once as too many requests; so is one that raft refuses because its own bound is reached, which takes packs whose
// writes ran out of time before they were committed.
//
// Of each write exactly one Outcome comes, in one of three kinds: what apply said; NotProposed, with the certainty that it
// did not happen and never will; or an error that leaves open whether it happened (time ran out). Nothing is ever
// proposed twice.
//
// # When a proposal is lost
//
// Raft may take an entry and lose it to the next leader. That shows as soon as anything of a later term is applied: terms never
// fall along a log, so behind a committed entry of term T no entry of an earlier term can ever be committed, and what lies
// before it was applied here, with its outcomes, already. What still waits from an earlier term is therefore lost for good
// and is said to be NotProposed: to send it again cannot make it happen twice. (The one gap in "was applied here" is an
// installed snapshot, which brings results without outcomes: what lies below its index is left open.) So a change of
// leader costs its writers an election, not the time-out of a request.
package propose

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

const (
	// PacksInFlight is how many packs may await their outcome before a further one must be full.
	PacksInFlight = 2
	// InFlightBytesMax bounds the packs that await their outcome; past it ordinary writes wait.
	InFlightBytesMax = 32 << 20
	// EntryVersion is the format version of the entries.
	EntryVersion = 1
)

// Outcome is what came of one write.
type Outcome struct {
	apply.Outcome
	// NotProposed is set where the write surely did not happen and never will: raft did not take it, or lost it. Err says why.
	NotProposed bool
}

// Done receives the outcome. It is called once, from a goroutine that must not be held up.
type Done func(Outcome)

// Write is one command and who waits for it.
type Write struct {
	// Command without its id, which the Packer gives.
	Command *journalv1.Command
	// Exclusive commands go alone into their entry: they may take long to apply.
	Exclusive bool
	// Term, if not 0, is the only term in which the write may be proposed: it rests on what this node knew as that term's leader.
	Term uint64
	Done Done
}

// Position is where a proposal stands in the log of the leader that took it.
type Position struct{ Index, Term uint64 }

var (
	// ErrLost is the error of a write that raft took and lost to another leader's log; it comes with NotProposed.
	ErrLost = errors.New("propose: lost to the log of another leader")
	// ErrTerm is the error of a write for another term than the present one; it comes with NotProposed.
	ErrTerm = errors.New("propose: the term that the write was decided in is over")
	// ErrElsewhere marks the error of a Raft that does not lead: another node may be asked, and nothing has failed.
	ErrElsewhere = errors.New("propose: another node leads")
)

// Raft is where entries go.
type Raft interface {
	// Propose returns where the entry stands once raft took it. An error says that it surely did not.
	Propose(ctx context.Context, data []byte) (Position, error)
	// ProposeConfChange is Propose for a change of the membership.
	ProposeConfChange(ctx context.Context, cc raftpb.ConfChangeI) (Position, error)
	// Term is the present raft term.
	Term() uint64
}

// Packer is the queue and the waiting room. Methods may be called from any goroutine.
type Packer struct {
	raft    Raft
	timeout time.Duration
	now     func() time.Duration

	mu            sync.Mutex
	backlog       backlog
	packing       []queued // reused by pack
	inFlight      int      // packs that await their outcome
	inFlightBytes int      // of their commands
	nextID        uint64
	waiting       map[uint64]*waiter
	// order holds the waiters by age, for the sweep.
	order  []*waiter
	packs  map[*pack]struct{} // with open waiters
	closed bool
	// term is the highest term of which anything was applied, jumped the index of the last snapshot installed.
	term, jumped uint64
	wake         chan struct{}
	failed       atomic.Uint64
}

type waiter struct {
	id   uint64
	done Done
	pack *pack
	at   time.Duration
	term uint64
}

// pack is one entry: the ids of its commands are consecutive, and some of them still wait.
type pack struct {
	first, n uint64
	open     int
	bytes    int
	term     uint64   // the only one to propose it in, or 0
	position Position // zero until raft has said it
}

// New makes a packer. firstID must differ between nodes and between runs of one node in its upper 32 bits. A write without an
// outcome after timeout fails with etcd's time-out errors; now reads a monotonic clock.
func New(raft Raft, firstID uint64, timeout time.Duration, now func() time.Duration) *Packer {
	return &Packer{
		raft: raft, timeout: timeout, now: now, nextID: firstID,
		waiting: map[uint64]*waiter{}, packs: map[*pack]struct{}{}, wake: make(chan struct{}, 1),
	}
}

// Submit queues a write. Past the bound, or after the end of Run, done is called at once with NotProposed.
func (p *Packer) Submit(w Write) {
	size := w.Command.SizeVT() + 16
	p.mu.Lock()
	queue, bytesMax := p.backlog.of(w.Command)
	var refusal error
	switch {
	case p.closed:
		refusal = rpctypes.ErrGRPCStopped
	case queue.bytes > bytesMax:
		refusal = rpctypes.ErrGRPCRequestTooManyRequests
	}
	if refusal != nil {
		p.mu.Unlock()
		w.Done(Outcome{Outcome: apply.Outcome{Err: refusal}, NotProposed: true})
		return
	}
	queue.push(queued{Write: w, size: size, at: p.now()})
	p.mu.Unlock()
	p.signal()
}

// Run packs and proposes until the context ends; then everything that waits gets its outcome.
func (p *Packer) Run(ctx context.Context) error {
	var sweeping sync.WaitGroup
	sweeping.Go(func() { p.runSweep(ctx) })
	defer sweeping.Wait()
	defer p.end()
	for {
		for p.proposeNext(ctx) {
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// runSweep is a goroutine of its own, since raft may hold up a proposal for as long as its disk hangs.
func (p *Packer) runSweep(ctx context.Context) {
	ticker := time.NewTicker(p.timeout / 10)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			p.sweep()
		case <-ctx.Done():
			return
		}
	}
}

// proposeNext makes one entry of what queued; false if nothing may be proposed now.
func (p *Packer) proposeNext(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	commands, batch, term := p.pack()
	if batch == nil {
		return false
	}
	if only := batch.term; only != 0 && only != term {
		p.refuse(batch, ErrTerm)
		return true
	}
	entry := journalv1.Entry{Version: EntryVersion, Commands: commands}
	data, err := entry.MarshalVT()
	if err != nil {
		p.refuse(batch, err)
		return true
	}
	bounded, cancel := context.WithTimeout(ctx, p.timeout)
	position, err := p.raft.Propose(bounded, data)
	cancel()
	if err != nil && ctx.Err() != nil {
		err = rpctypes.ErrGRPCStopped
	}
	p.proposed(batch, position, err)
	return true
}

// proposed takes in what raft said to a pack.
func (p *Packer) proposed(b *pack, position Position, err error) {
	switch {
	case err == nil:
		p.stands(b, position)
	case errors.Is(err, context.DeadlineExceeded):
		p.refuse(b, rpctypes.ErrGRPCTimeout)
	default:
		p.refuse(b, err)
	}
}

// pack takes the next entry off the queues and makes its writes waiters; nil if nothing may be proposed now.
func (p *Packer) pack() ([]*journalv1.Command, *pack, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	urgents, ordinaries, bytes := p.backlog.next(p.inFlightBytes >= InFlightBytesMax)
	n := urgents + ordinaries
	if n == 0 || p.inFlight >= PacksInFlight && bytes < PackBytesMax && n == p.backlog.len() {
		return nil, nil, 0
	}
	writes := p.backlog.takeNext(p.packing[:0], urgents, ordinaries)
	defer func() { clear(writes); p.packing = writes[:0] }()
	commands := make([]*journalv1.Command, n)
	batch := &pack{first: p.nextID + 1, n: uint64(n), open: n, bytes: bytes, term: writes[0].Term}
	p.packs[batch] = struct{}{}
	p.inFlight++
	p.inFlightBytes += bytes
	term := p.raft.Term()
	for i, q := range writes {
		p.nextID++
		q.Command.Id = p.nextID
		commands[i] = q.Command
		w := &waiter{id: p.nextID, done: q.Done, pack: batch, at: q.at, term: term}
		p.waiting[w.id] = w
		p.order = append(p.order, w)
	}
	return commands, batch, term
}

// Resolve hands out what apply said. Outcomes that nobody waits for (another node's, or timed out) are dropped.
func (p *Packer) Resolve(outcome apply.Outcome) {
	p.resolve(outcome.ID, Outcome{Outcome: outcome})
}

// Pending is how many writes wait for their outcome.
func (p *Packer) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// Failed is how many writes failed since the start: raft refused them, lost them, or said nothing in time. Those that found the queues
// full, or no leader here, or met the end of the packer, are none of them.
func (p *Packer) Failed() uint64 { return p.failed.Load() }

// Waits tells whether this node waits for the outcome of a command.
func (p *Packer) Waits(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.waiting[id]
	return ok
}

func (p *Packer) resolve(id uint64, outcome Outcome) {
	p.mu.Lock()
	w, ok := p.waiting[id]
	if ok {
		p.forget(w)
	}
	p.mu.Unlock()
	if ok {
		w.done(outcome)
	}
}

// forget drops a waiter and gives its pack's credit back with the last one; the caller holds the lock.
func (p *Packer) forget(w *waiter) {
	delete(p.waiting, w.id)
	w.pack.open--
	if w.pack.open == 0 {
		delete(p.packs, w.pack)
		p.inFlight--
		p.inFlightBytes -= w.pack.bytes
		p.signal()
	}
}

// sweep ends the wait of writes that are too old, proposed or still queued.
func (p *Packer) sweep() {
	now, term := p.now(), p.raft.Term()
	var late []*waiter
	p.mu.Lock()
	keep := p.order[:0]
	for _, w := range p.order {
		if _, open := p.waiting[w.id]; !open {
			continue
		}
		if now-w.at > p.timeout {
			p.forget(w)
			late = append(late, w)
			continue
		}
		keep = append(keep, w)
	}
	clear(p.order[len(keep):])
	p.order = keep
	queuedLate := p.backlog.takeOlder(now - p.timeout)
	p.mu.Unlock()
	p.failed.Add(uint64(len(late) + len(queuedLate)))
	for _, w := range late {
		w.done(Outcome{Outcome: apply.Outcome{ID: w.id, Err: timeoutError(term != w.term)}})
	}
	for _, q := range queuedLate {
		q.Done(Outcome{Outcome: apply.Outcome{Err: rpctypes.ErrGRPCTimeout}, NotProposed: true})
	}
}

// timeoutError is etcd's error for a write without an outcome.
func timeoutError(leaderChanged bool) error {
	if leaderChanged {
		return rpctypes.ErrGRPCTimeoutDueToLeaderFail
	}
	return rpctypes.ErrGRPCTimeout
}

// errEnded is what writes in flight get when the node stops: whether they happened is open.
var errEnded = errors.New("the node stopped before the outcome was known")

func (p *Packer) end() {
	p.mu.Lock()
	p.closed = true
	waiting, queue := p.waiting, p.backlog.takeAll()
	p.waiting, p.order, p.packs = map[uint64]*waiter{}, nil, map[*pack]struct{}{}
	p.mu.Unlock()
	for _, w := range waiting {
		w.done(Outcome{Outcome: apply.Outcome{ID: w.id, Err: errors.Join(rpctypes.ErrGRPCStopped, errEnded)}})
	}
	for _, q := range queue {
		q.Done(Outcome{Outcome: apply.Outcome{Err: rpctypes.ErrGRPCStopped}, NotProposed: true})
	}
}

func (p *Packer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
