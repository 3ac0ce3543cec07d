package follow_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/lease-service/internal/follow"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

func granted(sequence uint64, id, ttl int64) *feedv1.LeaseChange {
	return &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Granted{Granted: &feedv1.LeaseGranted{Id: id, TtlS: ttl}}}
}

func revoked(sequence uint64, ids ...int64) *feedv1.LeaseChange {
	return &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Revoked{Revoked: &feedv1.LeaseRevoked{Ids: ids}}}
}

func viewed(sequence, epoch uint64) *feedv1.LeaseChange {
	return &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_View{View: &feedv1.View{Epoch: epoch}}}
}

func checkpointed(sequence uint64, id, rest int64) *feedv1.LeaseChange {
	return &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Checkpoint{
		Checkpoint: &feedv1.LeaseCheckpoint{Id: id, RemainingTtlS: rest},
	}}
}

func sequences(changes []*feedv1.LeaseChange) []uint64 {
	list := make([]uint64, len(changes))
	for i, change := range changes {
		list[i] = change.GetSequence()
	}
	return list
}

func page(sequence, epoch uint64, more bool, idsAndTTLs ...int64) *consensusv1.LeaseTableResponse {
	response := &consensusv1.LeaseTableResponse{Sequence: sequence, View: &feedv1.View{Epoch: epoch}, More: more}
	for i := 0; i < len(idsAndTTLs); i += 2 {
		response.Leases = append(response.Leases, &consensusv1.LeaseEntry{Id: idsAndTTLs[i], TtlS: idsAndTTLs[i+1]})
	}
	return response
}

func text(table *follow.Table) string {
	slices.SortFunc(table.Leases, func(a, b *consensusv1.LeaseEntry) int { return int(a.GetId() - b.GetId()) })
	out := fmt.Sprintf("sequence %d epoch %d:", table.Sequence, table.View.GetEpoch())
	for _, entry := range table.Leases {
		out += fmt.Sprintf(" %d/%d/%d", entry.GetId(), entry.GetTtlS(), entry.GetRemainingTtlS())
		if granted := entry.GetGrantedSequence(); granted != 0 {
			out += fmt.Sprintf("@%d", granted)
		}
	}
	return out
}

func TestOrder(t *testing.T) {
	var f follow.Follower
	require.True(t, f.Behind(), "there is no table yet")
	require.Empty(t, f.Accept([]*feedv1.LeaseChange{granted(11, 1, 5)}, nil))
	f.Begin().Add(page(10, 1, false, 9, 5))
	table, changes, ok := f.Finish(nil)
	require.True(t, ok)
	require.Equal(t, "sequence 10 epoch 1: 9/5/0", text(table))
	require.Equal(t, []uint64{11}, sequences(changes), "what came before the table follows it")
	require.False(t, f.Behind())

	require.Empty(t, f.Accept([]*feedv1.LeaseChange{granted(13, 3, 5), granted(14, 4, 5)}, nil))
	require.True(t, f.Behind())
	require.Empty(t, f.Accept([]*feedv1.LeaseChange{granted(10, 9, 5), granted(11, 1, 5)}, nil), "old ones are dropped")
	got := f.Accept([]*feedv1.LeaseChange{granted(12, 2, 5), granted(13, 3, 5)}, nil)
	require.Equal(t, []uint64{12, 13, 14}, sequences(got))
	require.False(t, f.Behind())
	f.Told(15)
	require.True(t, f.Behind())
	position, _ := f.Position()
	require.EqualValues(t, 14, position)
}

// Pages of different sequences make a table of one.
func TestPages(t *testing.T) {
	var f follow.Follower
	build := f.Begin()
	build.Add(page(10, 1, true, 1, 5, 2, 5))
	require.EqualValues(t, 2, build.After())
	require.False(t, build.Done())
	f.Accept([]*feedv1.LeaseChange{
		revoked(11, 1), granted(12, 3, 7), viewed(13, 2), revoked(14, 5), granted(15, -1, 9), checkpointed(16, 2, 3), granted(17, 4, 4),
	}, nil)
	build.Add(page(14, 2, false, 3, 7))
	require.True(t, build.Done())
	table, changes, ok := f.Finish(nil)
	require.True(t, ok)
	require.Equal(t, "sequence 14 epoch 2: 2/5/0 3/7/0", text(table))
	require.Equal(t, []uint64{15, 16, 17}, sequences(changes))
}

func TestPagesWithoutTheChangesBetweenThem(t *testing.T) {
	var f follow.Follower
	build := f.Begin()
	build.Add(page(10, 1, true, 1, 5))
	f.Accept([]*feedv1.LeaseChange{granted(12, 3, 7)}, nil)
	build.Add(page(12, 1, false, 3, 7))
	_, _, ok := f.Finish(nil)
	require.False(t, ok)
	require.True(t, f.Behind())
	_, _, ok = f.Finish(nil)
	require.False(t, ok, "no read is under way")
}

// A lease that the changes between the pages grant anew, and checkpoint, tells of its own grant.
func TestPagesOfALeaseGrantedBetweenThem(t *testing.T) {
	var f follow.Follower
	build := f.Begin()
	build.Add(page(10, 1, true, 1, 5, 2, 5))
	f.Accept([]*feedv1.LeaseChange{revoked(11, 1), granted(12, 1, 7), checkpointed(13, 1, 3)}, nil)
	build.Add(page(13, 1, false))
	table, _, ok := f.Finish(nil)
	require.True(t, ok)
	require.Equal(t, "sequence 13 epoch 1: 1/7/3@12 2/5/0", text(table))
}

