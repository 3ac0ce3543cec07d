package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// Server is the receiving side, to be registered on the gRPC server of the peer URLs. Its streams end with that server.
type Server struct {
	peerv1.UnimplementedPeerServer
	cfg  Config
	node Node

	reception reception // of one image at a time
	refusals  quiet
	evictions evictions
}

var _ peerv1.PeerServer = (*Server)(nil)

// NewServer makes the receiving side of node n.
func NewServer(cfg Config, n Node) *Server { return &Server{cfg: cfg.withDefaults(), node: n} }

// Identify implements peerv1.PeerServer.
func (s *Server) Identify(context.Context, *peerv1.IdentifyRequest) (*peerv1.IdentifyResponse, error) {
	return &peerv1.IdentifyResponse{
		Version: Version, ClusterId: s.cfg.ClusterID, MemberId: s.cfg.ID, Name: s.cfg.Name,
	}, nil
}

// Silence implements peerv1.PeerServer.
func (s *Server) Silence(ctx context.Context, request *peerv1.SilenceRequest) (*peerv1.SilenceResponse, error) {
	if err := s.checkHello(request.GetHello()); err != nil {
		return nil, err
	}
	silent, err := s.node.Silence(ctx, request.GetTerm())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerv1.SilenceResponse{SilentUs: uint64(silent.Microseconds())}, nil
}

// Messages implements peerv1.PeerServer. It marks batches as taken once the node has them, so that a node that is busy holds up the sender,
// whose bounded lane then overflows.
func (s *Server) Messages(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
	batch, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := batch.GetHello()
	if err := s.checkHello(hello); err != nil {
		return err
	}
	if err := stream.SendHeader(metadata.Pairs(acceptedKey, "1")); err != nil {
		return err
	}
	if s.cfg.OnHello != nil {
		s.cfg.OnHello(hello.GetFrom(), hello.GetPeerUrls())
	}
	evicted := s.evictions.of(hello.GetFrom())
	// Who was removed before evicted was asked for is not evicted again.
	if err := s.cfg.checkMember(hello.GetFrom()); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.takeAll(stream, hello.GetFrom(), batch) }() // ends with the stream
	select {
	case err := <-ended:
		return err
	case <-evicted:
		return s.cfg.checkMember(hello.GetFrom())
	}
}

// takeAll takes batches until the stream ends.
func (s *Server) takeAll(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck], from uint64, batch *peerv1.MessageBatch) (err error) {
	var unmarked window
	bytes, failed := s.cfg.Metrics.receivedBytes.WithLabelValues(label(from)), s.cfg.Metrics.receivedFailed.WithLabelValues(label(from))
	for taken := uint64(1); ; taken++ {
		size := batchBytes(batch.GetMessages())
		bytes.Add(float64(size))
		if err := s.take(stream.Context(), from, batch); err != nil {
			failed.Inc()
			return err
		}
		if unmarked.sent(size); unmarked.due() {
			unmarked.mark(taken)
			if err := stream.Send(&peerv1.MessageAck{Taken: taken}); err != nil {
				return err
			}
		}
		if batch, err = stream.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// checkHello refuses a stream that is not for this member, with a line in the log for the first of its kind.
func (s *Server) checkHello(h *peerv1.Hello) error {
	err := s.cfg.checkHello(h)
	if err != nil {
		from, reason := fmt.Sprintf("%x", h.GetFrom()), status.Convert(err).Message()
		if s.refusals.may(from+" "+reason, time.Now()) {
			s.cfg.Logger.Warn("stream of a peer refused", "member", from, "reason", reason)
		}
	}
	return err
}

func (s *Server) take(ctx context.Context, from uint64, batch *peerv1.MessageBatch) error {
	for _, raw := range batch.GetMessages() {
		m, err := s.decode(from, raw)
		if err != nil {
			return err
		}
		if err := s.node.Step(ctx, m); err != nil {
			return status.Errorf(codes.Unavailable, "message not taken: %v", err)
		}
	}
	return nil
}

// decode reads a raft message of member from.
func (s *Server) decode(from uint64, raw []byte) (*raftpb.Message, error) {
	m := &raftpb.Message{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "malformed raft message: %v", err)
	}
	// A follower hands on what other members ask of the leader, so the message's own sender may be another one.
	if m.GetTo() != s.cfg.ID {
		return nil, status.Errorf(codes.InvalidArgument, "a message from %x for member %x came to %x", from, m.GetTo(), s.cfg.ID)
	}
	return m, nil
}
