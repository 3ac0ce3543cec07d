package propose

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
)

// Applied tells that everything up to some entry of a term was applied and that all its outcomes were resolved. What still
// waits from an earlier term gets its outcome; see the package comment.
func (p *Packer) Applied(term uint64) {
	p.mu.Lock()
	if term <= p.term {
		p.mu.Unlock()
		return
	}
	p.term = term
	p.settle()
}

// Jumped tells that a snapshot took the place of the state: outcomes up to its index come no more.
func (p *Packer) Jumped(index uint64) {
	p.mu.Lock()
	p.jumped = max(p.jumped, index)
	p.settle()
}

// stands records where raft put a pack. What decides its fate may have been applied already.
func (p *Packer) stands(b *pack, position Position) {
	p.mu.Lock()
	b.position = position
	p.settle()
}

// refuse gives all writes of a pack the reason why raft did not take it.
func (p *Packer) refuse(b *pack, err error) {
	p.mu.Lock()
	waiters := p.take(b)
	p.mu.Unlock()
	if !errors.Is(err, ErrElsewhere) && !errors.Is(err, rpctypes.ErrGRPCStopped) {
		p.failed.Add(uint64(len(waiters)))
	}
	answer(waiters, err, true)
}

// settle ends the wait of packs of whose writes apply will not tell. The caller holds the lock, and settle lets it go.
func (p *Packer) settle() {
	var lost, open []*waiter
	for b := range p.packs {
		switch {
		case b.position == Position{}:
		case b.position.Index <= p.jumped:
			open = append(open, p.take(b)...)
		case b.position.Term < p.term:
			lost = append(lost, p.take(b)...)
		}
	}
	p.mu.Unlock()
	p.failed.Add(uint64(len(open) + len(lost)))
	answer(open, rpctypes.ErrGRPCTimeoutDueToLeaderFail, false)
	answer(lost, ErrLost, true)
}

// take removes the waiters of a pack, in their order; the caller holds the lock.
func (p *Packer) take(b *pack) []*waiter {
	var waiters []*waiter
	for id := b.first; id != b.first+b.n; id++ {
		if w, ok := p.waiting[id]; ok {
			p.forget(w)
			waiters = append(waiters, w)
		}
	}
	return waiters
}

func answer(waiters []*waiter, err error, notProposed bool) {
	for _, w := range waiters {
		w.done(Outcome{Outcome: apply.Outcome{ID: w.id, Err: err}, NotProposed: notProposed})
	}
}
