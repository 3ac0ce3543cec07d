// Package propose turns writes into raft entries and waits for what comes of them.
//
// Writes from all streams queue here. A Packer packs what queued into one entry (up to PackBytesMax, or one request
// alone where it is larger or exclusive) and proposes it. At most PacksInFlight packs wait for their outcome unless a
// pack is full: an idle node proposes at once, and under load everything that arrives during one round of append,
// replication and apply shares the next entry.
//
// Of each write exactly one Outcome comes, in one of three kinds: what apply said; NotProposed, with the certainty that raft
// never took it; or an error that leaves open whether it happened (time ran out). Nothing is ever proposed twice.
package propose

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

const (
	// PackBytesMax bounds the commands of one entry, so that one entry never holds up replication or apply for long.
	PackBytesMax = 256 << 10
	// PacksInFlight is how many packs may await their outcome before a further one must be full.
	PacksInFlight = 2
	// QueueBytesMax bounds what waits; past it writes are refused as too many requests.
	QueueBytesMax = 16 << 20
	// EntryVersion is the format version of the entries.
	EntryVersion = 1
)

// Outcome is what came of one write.
type Outcome struct {
	apply.Outcome
	// NotProposed is set where raft surely never took the write; Err says why.
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
	// SpanContext is the encoded context of the sampled span that the write belongs to; nil if there is none.
	SpanContext []byte
	Done        Done
}

// Raft is where entries go.
type Raft interface {
	// Propose returns nil once raft took the entry. An error says that it surely did not.
	Propose(ctx context.Context, data []byte) error
	// Term is the present raft term.
	Term() uint64
}

// Packer is the queue and the waiting room. Methods may be called from any goroutine.
type Packer struct {
	raft    Raft
	timeout time.Duration
	now     func() time.Duration

	mu         sync.Mutex
	queue      []queued
	queueBytes int
	inFlight   int
	nextID     uint64
	waiting    map[uint64]*waiter
	// order holds the waiters by age, for the sweep.
	order  []*waiter
	closed bool
	wake   chan struct{}
}

type queued struct {
	Write
	size int
	at   time.Duration
}

type waiter struct {
	id   uint64
	done Done
	span []byte
	pack *pack
	at   time.Duration
	term uint64
}

// pack counts the waiters of one entry.
type pack struct{ open int }

// New makes a packer. firstID must differ between nodes and between runs of one node in its upper 32 bits. A write without an
// outcome after timeout fails with etcd's time-out errors; now reads a monotonic clock.
func New(raft Raft, firstID uint64, timeout time.Duration, now func() time.Duration) *Packer {
	return &Packer{
		raft: raft, timeout: timeout, now: now, nextID: firstID,
		waiting: map[uint64]*waiter{}, wake: make(chan struct{}, 1),
	}
}

// Submit queues a write. Past the bound, or after the end of Run, done is called at once with NotProposed.
func (p *Packer) Submit(w Write) {
	size := w.Command.SizeVT() + 16
	p.mu.Lock()
	var refusal error
	switch {
	case p.closed:
		refusal = rpctypes.ErrGRPCStopped
	case p.queueBytes > QueueBytesMax:
		refusal = rpctypes.ErrGRPCRequestTooManyRequests
	}
	if refusal != nil {
		p.mu.Unlock()
		w.Done(Outcome{Outcome: apply.Outcome{Err: refusal}, NotProposed: true})
		return
	}
	p.queue = append(p.queue, queued{Write: w, size: size, at: p.now()})
	p.queueBytes += size
	p.mu.Unlock()
	p.signal()
}

// Run packs and proposes until the context ends; then everything that waits gets its outcome.
func (p *Packer) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.timeout / 10)
	defer ticker.Stop()
	defer p.end()
	for {
		for p.proposeNext(ctx) {
		}
		select {
		case <-p.wake:
		case <-ticker.C:
			p.sweep()
		case <-ctx.Done():
			return nil
		}
	}
}

// proposeNext makes one entry of what queued; false if nothing may be proposed now.
func (p *Packer) proposeNext(ctx context.Context) bool {
	p.mu.Lock()
	n, bytes := p.measure()
	if n == 0 || p.inFlight >= PacksInFlight && bytes < PackBytesMax && n == len(p.queue) {
		p.mu.Unlock()
		return false
	}
	entry := &journalv1.Entry{Version: EntryVersion, Commands: make([]*journalv1.Command, n)}
	batch := &pack{open: n}
	p.inFlight++
	term := p.raft.Term()
	for i, q := range p.queue[:n] {
		p.nextID++
		q.Command.Id = p.nextID
		entry.Commands[i] = q.Command
		w := &waiter{id: p.nextID, done: q.Done, span: q.SpanContext, pack: batch, at: q.at, term: term}
		p.waiting[w.id] = w
		p.order = append(p.order, w)
	}
	p.queue = append(p.queue[:0:0], p.queue[n:]...)
	p.queueBytes -= bytes
	p.mu.Unlock()

	data, err := entry.MarshalVT()
	if err == nil {
		err = p.raft.Propose(ctx, data)
	}
	if err != nil {
		for _, command := range entry.GetCommands() {
			p.resolve(command.GetId(), Outcome{Outcome: apply.Outcome{ID: command.GetId(), Err: err}, NotProposed: true})
		}
	}
	return true
}

// measure tells how many queued writes the next entry takes; the caller holds the lock.
func (p *Packer) measure() (n, bytes int) {
	for i, q := range p.queue {
		if i > 0 && (q.Exclusive || bytes+q.size > PackBytesMax) {
			break
		}
		n, bytes = i+1, bytes+q.size
		if q.Exclusive {
			break
		}
	}
	return n, bytes
}

// Resolve hands out what apply said. Outcomes that nobody waits for (another node's, or timed out) are dropped.
func (p *Packer) Resolve(outcome apply.Outcome) {
	p.resolve(outcome.ID, Outcome{Outcome: outcome})
}

// Waits tells whether this node waits for the outcome of a command.
func (p *Packer) Waits(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.waiting[id]
	return ok
}

// SpanContext gives the span context of a command that waits here and is sampled, or nil.
func (p *Packer) SpanContext(id uint64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := p.waiting[id]; ok {
		return w.span
	}
	return nil
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
		p.inFlight--
		p.signal()
	}
}

// sweep ends the wait of writes that are too old, proposed or still queued.
func (p *Packer) sweep() {
	now, term := p.now(), p.raft.Term()
	var late []*waiter
	var queuedLate []queued
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
	n := 0
	for n < len(p.queue) && now-p.queue[n].at > p.timeout {
		p.queueBytes -= p.queue[n].size
		n++
	}
	queuedLate = append(queuedLate, p.queue[:n]...)
	p.queue = append(p.queue[:0:0], p.queue[n:]...)
	p.mu.Unlock()
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
	waiting, queue := p.waiting, p.queue
	p.waiting, p.queue, p.order = map[uint64]*waiter{}, nil, nil
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
