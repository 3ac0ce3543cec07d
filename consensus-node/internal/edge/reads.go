package edge

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// read is one call that is answered from a view.
type read struct {
	call *consensusv1.Call
	run  readFunc
	long bool
}

// readLinear answers reads that share one read index. A read that may be long gets a goroutine of its own, so that it does not
// hold up the others.
func (s *Server) readLinear(ctx context.Context, reads []read, reply reply) {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	view, err := s.cfg.Node.Linearize(bounded)
	if err != nil {
		for _, r := range reads {
			reply(r.call, s.failed(ctx, r.call, err))
		}
		return
	}
	defer view.Release()
	last := len(reads) - 1
	for _, r := range reads[:last] {
		if r.long {
			go s.readOwn(ctx, r, reply)
			continue
		}
		reply(r.call, s.run(ctx, r, view))
	}
	reply(reads[last].call, s.run(ctx, reads[last], view))
}

// readOwn answers one read from a newer view than its batch was given, which is as linearizable.
func (s *Server) readOwn(ctx context.Context, r read, reply reply) {
	view, err := s.cfg.Node.Current()
	if err != nil {
		reply(r.call, s.failed(ctx, r.call, err))
		return
	}
	defer view.Release()
	reply(r.call, s.run(ctx, r, view))
}

// readLocal answers the serializable reads of one batch. Those that are long or have to wait get a goroutine of their own.
func (s *Server) readLocal(ctx context.Context, reads []read, reply reply) {
	view, err := s.cfg.Node.Current()
	if err != nil {
		for _, r := range reads {
			reply(r.call, s.failed(ctx, r.call, err))
		}
		return
	}
	defer view.Release()
	for _, r := range reads {
		if r.long || r.call.GetMinRevision() > view.KV.Revision() {
			go s.readNow(ctx, r, reply)
			continue
		}
		reply(r.call, s.run(ctx, r, view))
	}
}

// readNow answers a serializable read, never from before the revision that the caller has seen.
func (s *Server) readNow(ctx context.Context, r read, reply reply) {
	bounded, cancel := context.WithTimeout(ctx, s.patience(r.call))
	defer cancel()
	view, err := s.cfg.Node.AtRevision(bounded, r.call.GetMinRevision())
	if err != nil {
		reply(r.call, s.failed(ctx, r.call, err))
		return
	}
	defer view.Release()
	reply(r.call, s.run(ctx, r, view))
}

// patience is how long a read may wait: no longer than its caller does.
func (s *Server) patience(call *consensusv1.Call) time.Duration {
	if ms := call.GetTimeoutMs(); ms > 0 {
		return min(s.cfg.Limits.RequestTimeout, time.Duration(ms)*time.Millisecond)
	}
	return s.cfg.Limits.RequestTimeout
}

func (s *Server) run(ctx context.Context, r read, view *node.View) *consensusv1.Answer {
	span := s.startSpan(r.call, "holdfast.consensus/read")
	response, revision, err := r.run(ctx, view)
	if span != nil {
		span.SetAttributes(attribute.Int64("holdfast.revision", revision))
		span.End()
	}
	if err != nil {
		return s.failed(ctx, r.call, err)
	}
	return &consensusv1.Answer{Id: r.call.GetId(), Response: response, Revision: revision}
}

func (s *Server) rangeRead(request *pb.RangeRequest) readFunc {
	return func(_ context.Context, view *node.View) ([]byte, int64, error) {
		began, revision := time.Now(), view.KV.Revision()
		encoder := s.encoders.Get().(*mvcc.Encoder) //nolint:forcetypeassert // the pool holds nothing else
		data, err := encoder.Range(view.KV, s.cfg.Buffers, request, view.Values, s.header(revision, s.term()))
		s.encoders.Put(encoder)
		s.cfg.Observer.Ranged(err != nil, time.Since(began))
		return data, revision, err
	}
}

func (s *Server) txnRead(request *pb.TxnRequest) messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		response, ops, err := view.KV.Txn(request, view.Values)
		s.cfg.Observer.Ops(ops)
		if err != nil {
			return nil, 0, err
		}
		revision := view.KV.Revision()
		response.Header = s.header(revision, s.term())
		return response, revision, nil
	}
}

func (s *Server) timeToLiveRead(request *pb.LeaseTimeToLiveRequest) messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		revision := view.KV.Revision()
		response := &pb.LeaseTimeToLiveResponse{Header: s.header(revision, s.term()), ID: request.GetID(), TTL: -1}
		if lease, ok := view.Leases.Get(request.GetID()); ok {
			response.GrantedTTL = lease.TTLS
			// The rest of the time is the owner's to tell; until then the most that it can be.
			response.TTL = lease.TTLS
			if request.GetKeys() {
				response.Keys = view.Leases.Keys(request.GetID())
			}
		}
		return response, revision, nil
	}
}

func (s *Server) leasesRead() messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		revision := view.KV.Revision()
		response := &pb.LeaseLeasesResponse{Header: s.header(revision, s.term())}
		leases, _ := view.Leases.Page(0, view.Leases.Len())
		for _, lease := range leases {
			response.Leases = append(response.Leases, &pb.LeaseStatus{ID: lease.ID})
		}
		return response, revision, nil
	}
}
