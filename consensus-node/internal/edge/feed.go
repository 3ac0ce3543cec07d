package edge

import (
	"bytes"
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// feedBytesMax bounds the revisions in one message of a direct stream; a larger single revision goes by history.
const feedBytesMax = 1 << 20

// Feed streams what this node applies, from now on.
func (s *Server) Feed(_ *consensusv1.FeedRequest, stream consensusv1.Consensus_FeedServer) error {
	return endOfStream(outbox.Stream(stream.Context(), s.cfg.Ring.Cursor(s.cfg.Speaker, feedBytesMax), stream.Send))
}

// History streams past changes: from the ring while it holds them, else from the MVCC history.
func (s *Server) History(request *consensusv1.HistoryRequest, stream consensusv1.Consensus_HistoryServer) error {
	view, err := s.cfg.Node.AtRevision(stream.Context(), request.GetUpToRevision())
	if err != nil {
		return s.mapped(stream.Context(), "History", err)
	}
	upTo := request.GetUpToRevision()
	if upTo <= 0 {
		upTo = view.KV.Revision()
	}
	view.Release()
	h := history{server: s, request: request, stream: stream, upTo: upTo, bytesMax: feedBytesMax}
	if n := int(request.GetMessageBytesMax()); n > 0 {
		h.bytesMax = min(n, feedBytesMax)
	}
	return s.mapped(stream.Context(), "History", h.run(stream.Context()))
}

// historyStepMax bounds the revisions that one step reads from the store: the view it reads from holds old pages back.
const historyStepMax = 10_000

// history is one History call on its way.
type history struct {
	server   *Server
	request  *consensusv1.HistoryRequest
	stream   consensusv1.Consensus_HistoryServer
	upTo     int64
	bytesMax int
}

func (h *history) run(ctx context.Context) error {
	position := h.request.GetAfterRevision()
	for position < h.upTo {
		if err := ctx.Err(); err != nil {
			return err
		}
		revisions, ok := h.server.cfg.Ring.After(position, h.bytesMax)
		var err error
		switch {
		case ok && len(revisions) > 0:
			position, err = h.fromRing(position, revisions)
		default:
			position, err = h.fromStore(position)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fromRing sends revisions that were kept in memory.
func (h *history) fromRing(position int64, revisions []*feedv1.Revision) (int64, error) {
	last := min(h.upTo, revisions[len(revisions)-1].GetRevision())
	var wanted []*feedv1.Revision
	for _, revision := range revisions {
		if revision.GetRevision() > last {
			break
		}
		if r := h.filter(revision); r != nil {
			wanted = append(wanted, r)
		}
	}
	return last, h.send(position, last, wanted)
}

// fromStore sends one message of revisions from the MVCC history, up to where the ring begins.
func (h *history) fromStore(position int64) (int64, error) {
	revisions, reached, err := h.readStore(position)
	if err != nil {
		return 0, err
	}
	// Without a view in the hand: the follower may be slow to take the message.
	return reached, h.send(position, reached, revisions)
}

// readStore reads one message of revisions. What lies below the compact revision is gone; the change at the
// compact revision itself is kept, a deletion too.
func (h *history) readStore(position int64) ([]*feedv1.Revision, int64, error) {
	view, err := h.server.cfg.Node.Current()
	if err != nil {
		return nil, 0, err
	}
	defer view.Release()
	if position+1 < view.KV.CompactRevision() {
		return nil, 0, status.Error(codes.OutOfRange, rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted))
	}
	last := min(h.upTo, view.KV.Revision(), position+historyStepMax)
	if base, _ := h.server.cfg.Ring.Span(); base > position {
		last = min(last, base)
	}
	return h.collect(view, position, last)
}

// collect reads the wanted revisions of (position, last] up to the bytes of one message, and says how far that went.
func (h *history) collect(view *node.View, position, last int64) ([]*feedv1.Revision, int64, error) {
	options := mvcc.HistoryOptions{}
	for _, r := range h.request.GetRanges() {
		options.Match = append(options.Match, mvcc.KeyRange{Key: r.GetKey(), End: r.GetRangeEnd()})
	}
	var revisions []*feedv1.Revision
	reached, total := last, 0
	err := view.KV.History(view.Values, position+1, last, options, func(rev int64, events []mvcc.Event) bool {
		revision := feedRevision(rev, events)
		size := revision.SizeVT()
		if total > 0 && total+size > h.bytesMax {
			reached = rev - 1
			return false
		}
		total += size
		revisions = append(revisions, revision)
		return true
	})
	if errors.Is(err, rpctypes.ErrGRPCCompacted) {
		err = status.Error(codes.OutOfRange, rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted))
	}
	return revisions, reached, err
}

// feedRevision makes the feed's form of a revision read from the store.
func feedRevision(rev int64, events []mvcc.Event) *feedv1.Revision {
	revision := &feedv1.Revision{Revision: rev, Events: make([]*feedv1.Event, len(events))}
	for i, event := range events {
		revision.Events[i] = &feedv1.Event{
			Key: event.Kv.GetKey(), Deleted: event.Type == mvccpb.Event_DELETE, Kv: store.Encode(event.Kv),
			PreviousModRevision: event.Prev.Main,
		}
		if event.PrevKv != nil {
			revision.Events[i].PreviousKv = store.Encode(event.PrevKv)
		}
	}
	return revision
}

func (h *history) send(from, to int64, revisions []*feedv1.Revision) error {
	message := h.server.cfg.Ring.Cursor(h.server.cfg.Speaker, h.bytesMax).Heartbeat()
	message.PreviousRevision, message.LastRevision, message.Revisions = from, to, revisions
	message.HeadRevision = max(message.GetHeadRevision(), to) // the store may be ahead of the ring for a moment
	return h.stream.Send(message)
}

// filter leaves of a revision what lies in the wanted ranges: the revision itself, a part of it, or nil.
func (h *history) filter(revision *feedv1.Revision) *feedv1.Revision {
	if len(h.request.GetRanges()) == 0 {
		return revision
	}
	events := slices.DeleteFunc(slices.Clone(revision.GetEvents()), func(e *feedv1.Event) bool { return !h.wants(e.GetKey()) })
	switch len(events) {
	case 0:
		return nil
	case len(revision.GetEvents()):
		return revision
	}
	return &feedv1.Revision{
		Revision: revision.GetRevision(), Events: events,
		SpanContext: revision.GetSpanContext(), AppliedUnixNs: revision.GetAppliedUnixNs(),
	}
}

func (h *history) wants(key []byte) bool {
	for _, r := range h.request.GetRanges() {
		if inRange(key, r.GetKey(), r.GetRangeEnd()) {
			return true
		}
	}
	return false
}

// inRange tells whether a key lies in a range of etcd's form.
func inRange(key, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, from)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(key, from) >= 0
	}
	return bytes.Compare(key, from) >= 0 && bytes.Compare(key, end) < 0
}

