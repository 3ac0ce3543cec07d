package transport

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// Version is the protocol version that this package speaks.
const Version = 1

const (
	// batchBytesMax closes a batch; one message may be larger alone.
	batchBytesMax = 1 << 20
	// A lane to a member holds at most this much; appends may fill raft's own bound of bytes in flight.
	urgentCountMax, urgentBytesMax = 4096, 4 << 20
	appendCountMax, appendBytesMax = 4096, 64 << 20
	// messageOverhead is what a message or an entry costs beside its data.
	messageOverhead = 64

	chunkBytes = 512 << 10
)

// ServerMessageBytes is the message size that the gRPC server must take, for entries of at most entryBytesMax: a batch, or one append of
// raft, which holds at least one entry whatever its size.
func ServerMessageBytes(entryBytesMax int) int { return 2*batchBytesMax + entryBytesMax + 64<<10 }

// Node is what the transport delivers to; raftnode.Node is the real one.
type Node interface {
	// Step takes a message. It may wait; the sender is held up meanwhile.
	Step(ctx context.Context, m *raftpb.Message) error
	// ReportUnreachable says that a message to member id was lost. It does not wait.
	ReportUnreachable(id uint64)
	// ReportGone says that all addresses of member id refuse connections: nothing listens there. It does not wait.
	ReportGone(id uint64)
	// ReceiveSnapshot takes the image at path; after an error that is raftnode.ErrSnapshotRefused the file is still the transport's.
	ReceiveSnapshot(ctx context.Context, m *raftpb.Message, path string) error
	// Silence is raftnode.Node's.
	Silence(ctx context.Context, term uint64) (time.Duration, error)
}

// Config is common to the sending and the receiving side of one member.
type Config struct {
	ID, ClusterID uint64
	// Name is what Identify tells beside the id.
	Name string
	// PeerURLs are where this member listens: a receiver that does not know them yet learns them from the hello.
	PeerURLs []string
	// Dir takes received images.
	Dir string
	// Credentials secure the connections to https URLs; nil allows http URLs only.
	Credentials credentials.TransportCredentials
	// DialOptions are added to every connection that is made.
	DialOptions []grpc.DialOption
	// SnapshotBytesPerSecond bounds the rate at which all images together are sent, to no less than 1 MiB/s; 0 means no bound.
	SnapshotBytesPerSecond int64
	// StallTimeout ends a stream that makes no progress although there is something to carry; default 10 s.
	StallTimeout time.Duration
	// InstallTimeout is how long the sender of an image waits for it to be installed after its last byte; default 5 min.
	InstallTimeout time.Duration
	// Removed, if set, says whether a member was removed for good: it is refused with PermissionDenied.
	Removed func(id uint64) bool
	// OnHello, if set, is told whose messages are taken from now on, and where that member says it listens. It must not block.
	OnHello func(id uint64, peerURLs []string)
	// OnRemoved, if set, is called when a peer says that this member was removed. It must not block.
	OnRemoved func()
	// Logger takes changes of reachability; nil discards it.
	Logger *slog.Logger
	// Metrics count the traffic; nil: nobody looks.
	Metrics *Metrics
}

func (c Config) withDefaults() Config {
	if c.SnapshotBytesPerSecond > 0 { // slower than that a chunk would look like a stall
		c.SnapshotBytesPerSecond = max(c.SnapshotBytesPerSecond, 1<<20)
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = 10 * time.Second
	}
	if c.InstallTimeout == 0 {
		c.InstallTimeout = 5 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	return c
}

// hello is how this member opens a stream to member to.
func (c *Config) hello(to uint64) *peerv1.Hello {
	return &peerv1.Hello{Version: Version, ClusterId: c.ClusterID, From: c.ID, To: to, PeerUrls: c.PeerURLs}
}

// checkHello says why a stream is not for this member.
func (c *Config) checkHello(h *peerv1.Hello) error {
	refuse := func(format string, args ...any) error {
		return status.Error(codes.FailedPrecondition, fmt.Sprintf(format, args...))
	}
	switch {
	case h == nil:
		return refuse("the stream does not begin with a hello")
	case h.GetVersion() != Version:
		return refuse("peer protocol version %d is not spoken here, only %d", h.GetVersion(), Version)
	case h.GetClusterId() != c.ClusterID:
		return refuse("this member belongs to cluster %016x, not to %016x", c.ClusterID, h.GetClusterId())
	case h.GetTo() != c.ID:
		return refuse("this is member %x, not %x", c.ID, h.GetTo())
	case h.GetFrom() == 0 || h.GetFrom() == c.ID:
		return refuse("member %x cannot be a peer of this one", h.GetFrom())
	}
	return c.checkMember(h.GetFrom())
}

// checkMember refuses a member that was removed.
func (c *Config) checkMember(id uint64) error {
	if c.Removed != nil && c.Removed(id) {
		return status.Errorf(codes.PermissionDenied, "member %x was removed from cluster %016x", id, c.ClusterID)
	}
	return nil
}
