package propose_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
)

func withID(id uint64) (raftpb.ConfChangeI, error) {
	return &raftpb.ConfChangeV2{Context: binary.BigEndian.AppendUint64(nil, id)}, nil
}

// change proposes one and gives its outcome once it is there.
func change(ctx context.Context, packer *propose.Packer) <-chan propose.Outcome {
	out := make(chan propose.Outcome, 1)
	go func() { out <- packer.Change(ctx, withID) }()
	return out
}

// A membership change does not wait for writes in flight, gets what apply says under its id, and is told apart from theirs.
func TestAChangeGetsItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		for range 3 {
			submit(1, false)
			synctest.Wait()
		}
		out := change(t.Context(), packer)
		synctest.Wait()
		require.Len(t, r.changes, 1)
		id := binary.BigEndian.Uint64(r.changes[0].GetContext())
		require.NotContains(t, r.ids(0), id)
		require.True(t, packer.Waits(id))
		packer.Resolve(apply.Outcome{ID: id, Err: rpctypes.ErrGRPCMemberNotFound})
		got := <-out
		require.Equal(t, rpctypes.ErrGRPCMemberNotFound, got.Err)
		require.False(t, got.NotProposed)
		require.Empty(t, outcomes())
	})
}

// What raft refused, and what was lost to another leader, was surely not done; time that ran out leaves it open.
func TestAChangeThatIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{term: 3, err: errors.New("no leader")}
		packer, _, _, cancel := start(t, r)
		got := packer.Change(t.Context(), withID)
		require.True(t, got.NotProposed)
		require.EqualError(t, got.Err, "no leader")
		got = packer.Change(t.Context(), func(uint64) (raftpb.ConfChangeI, error) { return nil, errors.New("malformed") })
		require.True(t, got.NotProposed)
		require.EqualError(t, got.Err, "malformed")

		r.mu.Lock()
		r.err = nil
		r.mu.Unlock()
		out := change(t.Context(), packer)
		synctest.Wait()
		packer.Applied(4)
		got = <-out
		require.True(t, got.NotProposed)
		require.ErrorIs(t, got.Err, propose.ErrLost)

		r.mu.Lock()
		r.term = 4
		r.mu.Unlock()
		out = change(t.Context(), packer)
		got = <-out // the bubble's clock goes on to the sweep
		require.False(t, got.NotProposed)
		require.Equal(t, rpctypes.ErrGRPCTimeout, got.Err)

		cancel()
		synctest.Wait()
		got = packer.Change(t.Context(), withID)
		require.True(t, got.NotProposed)
		require.Equal(t, rpctypes.ErrGRPCStopped, got.Err)
	})
}
