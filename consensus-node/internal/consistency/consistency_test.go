package consistency

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func at(member uint64, sum uint32, compact int64) Sample {
	return Sample{Member: member, Hash: Hash{Sum: sum, Revision: 10, Compact: compact, Head: 10}}
}

var errGone = errors.New("gone")

func TestTheMajorityIsRight(t *testing.T) {
	for name, c := range map[string]struct {
		own      Sample
		others   []Sample
		members  int
		accused  []uint64
		compared int
	}{
		"all agree":                      {at(1, 7, 3), []Sample{at(2, 7, 3), at(3, 7, 3)}, 3, nil, 2},
		"alone":                          {at(1, 7, 3), nil, 1, nil, 0},
		"a follower differs":             {at(1, 7, 3), []Sample{at(2, 8, 3), at(3, 7, 3)}, 3, []uint64{2}, 2},
		"the leader differs":             {at(1, 8, 3), []Sample{at(2, 7, 3), at(3, 7, 3)}, 3, []uint64{1}, 2},
		"two differ in two ways":         {at(1, 7, 3), []Sample{at(2, 8, 3), at(3, 9, 3)}, 3, []uint64{0}, 2},
		"two of five differ":             {at(1, 7, 3), []Sample{at(5, 8, 3), at(3, 7, 3), at(4, 7, 3), at(2, 9, 3)}, 5, []uint64{2, 5}, 4},
		"two members":                    {at(1, 7, 3), []Sample{at(2, 8, 3)}, 2, []uint64{0}, 1},
		"the third is not there to ask":  {at(1, 7, 3), []Sample{at(2, 8, 3), {Member: 3, Err: errGone}}, 3, []uint64{0}, 1},
		"a silent member is no suspect":  {at(1, 7, 3), []Sample{at(2, 7, 3), {Member: 3, Err: errGone}}, 3, nil, 1},
		"another compaction is no proof": {at(1, 7, 3), []Sample{at(2, 7, 3), at(3, 8, 4)}, 3, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			accused, compared := judge(c.own, c.others, c.members)
			require.Equal(t, c.accused, accused)
			require.Equal(t, c.compared, compared)
		})
	}
}

// fake is a cluster whose members say what they are told to.
type fake struct {
	own     Hash
	others  []Sample
	now     func() (head, compact int64)
	confirm []error // of the calls in their order; nil when used up
	raised  []uint64
	asked   []int64
}

func (f *fake) Self() uint64 { return 1 }

func (f *fake) Own(revision int64) (Hash, error) {
	if revision > 0 {
		f.own.Revision = revision
	}
	return f.own, nil
}

func (f *fake) Now() (head, compact int64) {
	if f.now != nil {
		return f.now()
	}
	return f.own.Head, f.own.Compact
}

func (f *fake) Others(_ context.Context, revision int64, _ bool) []Sample {
	f.asked = append(f.asked, revision)
	return f.others
}

func (f *fake) Confirm(context.Context) error {
	if len(f.confirm) == 0 {
		return nil
	}
	err := f.confirm[0]
	f.confirm = f.confirm[1:]
	return err
}

func (f *fake) Raised(member uint64) bool { return slices.Contains(f.raised, member) }

func (f *fake) Raise(_ context.Context, member uint64) error {
	f.raised = append(f.raised, member)
	return nil
}

func checker(f *fake) *Checker { return New(f, slog.New(slog.DiscardHandler)) }

// The alarm is raised once, and again after somebody took it back while the difference is still there.
func TestAnAlarmIsRaisedOnce(t *testing.T) {
	f := &fake{own: at(1, 7, 3).Hash, others: []Sample{at(2, 8, 3), at(3, 7, 3)}}
	c := checker(f)
	require.NoError(t, c.Compare(t.Context()))
	require.NoError(t, c.Compare(t.Context()))
	require.Equal(t, []uint64{2}, f.raised)
	f.raised = nil
	require.NoError(t, c.Compare(t.Context()))
	require.Equal(t, []uint64{2}, f.raised)
}

// Who lost leadership while it asked accuses nobody: what it holds may be behind.
func TestADeposedLeaderAccusesNobody(t *testing.T) {
	f := &fake{own: at(1, 7, 3).Hash, others: []Sample{at(2, 8, 3), at(3, 8, 3)}, confirm: []error{nil, errGone}}
	require.ErrorIs(t, checker(f).Compare(t.Context()), errGone)
	f.confirm = []error{errGone}
	require.ErrorIs(t, checker(f).Compare(t.Context()), errGone)
	require.Empty(t, f.raised)
	require.Len(t, f.asked, 1)
}

// A member that holds revisions or compactions that were never made is accused; one that is merely ahead of where the round began is not.
func TestWhoIsAheadOfTheLeaderIsAccused(t *testing.T) {
	far, compacted := at(2, 7, 3), at(3, 7, 6)
	far.Hash.Head = 12
	f := &fake{own: at(1, 7, 3).Hash, others: []Sample{far, compacted}}
	f.now = func() (int64, int64) { return 12, 6 }
	require.NoError(t, checker(f).Compare(t.Context()))
	require.Empty(t, f.raised)
	f.now = func() (int64, int64) { return 11, 5 }
	require.NoError(t, checker(f).Compare(t.Context()))
	require.Equal(t, []uint64{2, 3}, f.raised)
}

// Each compaction is compared until all members were seen to agree, and not again.
func TestACompactionIsComparedUntilAllAgree(t *testing.T) {
	f := &fake{own: Hash{Sum: 7, Revision: 10, Compact: 0, Head: 10}}
	c := checker(f)
	require.NoError(t, c.Compacted(t.Context()))
	require.Empty(t, f.asked, "nothing was compacted yet")
	f.own.Compact = 4
	agreed := func(m uint64) Sample { return Sample{Member: m, Hash: Hash{Sum: 7, Revision: 4, Compact: 4, Head: 10}} }
	f.others = []Sample{agreed(2), {Member: 3, Err: errGone}}
	require.NoError(t, c.Compacted(t.Context()))
	f.others = []Sample{agreed(2), agreed(3)}
	require.NoError(t, c.Compacted(t.Context()))
	require.NoError(t, c.Compacted(t.Context()))
	require.Equal(t, []int64{4, 4}, f.asked)
	require.Empty(t, f.raised)
}

// At the start any difference is one, as in etcd; what cannot be compared is not.
func TestTheInitialCheckRefusesADifference(t *testing.T) {
	f := &fake{own: at(1, 7, 3).Hash, others: []Sample{
		at(2, 8, 4), {Member: 3, Err: rpctypes.ErrGRPCFutureRev}, {Member: 4, Err: rpctypes.ErrGRPCCompacted}, at(5, 7, 3),
	}}
	require.NoError(t, checker(f).Initial(t.Context()))
	f.others = append(f.others, at(6, 8, 3))
	err := checker(f).Initial(t.Context())
	difference, ok := errors.AsType[*DifferenceError](err)
	require.True(t, ok)
	require.Equal(t, []uint64{6}, difference.Others)
	require.NotContains(t, err.Error(), "\n")
	require.Empty(t, f.raised)
}