// PreviousValues looks key-values up by exactly (key, mod revision).
func (s *Server) PreviousValues(ctx context.Context, request *consensusv1.PreviousValuesRequest) (*consensusv1.PreviousValuesResponse, error) {
	newest := int64(0)
	for _, key := range request.GetKeys() {
		newest = max(newest, key.GetModRevision())
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	view, err := s.cfg.Node.AtRevision(bounded, newest)
	if err != nil {
		return nil, s.mapped(ctx, "PreviousValues", err)
	}
	defer view.Release()
	response := &consensusv1.PreviousValuesResponse{Kvs: make([][]byte, len(request.GetKeys()))}
	for i, key := range request.GetKeys() {
		kv, err := valueAt(view, key.GetKey(), key.GetModRevision())
		if err != nil {
			return nil, s.mapped(ctx, "PreviousValues", err)
		}
		if kv != nil {
			response.Kvs[i], err = proto.Marshal(kv)
			if err != nil {
				return nil, err
			}
		}
	}
	return response, nil
}

// valueAt gives the key-value that a change at exactly that revision left, or nil if that is compacted.
func valueAt(view *node.View, key []byte, modRevision int64) (*mvccpb.KeyValue, error) {
	at := max(modRevision, view.KV.CompactRevision())
	response, err := view.KV.Range(&pb.RangeRequest{Key: key, Revision: at}, view.Values)
	if err != nil {
		return nil, err
	}
	for _, kv := range response.GetKvs() {
		if kv.GetModRevision() == modRevision {
			return kv, nil
		}
	}
	return nil, nil
}
