package edge

import (
	"bytes"
	"context"
	"errors"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// rangeChunkKeys is how many keys the first message of a RangeStream holds, as in etcd.
const rangeChunkKeys = 10

// sendRange streams a range in pages at one revision. No view is held while a page is sent, so a compaction may overtake it; then
// it ends with ErrGRPCCompacted, as etcd's does.
func (s *Server) sendRange(ctx context.Context, call *consensusv1.Call, send sendPart) error {
	if s.cfg.Raft.Status().Learner {
		return rpctypes.ErrGRPCNotSupportedForLearner
	}
	if s.looksOn() {
		return rpctypes.ErrGRPCNotLeader
	}
	request, err := decode[pb.RangeRequest](call)
	if err != nil {
		return err
	}
	if err := mvcc.CheckRangeStream(request); err != nil {
		return err
	}
	view, err := s.viewFor(ctx, call, !request.GetSerializable())
	if err != nil {
		return err
	}
	r := newRangePages(request, view.KV.Revision(), s.cfg.Limits.RequestBytesMax)
	for {
		began := time.Now()
		page, err := r.next(view)
		s.cfg.Observer.Ranged(err != nil, time.Since(began))
		view.Release()
		if err != nil {
			return err
		}
		revision := page.GetHeader().GetRevision()
		if r.done {
			page.Header = s.header(revision, s.term())
		}
		if err := send(&pb.RangeStreamResponse{RangeResponse: page}, revision); err != nil || r.done {
			return err
		}
		if view, err = s.cfg.Node.Current(); err != nil {
			return err
		}
	}
}

// rangePages cuts one range into pages. The last one alone has a header (with the revision that was the newest at the start), count
// and more; all of them merged are the answer of Range.
type rangePages struct {
	request  *pb.RangeRequest // what is left
	revision int64            // for the header
	limit    int64            // of the whole range
	sent     int64
	// bytesAim is the size that a page tends to. None is larger than twice that unless its one key-value is.
	bytesAim int
	done     bool
}

func newRangePages(request *pb.RangeRequest, revision int64, bytesAim int) *rangePages {
	r := &rangePages{request: request, revision: revision, limit: request.GetLimit(), bytesAim: bytesAim}
	if r.limit <= 0 {
		r.limit = math.MaxInt64
	}
	if request.GetRevision() <= 0 {
		request.Revision = revision
	}
	request.Limit = min(rangeChunkKeys, r.limit)
	return r
}

// next reads the next page.
func (r *rangePages) next(view *node.View) (*pb.RangeResponse, error) {
	if r.request.GetCountOnly() {
		r.done = true
		response, err := view.KV.Range(r.request, view.Values)
		if err != nil {
			return nil, err
		}
		return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: r.revision}, Count: response.GetCount()}, nil
	}
	response, err := r.read(view)
	if err != nil {
		return nil, err
	}
	r.sent += int64(len(response.GetKvs()))
	page := &pb.RangeResponse{Kvs: response.GetKvs()}
	r.done = !response.GetMore() || r.sent == r.limit
	if response.GetMore() {
		last := response.GetKvs()[len(response.GetKvs())-1].GetKey()
		r.request.Key = append(bytes.Clone(last), 0)
	}
	if r.done {
		return page, r.finish(view, page, response.GetMore())
	}
	r.request.Limit = min(nextLimit(r.request.GetLimit(), proto.Size(response), r.bytesAim), r.limit-r.sent)
	return page, nil
}

// finish fills in what the last page alone says.
func (r *rangePages) finish(view *node.View, page *pb.RangeResponse, more bool) error {
	page.Header = &pb.ResponseHeader{Revision: r.revision}
	page.More, page.Count = more, r.sent
	if !more {
		return nil
	}
	rest, err := view.KV.Range(&pb.RangeRequest{
		Key: r.request.GetKey(), RangeEnd: r.request.GetRangeEnd(), Revision: r.request.GetRevision(), CountOnly: true,
	}, view.Values)
	if err != nil {
		return err
	}
	page.Count += rest.GetCount()
	return nil
}

// read reads up to the limit of keys, and fewer if they take too many bytes.
func (r *rangePages) read(view *node.View) (*pb.RangeResponse, error) {
	for {
		values := &pageValues{Values: view.Values, left: 2 * r.bytesAim}
		response, err := view.KV.RangePage(r.request, values)
		if !errors.Is(err, errPageFull) {
			r.trim(response)
			return response, err
		}
		r.request.Limit = values.taken
	}
}

// trim cuts a page of keys alone, which come from the index and are not counted as values are.
func (r *rangePages) trim(response *pb.RangeResponse) {
	left := 2 * r.bytesAim
	for i, kv := range response.GetKvs() {
		if left -= store.EncodedSize(kv); left < 0 && i > 0 {
			response.Kvs, response.More = response.GetKvs()[:i], true
			r.request.Limit = int64(i)
			return
		}
	}
}

// nextLimit doubles or halves the number of keys in a page towards the size that pages should have, as etcd does. It is never 0,
// which would mean no limit.
func nextLimit(limit int64, size, aim int) int64 {
	switch {
	case size < aim/2:
		limit *= 2
	case size > aim*2:
		limit /= 2
	}
	return max(limit, 1)
}

// pageValues stops a page whose values take too many bytes. etcd's pages have no such bound: many small keys followed by many
// large ones make one that is larger than the memory.
type pageValues struct {
	mvcc.Values
	left  int
	taken int64
}

// errPageFull tells that the values taken so far are a page.
var errPageFull = errors.New("the page is full")

// Value passes on what there is room for, one in any case.
func (p *pageValues) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	kv, err := p.Values.Value(rev)
	if err != nil {
		return nil, err
	}
	p.left -= store.EncodedSize(kv)
	if p.left < 0 && p.taken > 0 {
		return nil, errPageFull
	}
	p.taken++
	return kv, nil
}
