package propose_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// An entry of a later term says that what still waits from an earlier one is lost; what was applied has its outcome.
func TestALaterTermSettlesWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		submit(1, false)
		synctest.Wait()
		submit(1, false)
		synctest.Wait()
		packer.Resolve(apply.Outcome{ID: r.ids(0)[0], Revision: 2})
		packer.Applied(3)
		require.Len(t, outcomes(), 1, "an entry of the same term says nothing")
		packer.Applied(4)
		require.Len(t, outcomes(), 2)
		require.EqualValues(t, 2, outcomes()[0].Revision)
		require.True(t, outcomes()[1].NotProposed)
		require.ErrorIs(t, outcomes()[1].Err, propose.ErrLost)

		// The credit of the lost entry came back, and the new term's entries are not touched.
		r.mu.Lock()
		r.term = 4
		r.mu.Unlock()
		submit(1, false)
		synctest.Wait()
		require.Equal(t, []int{1, 1, 1}, r.sizes())
		packer.Applied(4)
		require.Len(t, outcomes(), 2)
	})
}

// A snapshot brings results without outcomes: what lies below its index is open, what lies above is lost.
func TestASnapshotLeavesOutcomesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		for range 2 {
			submit(1, false)
			synctest.Wait()
		}
		packer.Jumped(1)
		packer.Applied(4)
		require.Len(t, outcomes(), 2)
		require.False(t, outcomes()[0].NotProposed)
		require.ErrorIs(t, outcomes()[0].Err, rpctypes.ErrGRPCTimeoutDueToLeaderFail)
		require.True(t, outcomes()[1].NotProposed)
	})
}

// raftLate says where an entry stands only after the next term was applied.
type raftLate struct {
	raft
	packer *propose.Packer
}

func (r *raftLate) Propose(ctx context.Context, data []byte) (propose.Position, error) {
	position, err := r.raft.Propose(ctx, data)
	r.packer.Applied(9)
	return position, err
}

func TestALossIsSeenThoughThePositionComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raftLate{raft: raft{term: 3}}
		r.packer = propose.New(r, 1<<32, timeout, func() time.Duration { return 0 })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = r.packer.Run(ctx) }()
		done := make(chan propose.Outcome, 1)
		r.packer.Submit(propose.Write{
			Command: &journalv1.Command{Command: &journalv1.Command_Put{Put: []byte("x")}},
			Done:    func(o propose.Outcome) { done <- o },
		})
		require.ErrorIs(t, (<-done).Err, propose.ErrLost)
	})
}

// A write that was decided in a term is not proposed in another.
func TestAWriteOfAnotherTermIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3}
		packer, _, _, cancel := start(t, r)
		defer cancel()
		done := make(chan propose.Outcome, 2)
		for _, term := range []uint64{2, 3} {
			packer.Submit(propose.Write{
				Command: &journalv1.Command{Command: &journalv1.Command_Put{Put: []byte("x")}},
				Term:    term, Done: func(o propose.Outcome) { done <- o },
			})
		}
		refused := <-done
		require.True(t, refused.NotProposed)
		require.ErrorIs(t, refused.Err, propose.ErrTerm)
		synctest.Wait()
		require.Equal(t, []int{1}, r.sizes())
	})
}

// While raft holds up a proposal (a disk that hangs), those behind it end in time, and with etcd's errors.
func TestAHangingRaftHoldsUpNobodyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{hangs: true}
		_, submit, outcomes, cancel := start(t, r)
		defer cancel()
		for range 3 {
			submit(1, true)
		}
		time.Sleep(timeout * 6 / 5)
		require.Len(t, outcomes(), 3)
		for _, o := range outcomes() {
			require.ErrorIs(t, o.Err, rpctypes.ErrGRPCTimeout)
		}
	})
}

// A stop is no cancellation by the client.
func TestTheEndOfAHangingProposalIsAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{hangs: true}
		_, submit, outcomes, cancel := start(t, r)
		submit(1, false)
		synctest.Wait()
		cancel()
		require.Len(t, outcomes(), 1)
		require.True(t, outcomes()[0].NotProposed)
		require.ErrorIs(t, outcomes()[0].Err, rpctypes.ErrGRPCStopped)
	})
}

// What raft refuses, loses, or says nothing of in time has failed; what another node leads for, and what the end cuts short, has not.
func TestFailuresAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3, err: fmt.Errorf("%w: not I", propose.ErrElsewhere)}
		packer, submit, outcomes, cancel := start(t, r)
		answered := func(n int) {
			t.Helper()
			synctest.Wait()
			require.Len(t, outcomes(), n)
		}
		set := func(term uint64, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.term, r.err = term, err
		}
		submit(1, false)
		answered(1)
		require.Zero(t, packer.Failed())
		set(3, errors.New("dropped"))
		submit(1, false)
		answered(2)
		require.EqualValues(t, 1, packer.Failed())
		set(3, nil)
		submit(1, false)
		synctest.Wait()
		packer.Applied(4)
		answered(3)
		require.EqualValues(t, 2, packer.Failed(), "lost")
		set(4, nil)
		submit(1, false)
		time.Sleep(time.Hour)
		answered(4)
		require.EqualValues(t, 3, packer.Failed(), "timed out")
		submit(1, false)
		synctest.Wait()
		cancel()
		answered(5)
		require.EqualValues(t, 3, packer.Failed())
	})
}
