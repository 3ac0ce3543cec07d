package differential

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// watchLog is one watch stream and all that came on it, by watch.
type watchLog struct {
	stream pb.Watch_WatchClient

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew at each response
	said     map[int64][]string
	created  []string // in the order in which they came
	last     int64    // the newest id
	ended    map[int64]bool
	progress int64           // of the last notice to the whole stream
	floor    map[int64]int64 // what that was, or another notice, while the watch stood: nothing at or below may follow
	compact  int64
	err      error
	broken   []string // promises that a response broke
}

func newWatchLog() *watchLog {
	return &watchLog{changed: make(chan struct{}), said: map[int64][]string{}, ended: map[int64]bool{}, floor: map[int64]int64{}}
}

// openWatchLog opens the stream; it ends with ctx.
func openWatchLog(ctx context.Context, conn grpc.ClientConnInterface) (*watchLog, error) {
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, err
	}
	l := newWatchLog()
	l.stream = stream
	go func() {
		for {
			r, err := stream.Recv()
			l.take(r, err)
			if err != nil {
				return
			}
		}
	}()
	return l, nil
}

func (l *watchLog) take(r *pb.WatchResponse, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	if err != nil {
		l.err = err
		return
	}
	Normalize(r)
	for _, e := range MustDiffer() {
		if e.watch != nil {
			e.watch(l, r)
		}
	}
	id := r.GetWatchId()
	if r.GetCreated() {
		l.created = append(l.created, fmt.Sprintf("%d at %d", id, r.GetHeader().GetRevision()))
		l.floor[id], l.last = 0, id
		delete(l.ended, id)
	}
	if r.GetCanceled() {
		l.ended[id] = id != -1
	}
	for _, e := range r.GetEvents() {
		l.said[id] = append(l.said[id], prototext.MarshalOptions{}.Format(e))
	}
	r.Events = nil
	nothing := &pb.WatchResponse{
		WatchId: id, Header: &pb.ResponseHeader{ClusterId: present, MemberId: present, RaftTerm: present, Revision: present},
	}
	if !proto.Equal(r, nothing) { // a response with events alone has said all, and so has a notice
		l.said[id] = append(l.said[id], prototext.MarshalOptions{}.Format(r))
	}
}

// checkRevision checks a response that creates nothing against its header's revision.
func (l *watchLog) checkRevision(r *pb.WatchResponse) {
	id, head := r.GetWatchId(), r.GetHeader().GetRevision()
	for _, e := range r.GetEvents() {
		if e.GetKv().GetModRevision() > head {
			l.broken = append(l.broken, fmt.Sprintf("watch %d: event %v above its header's revision %d", id, e, head))
		}
		if floor := l.floor[id]; e.GetKv().GetModRevision() <= floor {
			l.broken = append(l.broken, fmt.Sprintf("watch %d: event %v after progress at %d", id, e, floor))
		}
	}
	if !r.GetCanceled() && len(r.GetEvents()) == 0 {
		l.notice(id, head)
	}
}

// notice takes a progress notice, to one watch or with -1 to all that stand.
func (l *watchLog) notice(id, revision int64) {
	for watch := range l.floor {
		if id == -1 || id == watch {
			l.floor[watch] = max(l.floor[watch], revision)
		}
	}
	if id == -1 {
		l.progress = max(l.progress, revision)
	}
}

// until waits until done says so, which is asked after each response.
func (l *watchLog) until(ctx context.Context, done func() bool) error {
	for {
		l.mu.Lock()
		ready, changed, err := done(), l.changed, l.err
		l.mu.Unlock()
		switch {
		case ready:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// compacted tells the log the compact revision.
func (l *watchLog) compacted(revision int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.compact = revision
}

func (l *watchLog) send(request *pb.WatchRequest) error { return l.stream.Send(request) }

// differences compares two logs of the same requests. Which watch was served first is each system's own business; what
// one watch was told is not, nor is the order of the answers to create requests.
func differences(ours, etcds *watchLog) []string {
	ours.mu.Lock()
	defer ours.mu.Unlock()
	etcds.mu.Lock()
	defer etcds.mu.Unlock()
	var out []string
	for _, text := range ours.broken {
		out = append(out, "ours: "+text)
	}
	for _, text := range etcds.broken {
		out = append(out, "etcd: "+text)
	}
	if !slices.Equal(ours.created, etcds.created) {
		out = append(out, fmt.Sprintf("created responses\n etcd: %q\n ours: %q", etcds.created, ours.created))
	}
	ids := maps.Clone(etcds.said)
	maps.Copy(ids, ours.said)
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		o, e := ours.said[id], etcds.said[id]
		if slices.Equal(o, e) {
			continue
		}
		same := 0
		for same < len(o) && same < len(e) && o[same] == e[same] {
			same++
		}
		out = append(out, fmt.Sprintf("watch %d, after %d that are the same\n etcd (%d in all): %q\n ours (%d in all): %q",
			id, same, len(e), e[same:min(same+3, len(e))], len(o), o[same:min(same+3, len(o))]))
	}
	return out
}
