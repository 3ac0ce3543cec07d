package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/grpcclient"
)

// spaceInterval is how often the free space of the disk is looked at. At 1 GB/s of writes it falls by a segment in 64 ms, at a
// hundredth of that in some seconds; what comes in faster ends the node as before.
const spaceInterval = 500 * time.Millisecond

// runSpace keeps an eye on the disk, and raises this member's NOSPACE alarm before writes to it fail. A write that the quota refuses
// raises the alarm by itself, on the leader; a follower whose own database is full has nobody to refuse and raises it here.
func (n *Node) runSpace(ctx context.Context) error {
	n.cfg.Space.warn(n.log)
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	for {
		n.watchDisk()
		leads := n.raft.Status().Leader == n.memberID
		if n.space.DiskFull() || !leads && n.space.Full() {
			n.raiseNoSpace(ctx)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) watchDisk() {
	free, err := n.cfg.freeBytes()
	if err != nil {
		n.log.Debug("free space of the disk is not known", "error", err)
		return
	}
	reserve := n.cfg.diskReserve()
	full := free < reserve
	if full != n.space.DiskFull() {
		if full {
			n.log.Warn("the disk is nearly full: writes are refused until there is room and the NOSPACE alarm is disarmed",
				"free_bytes", free, "reserve_bytes", reserve)
		} else {
			n.log.Info("the disk has room again", "free_bytes", free, "reserve_bytes", reserve)
		}
		n.space.SetDiskFull(full)
	}
}

func (n *Node) raiseNoSpace(ctx context.Context) {
	if n.server.NoSpaceRaised() {
		return
	}
	const patience = 2 * time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	if n.raft.Status().Leader == n.memberID {
		err = n.server.RaiseNoSpace(bounded)
	} else {
		err = n.askLeader(bounded, consensusv1.Method_METHOD_ALARM, edge.NoSpaceRequest(n.memberID))
	}
	if err != nil {
		n.log.Warn("the NOSPACE alarm is not raised yet", "error", err)
	}
}

// askLeader makes one client call to the leader, as a proxy does. The response is dropped.
func (n *Node) askLeader(ctx context.Context, method consensusv1.Method, request proto.Message) error {
	view, err := n.machine.Current()
	if err != nil {
		return err
	}
	leader, known := view.Members.Get(n.raft.Status().Leader)
	view.Release()
	if !known {
		return errors.New("no leader to ask")
	}
	endpoints, err := hostPorts(leader.PeerURLs)
	if err != nil {
		return err
	}
	conn, err := grpcclient.Dial(grpcclient.Config{}, endpoints...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx) // which ends the stream
	defer cancel()
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	if err != nil {
		return err
	}
	data, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a call: %w", err)
	}
	err = stream.Send(&consensusv1.CallBatch{
		Hello: &consensusv1.Hello{Version: edge.ProtocolVersion, Name: n.cfg.Name, ClusterId: n.clusterID},
		Calls: []*consensusv1.Call{{Id: 1, Method: method, Request: data}},
	})
	if err != nil {
		return err
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, answer := range batch.GetAnswers() {
			if answer.GetCode() != 0 {
				return status.Error(codes.Code(answer.GetCode()), answer.GetMessage())
			}
			return nil
		}
	}
}
