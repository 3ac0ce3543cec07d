package edge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/buffers"
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
	// StrictReconfig refuses changes of the member list that would put the quorum at risk.
	StrictReconfig bool
	// HealthInterval is how long a member must have been connected to count for that check; etcd's is 5 s.
	HealthInterval time.Duration
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
	Space               *Space
	// Free tells the free bytes of the disk.
	Free     func() (int64, error)
	Ring     *outbox.Ring
	Speaker  outbox.Speaker
	Registry *Registry
	Leases   *Leases
	// ActiveSince tells since when a member is connected to this one without a break; zero if it is not.
	ActiveSince func(id uint64) time.Time
	// Silence asks a member since how long it has helped no leader of a term below the given one.
	Silence func(ctx context.Context, member, term uint64) (time.Duration, error)
	// Forward carries a call to a member that leads.
	Forward func(ctx context.Context, leader uint64, call *consensusv1.Call) (*consensusv1.Answer, error)
	// Buffers lends the memory of long answers; whoever has read the last of one may give it back.
	Buffers *buffers.Pool
	// Observer is told what the calls come to.
	Observer Observer
	Limits   Limits
	Logger   *slog.Logger
	Tracer   trace.Tracer
}

// Server implements the Consensus service. Methods are called by gRPC or the direct binding.
type Server struct {
	consensusv1.UnimplementedConsensusServer
	cfg      Config
	ids      *idSource
	failures failure.Edge
	encoders sync.Pool // of *mvcc.Encoder
	// changing holds a token while one change of the member list is on its way.
	changing      chan struct{}
	noSpace       raising
	defragmenting sharedWork
}

// New makes a server.
func New(cfg Config) *Server {
	return &Server{
		cfg: cfg, ids: newIDSource(cfg.MemberID), failures: failure.Edge{Logger: cfg.Logger},
		encoders: sync.Pool{New: func() any { return &mvcc.Encoder{} }}, changing: make(chan struct{}, 1),
	}
}

// header makes the header of an answer whose state had the given revision.
func (s *Server) header(revision int64, term uint64) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID, Revision: revision, RaftTerm: term,
	}
}

// term is the raft term that headers carry.
func (s *Server) term() uint64 { return s.cfg.Raft.Status().Term }
