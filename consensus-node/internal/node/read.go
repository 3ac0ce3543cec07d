package node

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
)

// Current gives the newest published view. The caller releases it.
func (n *Node) Current() (*View, error) {
	for {
		v := n.view.Load()
		if v == nil {
			return nil, rpctypes.ErrGRPCStopped
		}
		if v.acquire() {
			return v, nil
		}
	}
}

// Alarms gives those that are raised as of the newest published view. It costs one load.
func (n *Node) Alarms() apply.Alarms {
	if v := n.view.Load(); v != nil {
		return v.View.Alarms // what a view says without its values never changes
	}
	return nil
}

// Lists tells whether the member list of the newest published view has a member. It costs one load.
func (n *Node) Lists(member uint64) bool {
	if v := n.view.Load(); v != nil {
		_, ok := v.View.Members.Get(member)
		return ok
	}
	return false
}

// Linearize gives a view that holds everything acknowledged before the call, by way of a read index. The caller releases
// it.
func (n *Node) Linearize(ctx context.Context) (*View, error) {
	index, err := n.raft.ReadIndex(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.applied.wait(ctx, index); err != nil {
		return nil, err
	}
	return n.Current()
}

// AtRevision gives a view of at least the given revision, waiting for it. The caller releases it.
func (n *Node) AtRevision(ctx context.Context, revision int64) (*View, error) {
	if revision > 0 && n.revisions.value() < uint64(revision) {
		hurried, cancel := context.WithCancel(ctx)
		defer cancel()
		go n.hurry(hurried)
		if err := n.revisions.wait(ctx, uint64(revision)); err != nil {
			return nil, err
		}
	}
	return n.Current()
}

// hurry asks for a read index, which brings the leader's commit index along: a leader may tell it late. Without a leader nothing comes of it.
func (n *Node) hurry(ctx context.Context) { _, _ = n.raft.ReadIndex(ctx) }

// AtLeaseSequence gives a view of at least the given lease sequence, waiting for it. The caller releases it.
func (n *Node) AtLeaseSequence(ctx context.Context, sequence uint64) (*View, error) {
	if err := n.leases.wait(ctx, sequence); err != nil {
		return nil, err
	}
	return n.Current()
}

// AwaitCompacted waits until the physical part of the compaction at revision is done.
func (n *Node) AwaitCompacted(ctx context.Context, revision int64) error {
	return n.compacted.wait(ctx, uint64(max(0, revision)))
}
