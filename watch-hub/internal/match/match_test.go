package match_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes HOLDFAST_SEED or a new one")

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d", s)
	return s
}

type member struct {
	spec       match.Spec
	stream, id uint64
}

// run gives what each registration gets, as "revision:key" words.
func run(x *match.Index, revisions []*feedv1.Revision) map[[2]uint64][]string {
	got := map[[2]uint64][]string{}
	x.Match(revisions, func(g *match.Group, wanted []*feedv1.Revision) {
		g.Streams(func(stream uint64, ids []uint64) {
			for _, id := range ids {
				for _, r := range wanted {
					for _, e := range r.GetEvents() {
						got[[2]uint64{stream, id}] = append(got[[2]uint64{stream, id}], word(r, e))
					}
				}
			}
		})
	})
	return got
}

func word(r *feedv1.Revision, e *feedv1.Event) string {
	return fmt.Sprintf("%d:%s:%t", r.GetRevision(), e.GetKey(), e.GetDeleted())
}

// Adding, removing and matching agree with a list that is searched from end to end.
func TestIndexAgreesWithAList(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 1))
	key := func() string { return string([]byte{byte('a' + rng.IntN(6)), byte('a' + rng.IntN(4))})[:1+rng.IntN(2)] }
	x := match.NewIndex()
	var list []member
	revision := int64(0)
	for step := range 1000 {
		switch rng.IntN(4) {
		case 0, 1:
			m := member{stream: rng.Uint64N(3), id: uint64(step)}
			m.spec = match.Spec{NoPut: rng.IntN(4) == 0, NoDelete: rng.IntN(4) == 0, PreviousKV: rng.IntN(2) == 0}
			m.spec.Key = key()
			switch rng.IntN(4) {
			case 0, 1:
				m.spec.End = key() // sometimes below the key: then it is empty
			case 2:
				m.spec.End = "\x00"
			}
			if rng.IntN(3) == 0 { // what many want
				m.spec = match.Spec{Range: match.Range{Key: "b"}}
			}
			x.Add(m.spec, m.stream, m.id)
			x.Add(m.spec, m.stream, m.id)
			list = append(list, m)
		case 2:
			if len(list) > 0 {
				i := rng.IntN(len(list))
				x.Remove(list[i].spec, list[i].stream, list[i].id)
				x.Remove(list[i].spec, list[i].stream, list[i].id)
				list = slices.Delete(list, i, i+1)
			}
		case 3:
			var revisions []*feedv1.Revision
			for range 1 + rng.IntN(3) {
				revision++
				r := &feedv1.Revision{Revision: revision}
				for range 1 + rng.IntN(3) {
					r.Events = append(r.Events, &feedv1.Event{Key: []byte(key()), Deleted: rng.IntN(3) == 0})
				}
				revisions = append(revisions, r)
			}
			want := map[[2]uint64][]string{}
			for _, m := range list {
				for _, r := range revisions {
					for _, e := range r.GetEvents() {
						if m.spec.Contains(string(e.GetKey())) && m.spec.Wants(e) {
							at := [2]uint64{m.stream, m.id}
							want[at] = append(want[at], word(r, e))
						}
					}
				}
			}
			require.Equal(t, want, run(x, revisions), "step %d", step)
		}
		require.Equal(t, len(list), x.Len())
	}
	for _, m := range list {
		x.Remove(m.spec, m.stream, m.id)
	}
	require.Zero(t, x.Len())
	require.Empty(t, x.Ranges(10))
}

func TestGroupSharesWhatItGivesOut(t *testing.T) {
	x := match.NewIndex()
	spec := match.Spec{Range: match.Range{Key: "a", End: "b"}}
	x.Add(spec, 1, 10)
	x.Add(spec, 1, 11)
	whole := &feedv1.Revision{Revision: 5, Events: []*feedv1.Event{{Key: []byte("a1")}}}
	half := &feedv1.Revision{Revision: 6, SpanContext: []byte("s"), Events: []*feedv1.Event{{Key: []byte("a1")}, {Key: []byte("z")}}}
	var ids []uint64
	x.Match([]*feedv1.Revision{whole, half}, func(g *match.Group, wanted []*feedv1.Revision) {
		require.Same(t, whole, wanted[0], "a revision that is wanted whole is not copied")
		require.Len(t, wanted[1].GetEvents(), 1)
		require.Equal(t, []byte("s"), wanted[1].GetSpanContext())
		g.Streams(func(_ uint64, given []uint64) { ids = given })
	})
	require.Len(t, half.GetEvents(), 2)
	x.Remove(spec, 1, 10)
	x.Add(spec, 1, 12)
	require.Equal(t, []uint64{10, 11}, ids, "lists that were given out do not change")
	require.Equal(t, []match.Range{spec.Range}, x.Ranges(10))
}

func BenchmarkMatch(b *testing.B) {
	x := match.NewIndex()
	for i := range uint64(100_000) {
		prefix := fmt.Sprintf("/registry/pods/%06d/", i)
		x.Add(match.Spec{Range: match.Range{Key: prefix, End: prefix[:len(prefix)-1] + "0"}}, i%4, i)
	}
	revisions := []*feedv1.Revision{{Revision: 1, Events: []*feedv1.Event{{Key: []byte("/registry/pods/050000/x")}}}}
	for b.Loop() {
		x.Match(revisions, func(*match.Group, []*feedv1.Revision) {})
	}
}
