package edge

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/version"
)

// parseUpkeep reads the calls about this member's database and version.
func (s *Server) parseUpkeep(call *consensusv1.Call) (work, error) {
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_DEFRAGMENT:
		return work{task: s.defragment}, nil
	case consensusv1.Method_METHOD_HASH:
		return work{task: s.hash}, nil
	case consensusv1.Method_METHOD_DOWNGRADE:
		request, err := decode[pb.DowngradeRequest](call)
		if err != nil {
			return work{}, err
		}
		return work{task: func(ctx context.Context) (proto.Message, error) { return s.downgrade(ctx, request) }}, nil
	default:
		return work{}, fmt.Errorf("%s is no call about the database", call.GetMethod())
	}
}

// runTask answers a call whose work needs no view.
func (s *Server) runTask(ctx context.Context, call *consensusv1.Call, w work, reply reply) {
	response, err := w.task(ctx)
	if err != nil {
		reply(call, s.failed(ctx, call, err))
		return
	}
	reply(call, s.answer(call, response, headerOf(response).GetRevision()))
}

// defragment goes on if its caller does not wait any longer, as etcd's does: it ends with the database at the latest. Callers who come while
// one is under way share the next.
func (s *Server) defragment(ctx context.Context) (proto.Message, error) {
	err := s.defragmenting.do(ctx, func() error { return s.defragmentOnce(context.WithoutCancel(ctx)) })
	if err != nil {
		return nil, err
	}
	return &pb.DefragmentResponse{}, nil // without a header, as etcd's
}

func (s *Server) defragmentOnce(ctx context.Context) error {
	if err := s.roomForCopy(); err != nil {
		return err
	}
	before, start := s.cfg.Store.Size(), time.Now()
	if err := s.cfg.Store.Defragment(ctx); err != nil {
		s.cfg.Logger.Warn("the database was not defragmented", "error", err)
		return err
	}
	s.cfg.Logger.Info("the database is defragmented",
		"bytes_before", before, "bytes_after", s.cfg.Store.Size(), "took", time.Since(start).String())
	return nil
}

// compacted waits until the compaction at a revision is done, and committed: no crash brings back what was dropped, and the space is
// free.
func (s *Server) compacted(ctx context.Context, revision int64) error {
	if err := s.cfg.Node.AwaitCompacted(ctx, revision); err != nil {
		return err
	}
	return s.cfg.Store.Flush(ctx)
}

// roomForCopy refuses what would fill the disk: the copy lies beside the database until it takes its place.
func (s *Server) roomForCopy() error {
	free, err := s.cfg.Free()
	if err != nil {
		return nil //nolint:nilerr // not known, so it is tried
	}
	const spare = 32 << 20
	if needed := s.cfg.Store.SizeInUse() + spare; free < needed {
		return status.Errorf(codes.ResourceExhausted,
			"holdfast: the disk has %d bytes free and a copy of the database needs %d: make room on it, and defragment then", free, needed)
	}
	return nil
}

func (s *Server) hash(ctx context.Context) (proto.Message, error) {
	view, err := s.cfg.Node.Current()
	if err != nil {
		return nil, err
	}
	revision := view.KV.Revision()
	view.Release()
	began := time.Now()
	sum, err := s.cfg.Store.Hash(ctx)
	if err != nil {
		return nil, err
	}
	s.cfg.Observer.Hashed(false, time.Since(began))
	return &pb.HashResponse{Header: s.header(revision, s.term()), Hash: sum}, nil
}

// errNoDowngrade answers where etcd would begin one.
var errNoDowngrade = status.Error(codes.Unimplemented, "holdfast: a downgrade is not implemented: there is no older version of Holdfast to go to")

// downgrade has etcd's answers for what etcd refuses, for whether the cluster version allows a target, and for a cancellation when nothing
// is in progress, which nothing ever is.
func (s *Server) downgrade(ctx context.Context, request *pb.DowngradeRequest) (proto.Message, error) {
	switch action := request.GetAction(); action {
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		if err := checkDowngrade(request.GetVersion()); err != nil {
			return nil, err
		}
		if action == pb.DowngradeRequest_ENABLE {
			return nil, errNoDowngrade
		}
	case pb.DowngradeRequest_CANCEL:
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	view, err := s.cfg.Node.Linearize(bounded)
	if err != nil {
		return nil, err
	}
	defer view.Release()
	return &pb.DowngradeResponse{Header: s.header(view.KV.Revision(), s.term()), Version: shortVersion(version.ClusterAPI)}, nil
}

// checkDowngrade refuses a target: etcd goes back by one minor version and no other.
func checkDowngrade(text string) error {
	target, err := member.ParseVersion(text)
	if err != nil {
		return rpctypes.ErrGRPCWrongDowngradeVersionFormat
	}
	present, err := member.ParseVersion(version.ClusterAPI)
	if err != nil {
		return err
	}
	if target.Major != present.Major || target.Minor+1 != present.Minor {
		return rpctypes.ErrGRPCInvalidDowngradeTargetVersion
	}
	return nil
}

// shortVersion is the major and minor part.
func shortVersion(text string) string {
	parts := strings.SplitN(text, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}
