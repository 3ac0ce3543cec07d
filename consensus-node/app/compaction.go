package app

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/compactor"
	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/clock"
)

// runCompaction compacts the history as --auto-compaction-retention says, while this node leads.
func (n *Node) runCompaction(ctx context.Context) error {
	space := &n.cfg.Space
	if space.retention == 0 {
		return nil
	}
	mode, boot := compactor.Mode(space.CompactMode.String()), clock.Boottime{}
	auto := compactor.New(mode, space.retention, boot.Now(), n.revision())
	ticker := time.NewTicker(auto.Interval())
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		revision, now := auto.Tick(boot.Now(), n.raft.Status().Leader == n.memberID, n.revision())
		if !now {
			continue
		}
		if err := n.compact(ctx, revision); err != nil {
			n.log.Warn("automatic compaction failed and will be tried again", "mode", string(mode), "revision", revision, "error", err)
			continue
		}
		n.log.Info("automatic compaction is done", "mode", string(mode), "revision", revision)
		auto.Done(boot.Now())
	}
}

// compact proposes a compaction. That somebody was faster is fine.
func (n *Node) compact(ctx context.Context, revision int64) error {
	request, err := proto.Marshal(&pb.CompactionRequest{Revision: revision})
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, n.cfg.limits().RequestTimeout)
	defer cancel()
	_, err = edge.Await(bounded, n.packer, propose.Write{
		Command: &journalv1.Command{Command: &journalv1.Command_Compact{Compact: request}}, Exclusive: true,
	})
	if errors.Is(err, rpctypes.ErrGRPCCompacted) {
		return nil
	}
	return err
}

// revision is the newest that this node has applied; 0 while it ends.
func (n *Node) revision() int64 {
	view, err := n.machine.Current()
	if err != nil {
		return 0
	}
	defer view.Release()
	return view.KV.Revision()
}

// busyPressure is how full the store's queue may be for a step of compaction to go into it too: behind a disk that does not keep up,
// the room is left to the writes.
const busyPressure = 0.5

// busy tells whether the steps of a compaction have to wait: not to add to what the disk is behind with, nor to a file that is being
// copied, which has to catch up with each.
func (n *Node) busy() bool {
	return n.disk.store.Pressure() >= busyPressure || n.disk.store.Defragmenting()
}
