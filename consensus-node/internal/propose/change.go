package propose

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
)

// Change proposes one change of the membership, which has an entry of its own and does not queue behind writes, and waits for its
// outcome, which is of the same three kinds as a write's. build makes the change under the id that the outcome will bear; its error is
// the outcome's, with NotProposed. The context's end leaves the outcome open, like any other time-out.
func (p *Packer) Change(ctx context.Context, build func(id uint64) (raftpb.ConfChangeI, error)) Outcome {
	done := make(chan Outcome, 1)
	id := p.StartChange(ctx, build, func(o Outcome) { done <- o })
	select {
	case outcome := <-done:
		return outcome
	case <-ctx.Done():
		return Outcome{Outcome: apply.Outcome{ID: id, Err: ctx.Err()}}
	}
}

// StartChange is Change for who does not wait: done gets the outcome, perhaps before StartChange returns. It returns the id.
func (p *Packer) StartChange(ctx context.Context, build func(id uint64) (raftpb.ConfChangeI, error), done Done) uint64 {
	b, ok := p.admit(done)
	if !ok {
		done(Outcome{Outcome: apply.Outcome{Err: rpctypes.ErrGRPCStopped}, NotProposed: true})
		return 0
	}
	var position Position
	change, err := build(b.first)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, p.timeout)
		position, err = p.raft.ProposeConfChange(bounded, change)
		cancel()
	}
	p.proposed(b, position, err)
	return b.first
}

// admit makes a pack of one waiter; false once the packer has ended.
func (p *Packer) admit(done Done) (*pack, bool) {
	term, now := p.raft.Term(), p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false
	}
	p.nextID++
	b := &pack{first: p.nextID, n: 1, open: 1}
	w := &waiter{id: p.nextID, done: done, pack: b, at: now, term: term}
	p.packs[b] = struct{}{}
	p.inFlight++
	p.waiting[w.id] = w
	p.order = append(p.order, w)
	return b, true
}
