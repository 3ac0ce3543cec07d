package edge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Registry holds which services are joined to this node now. It is soft state: a service is in it for as long as its Join
// stream lives.
type Registry struct {
	mu       sync.Mutex
	next     uint64
	services map[uint64]*consensusv1.Announcement
	changed  chan struct{}
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry {
	return &Registry{services: map[uint64]*consensusv1.Announcement{}, changed: make(chan struct{})}
}

// Changed wakes every Join stream: what a Topology says may have changed. It does not block.
func (r *Registry) Changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake()
}

func (r *Registry) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// watch gives a channel that is closed at the next change.
func (r *Registry) watch() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *Registry) add(a *consensusv1.Announcement) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	r.services[r.next] = a
	r.wake()
	return r.next
}

// set replaces what a service said of itself, unless its stream has ended: a last message may be read after that.
func (r *Registry) set(id uint64, a *consensusv1.Announcement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, joined := r.services[id]; !joined {
		return
	}
	r.services[id] = a
	r.wake()
}

func (r *Registry) remove(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.services, id)
	r.wake()
}

// list gives the announced services in a stable order; of a service that is joined twice (it comes back before its old stream
// is seen to be dead) the latest start counts.
func (r *Registry) list() []*consensusv1.Announcement {
	type identity struct {
		kind consensusv1.ServiceKind
		name string
	}
	r.mu.Lock()
	latest := map[identity]*consensusv1.Announcement{}
	for _, a := range r.services {
		key := identity{a.GetKind(), a.GetName()}
		if other := latest[key]; other == nil || other.GetRun() <= a.GetRun() {
			latest[key] = a
		}
	}
	r.mu.Unlock()
	list := make([]*consensusv1.Announcement, 0, len(latest))
	for _, a := range latest {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *consensusv1.Announcement) int {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return list
}

// tellEvery is how often a caller of Join hears of this node though nothing has changed: a network that drops packets ends no
// stream, and what a node that has gone silent said last must not count for long.
const tellEvery = time.Second

// Join registers the caller for as long as its stream lives and tells it the topology: at once, at each change and every tellEvery.
func (s *Server) Join(stream consensusv1.Consensus_JoinServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	id := s.cfg.Registry.add(first)
	defer s.cfg.Registry.remove(id)

	ctx, cancel := context.WithCancelCause(stream.Context())
	go func() {
		for {
			next, err := stream.Recv()
			if err != nil {
				cancel(err)
				return
			}
			s.cfg.Registry.set(id, next)
		}
	}()
	return endOfStream(s.tellTopology(ctx, stream))
}

func (s *Server) tellTopology(ctx context.Context, stream consensusv1.Consensus_JoinServer) error {
	var last *consensusv1.Topology
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		_, leaderChanged := s.cfg.Raft.Leadership()
		changed := s.cfg.Registry.watch()
		topology, err := s.topology()
		if err != nil {
			return err
		}
		if !proto.Equal(topology, last) {
			if err := stream.Send(proto.CloneOf(topology)); err != nil {
				return fmt.Errorf("sending a topology: %w", err)
			}
			last = topology
		}
		select {
		case <-changed:
		case <-leaderChanged:
		case <-ticker.C:
			last = nil
		case <-s.cfg.Raft.Stopped():
			return rpctypes.ErrGRPCStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) topology() (*consensusv1.Topology, error) {
	view, err := s.cfg.Node.Current()
	if err != nil {
		return nil, err
	}
	defer view.Release()
	raft := s.cfg.Raft.Status()
	topology := &consensusv1.Topology{
		ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID, Leader: raft.Leader, Term: raft.Term,
		Services: s.cfg.Registry.list(), View: view.Leases.Cluster(),
	}
	// A node that is not in its list has just joined, and its list is one of long ago; or it was removed.
	if _, ok := view.Members.Get(s.cfg.MemberID); !ok {
		return topology, nil
	}
	topology.MembersVersion = view.Members.Changes()
	for _, m := range view.Members.Members() {
		topology.Members = append(topology.Members, &consensusv1.Member{
			Id: m.ID, Name: m.Name, PeerUrls: m.PeerURLs, ClientUrls: m.ClientURLs, Learner: m.Learner,
		})
	}
	return topology, nil
}
