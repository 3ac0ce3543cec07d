package app

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// receiver is the raft loop as the transport sees it. It looks into a received image before raft hears of it: once the log is marked
// for an image, the node has nothing but that image to go on with.
type receiver struct{ *raftnode.Node }

// ReceiveSnapshot refuses an image that is not what its message says.
func (r receiver) ReceiveSnapshot(ctx context.Context, m *raftpb.Message, path string) error {
	if err := checkImage(m.GetSnapshot().GetMetadata(), path); err != nil {
		return fmt.Errorf("%w: %w", raftnode.ErrSnapshotRefused, err)
	}
	return r.Node.ReceiveSnapshot(ctx, m, path)
}

// checkImage says how an image differs from what was announced.
func checkImage(announced *raftpb.SnapshotMetadata, path string) error {
	found, err := store.ReadMeta(path)
	switch {
	case err != nil:
		return fmt.Errorf("the image cannot be read: %w", err)
	case found.Index != announced.GetIndex() || found.Term != announced.GetTerm():
		return fmt.Errorf("the image is of index %d in term %d, and was announced as of index %d in term %d",
			found.Index, found.Term, announced.GetIndex(), announced.GetTerm())
	case !proto.Equal(found.ConfState, announced.GetConfState()):
		return fmt.Errorf("the image has the membership %v, and was announced with %v", found.ConfState, announced.GetConfState())
	}
	return nil
}
