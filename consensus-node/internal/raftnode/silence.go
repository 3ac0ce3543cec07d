package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// ErrOtherTerm says that the node is not in the term that it was asked about, or does not lead in it.
var ErrOtherTerm = errors.New("raft: the node is in another term")

// obeyed remembers when leaders could last confirm anything with this node's help. It starts with the node's start: what the process
// before it did is not known.
type obeyed struct {
	// term is that of the newest leader, last when it was helped last.
	term uint64
	last time.Duration
	// before is when a leader of an earlier term was helped last, or the members changed last.
	before time.Duration
}

// helped notes that a heartbeat of the leader of a term has arrived, or that this node is or was that leader itself.
func (o *obeyed) helped(term uint64, now time.Duration) {
	if term > o.term {
		o.term, o.before = term, max(o.before, o.last)
	}
	if term == o.term {
		o.last = now
	}
}

// moved notes that the members changed: quorums of before need not meet those of now, but nothing is confirmed by an older leader that
// knows too little of the members once this node knows them.
func (o *obeyed) moved(now time.Duration) { o.before = now }

// by is when a leader of a term below the given one was helped last.
func (o *obeyed) by(term uint64) time.Duration {
	if o.term < term {
		return max(o.before, o.last)
	}
	return o.before
}

// noteLead notes what this node confirmed as a leader, as long as it leads and once more when it does not any longer.
func (n *Node) noteLead() {
	if n.loop.state == raft.StateLeader {
		n.loop.obeyed.helped(n.loop.term, n.cfg.Now())
	}
}

// Silence tells since how long this node has helped no leader of a term below the given one to confirm anything, in which term it must be.
// Errors: [ErrOtherTerm], the context's, [ErrStopped].
func (n *Node) Silence(ctx context.Context, term uint64) (silent time.Duration, err error) {
	done := n.do(ctx, func() {
		at, _, otherTerm := n.silentSince(term)
		silent, err = n.cfg.Now()-at, otherTerm
	})
	if done != nil {
		return 0, done
	}
	return silent, err
}

// silentSince is Silence as a moment, and who votes at that time. The loop calls it.
func (n *Node) silentSince(term uint64) (at time.Duration, voters []uint64, err error) {
	n.noteLead()
	if n.raw.BasicStatus().GetTerm() != term {
		return 0, nil, ErrOtherTerm
	}
	if n.loop.joint {
		return 0, nil, errors.New("raft: the members are changing")
	}
	return n.loop.obeyed.by(term), slices.Clone(n.loop.voters), nil
}

// Inherited gives a moment of the clock after which no leader before this one, which leads in the given term, began to confirm anything:
// the quorum that helped it shares a member with that which answers here. ask is Silence of another member; each answer counts from
// its arrival. A time that one clock measured is as good as that of any other, as long as their rates are those that are
// allowed. Errors: [ErrOtherTerm], the context's, [ErrStopped].
func (n *Node) Inherited(
	ctx context.Context, term uint64, ask func(ctx context.Context, member, term uint64) (time.Duration, error),
) (at time.Duration, err error) {
	var voters []uint64
	if done := n.do(ctx, func() { at, voters, err = n.silentSince(term) }); done != nil || err != nil {
		return 0, errors.Join(done, err)
	}
	if !slices.Contains(voters, n.cfg.ID) {
		return 0, fmt.Errorf("raft: member %x does not vote", n.cfg.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	since := make(chan time.Duration, len(voters))
	for _, member := range voters {
		if member != n.cfg.ID {
			go func() {
				if at, ok := n.askSilence(ctx, member, term, ask); ok {
					since <- at
				}
			}()
		}
	}
	return n.gather(ctx, at, since, len(voters)-1)
}

// gather makes the earliest of the moments that a quorum vouches for, this node always among it. The old leader itself may live and
// answer first, and knows the latest moment of all: so it waits one tick longer than for a quorum.
func (n *Node) gather(ctx context.Context, own time.Duration, since <-chan time.Duration, others int) (time.Duration, error) {
	enough := (others + 1) / 2
	var told []time.Duration
	var late <-chan time.Time
	for len(told) < others {
		select {
		case at := <-since:
			if told = append(told, at); len(told) == enough {
				timer := time.NewTimer(n.cfg.Tick)
				defer timer.Stop()
				late = timer.C
			}
			continue
		case <-late:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-n.done:
			return 0, ErrStopped
		}
		break
	}
	if enough == 0 {
		return own, nil
	}
	slices.Sort(told)
	return max(own, told[enough-1]), nil
}

// askSilence asks one member until it answers. It may not have heard of the new term yet.
func (n *Node) askSilence(
	ctx context.Context, member, term uint64, ask func(ctx context.Context, member, term uint64) (time.Duration, error),
) (at time.Duration, ok bool) {
	for {
		if silent, err := ask(ctx, member, term); err == nil {
			return n.cfg.Now() - silent, true
		}
		select {
		case <-time.After(n.cfg.Tick / 2):
		case <-ctx.Done():
			return 0, false
		}
	}
}
