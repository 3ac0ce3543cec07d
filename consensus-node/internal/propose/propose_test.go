package propose_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// raft takes entries, or refuses them while err is set.
type raft struct {
	mu      sync.Mutex
	entries []*journalv1.Entry
	changes []*raftpb.ConfChangeV2
	err     error
	term    uint64
	hangs   bool // as with a disk that hangs; set before the packer runs
}

func (r *raft) Propose(ctx context.Context, data []byte) (propose.Position, error) {
	if r.hangs {
		<-ctx.Done()
		return propose.Position{}, fmt.Errorf("raft: not proposed: %w", ctx.Err())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return propose.Position{}, r.err
	}
	entry := &journalv1.Entry{}
	if err := entry.UnmarshalVT(data); err != nil {
		return propose.Position{}, err
	}
	r.entries = append(r.entries, entry)
	return propose.Position{Index: uint64(len(r.entries)), Term: r.term}, nil
}

func (r *raft) ProposeConfChange(_ context.Context, cc raftpb.ConfChangeI) (propose.Position, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return propose.Position{}, r.err
	}
	r.changes = append(r.changes, cc.AsV2())
	return propose.Position{Index: uint64(len(r.entries) + len(r.changes)), Term: r.term}, nil
}

func (r *raft) Term() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

func (r *raft) sizes() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sizes []int
	for _, entry := range r.entries {
		sizes = append(sizes, len(entry.GetCommands()))
	}
	return sizes
}

func (r *raft) ids(entry int) []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []uint64
	for _, command := range r.entries[entry].GetCommands() {
		ids = append(ids, command.GetId())
	}
	return ids
}

const timeout = 7 * time.Second

// start runs a packer inside a bubble and gives what came of each write.
func start(t *testing.T, r *raft) (*propose.Packer, func(bytes int, exclusive bool), func() []propose.Outcome, context.CancelFunc) {
	t.Helper()
	began := time.Now()
	packer := propose.New(r, 1<<32, timeout, func() time.Duration { return time.Since(began) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = packer.Run(ctx) }()
	var mu sync.Mutex
	var outcomes []propose.Outcome
	submit := func(bytes int, exclusive bool) {
		packer.Submit(propose.Write{
			Command:   &journalv1.Command{Command: &journalv1.Command_Put{Put: make([]byte, bytes)}},
			Exclusive: exclusive,
			Done: func(o propose.Outcome) {
				mu.Lock()
				defer mu.Unlock()
				outcomes = append(outcomes, o)
			},
		})
	}
	return packer, submit, func() []propose.Outcome {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return outcomes
	}, cancel
}

// An idle packer proposes at once; what arrives while two packs are in flight shares the next entry.
func TestLoadFillsEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		for range 2 {
			submit(10, false)
			synctest.Wait()
		}
		for range 5 {
			submit(10, false)
		}
		synctest.Wait()
		require.Equal(t, []int{1, 1}, r.sizes())
		packer.Resolve(apply.Outcome{ID: r.ids(0)[0], Revision: 2})
		require.Len(t, outcomes(), 1)
		require.Equal(t, []int{1, 1, 5}, r.sizes())
		require.EqualValues(t, 2, outcomes()[0].Revision)
	})
}

func TestEntriesAreCapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{}
		_, submit, _, cancel := start(t, r)
		defer cancel()
		submit(1, false)
		synctest.Wait()
		submit(1, false)
		synctest.Wait()
		for range 5 {
			submit(propose.PackBytesMax/2-100, false)
		}
		submit(1, true)
		submit(1, false)
		synctest.Wait()
		require.Equal(t, []int{1, 1, 2, 2, 1, 1}, r.sizes(), "full packs go at once, an exclusive write alone; the rest waits for credit")
	})
}

// What raft refused is said to be not proposed, with the reason; nothing is tried again.
func TestRefusalIsCertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := errors.New("not leader")
		r := &raft{err: refusal}
		_, submit, outcomes, cancel := start(t, r)
		defer cancel()
		submit(1, false)
		submit(1, false)
		for _, o := range outcomes() {
			require.True(t, o.NotProposed)
			require.ErrorIs(t, o.Err, refusal)
		}
		require.Len(t, outcomes(), 2)
		require.Empty(t, r.sizes())
	})
}

// A write without an outcome ends with etcd's error, and that leaves open whether it happened; it is proposed once.
func TestTimeoutLeavesTheOutcomeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		submit(1, false)
		synctest.Wait()
		time.Sleep(timeout * 2)
		require.Len(t, outcomes(), 1)
		require.False(t, outcomes()[0].NotProposed)
		require.ErrorIs(t, outcomes()[0].Err, rpctypes.ErrGRPCTimeout)
		packer.Resolve(apply.Outcome{ID: r.ids(0)[0]})
		require.Len(t, outcomes(), 1, "a late outcome reaches nobody")
		require.Equal(t, []int{1}, r.sizes())

		submit(1, false)
		synctest.Wait()
		r.mu.Lock()
		r.term = 4
		r.mu.Unlock()
		time.Sleep(timeout * 2)
		require.ErrorIs(t, outcomes()[1].Err, rpctypes.ErrGRPCTimeoutDueToLeaderFail)
	})
}

func TestTheEndAnswersEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{}
		_, submit, outcomes, cancel := start(t, r)
		for range 4 {
			submit(1, false)
			synctest.Wait()
		}
		cancel()
		require.Len(t, outcomes(), 4)
		submit(1, false)
		require.Len(t, outcomes(), 5)
		require.True(t, outcomes()[4].NotProposed)
		proposed := 0
		for _, o := range outcomes() {
			require.ErrorIs(t, o.Err, rpctypes.ErrGRPCStopped)
			if !o.NotProposed {
				proposed++
			}
		}
		require.Equal(t, 2, proposed, "the two in flight are open, the queued ones surely never were")
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		packer := propose.New(&raft{}, 0, timeout, func() time.Duration { return 0 }) // nobody runs it
		refused := 0
		for range propose.QueueBytesMax/(1<<20) + 3 {
			packer.Submit(propose.Write{
				Command: &journalv1.Command{Command: &journalv1.Command_Put{Put: make([]byte, 1<<20)}},
				Done: func(o propose.Outcome) {
					require.ErrorIs(t, o.Err, rpctypes.ErrGRPCRequestTooManyRequests)
					require.True(t, o.NotProposed)
					refused++
				},
			})
		}
		require.Positive(t, refused)
	})
}