// A table read while the feed closed the gap by itself changes nothing.
func TestTableThatIsNotNews(t *testing.T) {
	var f follow.Follower
	f.Begin().Add(page(10, 1, false))
	f.Finish(nil)
	build := f.Begin()
	require.Len(t, f.Accept([]*feedv1.LeaseChange{granted(11, 1, 5), granted(12, 2, 5)}, nil), 2)
	build.Add(page(12, 1, false, 1, 5, 2, 5))
	table, changes, ok := f.Finish(nil)
	require.True(t, ok)
	require.Nil(t, table)
	require.Empty(t, changes)
}

// Whatever the feed does and whenever the table is read, the follower ends with the table of the tier.
func TestRandomFeeds(t *testing.T) {
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 2))
	for round := range 300 {
		var f follow.Follower
		var log []*feedv1.LeaseChange
		tier, mine := map[int64]grant{}, map[int64]grant{}
		take := func(changes []*feedv1.LeaseChange) {
			for _, change := range changes {
				apply(mine, change)
			}
		}
		var build *follow.Build
		for range 200 {
			change := granted(uint64(len(log)+1), r.Int64N(30)-15, 1+r.Int64N(100))
			if id := change.GetGranted().GetId(); tier[id].ttl != 0 || id == 0 {
				change = revoked(change.GetSequence(), id)
			}
			log = append(log, change)
			apply(tier, change)
			if r.IntN(10) > 0 {
				at := max(0, len(log)-1-r.IntN(3))
				take(f.Accept(log[at:at+1], nil))
			}
			if f.Behind() && build == nil && r.IntN(5) == 0 {
				build = f.Begin()
			}
			if build != nil && r.IntN(2) == 0 {
				build.Add(readPage(tier, uint64(len(log)), build.After()))
				if build.Done() {
					finish(&f, mine, take)
					build = nil
				}
			}
		}
		build = f.Begin()
		for !build.Done() {
			build.Add(readPage(tier, uint64(len(log)), build.After()))
		}
		finish(&f, mine, take)
		require.Equal(t, tier, mine, "round %d of seed %d", round, seed)
		require.False(t, f.Behind())
	}
}

// grant is what the model knows of a lease.
type grant struct {
	ttl      int64
	sequence uint64
}

func apply(table map[int64]grant, change *feedv1.LeaseChange) {
	if g := change.GetGranted(); g != nil {
		table[g.GetId()] = grant{g.GetTtlS(), change.GetSequence()}
	}
	for _, id := range change.GetRevoked().GetIds() {
		delete(table, id)
	}
}

// readPage reads 4 leases in the order of the ids' bits.
func readPage(table map[int64]grant, sequence uint64, after int64) *consensusv1.LeaseTableResponse {
	response := &consensusv1.LeaseTableResponse{Sequence: sequence, View: &feedv1.View{}}
	var ids []uint64
	for id := range table {
		if uint64(id) > uint64(after) {
			ids = append(ids, uint64(id))
		}
	}
	slices.Sort(ids)
	for i, id := range ids {
		if i == 4 {
			response.More = true
			break
		}
		lease := table[int64(id)]
		response.Leases = append(response.Leases, &consensusv1.LeaseEntry{
			Id: int64(id), TtlS: lease.ttl, GrantedSequence: lease.sequence,
		})
	}
	return response
}

func finish(f *follow.Follower, mine map[int64]grant, take func([]*feedv1.LeaseChange)) {
	table, changes, _ := f.Finish(nil)
	if table != nil {
		clear(mine)
		for _, entry := range table.Leases {
			mine[entry.GetId()] = grant{entry.GetTtlS(), entry.GetGrantedSequence()}
		}
	}
	take(changes)
}

func TestDecodeLeavesOutKeys(t *testing.T) {
	message := &feedv1.Message{
		Version: 1, ClusterId: 7, HeadRevision: 9, LeaseSequence: 3, PreviousLeaseSequence: 1,
		Revisions:    []*feedv1.Revision{{Revision: 8}, {Revision: 9, Events: []*feedv1.Event{{Key: []byte("k")}}}},
		LeaseChanges: []*feedv1.LeaseChange{granted(2, 1, 5), revoked(3, 1)},
	}
	data, err := message.MarshalVT()
	require.NoError(t, err)
	before := slices.Clone(data)
	decoded, err := follow.Decode(data)
	require.NoError(t, err)
	require.Equal(t, before, data, "the payload is shared")
	require.Empty(t, decoded.GetRevisions())
	require.EqualValues(t, 9, decoded.GetHeadRevision())
	require.Equal(t, []uint64{2, 3}, sequences(decoded.GetLeaseChanges()))
	require.EqualValues(t, 1, decoded.GetPreviousLeaseSequence())
	for _, broken := range [][]byte{{0xff}, {0x8a, 0x01, 0x7f}, {0x0a, 0x05, 1}} {
		_, err := follow.Decode(broken)
		require.Error(t, err)
	}
}

// seedOf is HOLDFAST_SEED, or one of the time.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("HOLDFAST_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err)
	return seed
}
