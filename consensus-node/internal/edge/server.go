package edge

import (
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Limits are what a node refuses by, etcd's flags of the same names.
type Limits struct {
	// TxnOpsMax bounds the operations of a transaction, RequestBytesMax a write request.
	TxnOpsMax       int
	RequestBytesMax int
	// LeaseTTLMinS is the shortest TTL that is granted, in seconds; shorter ones are raised to it.
	LeaseTTLMinS int64
	// RequestTimeout bounds a linearizable read, and a write from its proposal on.
	RequestTimeout time.Duration
}

// tooLarge tells whether a write is over the limit. etcd measures what it would propose: the request with its tag and length,
// and a header that holds the id of the proposal. So does this.
func (l Limits) tooLarge(request []byte) bool {
	const envelopeBytes = 14 // the tag, and a header of 13 bytes around an id of nine (ten for half of all members)
	return envelopeBytes+protowire.SizeBytes(len(request)) > l.RequestBytesMax
}

// Config is what the edge stands on.
type Config struct {
	ClusterID, MemberID uint64
	Node                *node.Node
	Packer              *propose.Packer
	Raft                *raftnode.Node
	Store               *store.Store
	Ring                *outbox.Ring
	Speaker             outbox.Speaker
	Registry            *Registry
	Leases              *Leases
	Limits              Limits
	Logger              *slog.Logger
	Tracer              trace.Tracer
}

// Server implements the Consensus service. Methods are called by gRPC or the direct binding.
type Server struct {
	consensusv1.UnimplementedConsensusServer
	cfg      Config
	ids      *idSource
	failures failure.Edge
}

// New makes a server.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, ids: newIDSource(cfg.MemberID), failures: failure.Edge{Logger: cfg.Logger}}
}

// header makes the header of an answer whose state had the given revision.
func (s *Server) header(revision int64, term uint64) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID, Revision: revision, RaftTerm: term,
	}
}

// term is the raft term that headers carry.
func (s *Server) term() uint64 { return s.cfg.Raft.Status().Term }
