package contract

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/credit"
)

func hubSuites() map[string]suite {
	return map[string]suite{
		"current": currentSuite, "past": pastSuite, "future": futureSuite, "store": storeSuite, "credit": hubCreditSuite,
		"previous": previousSuite, "filters": filtersSuite, "compacted": compactedSuite, "cancel": cancelSuite, "streams": streamsSuite,
	}
}

func withPrevious(r *watchv1.Registration) { r.PreviousKv = true }
func withoutPuts(r *watchv1.Registration)  { r.NoPut = true }
func withoutDeletes(r *watchv1.Registration) {
	r.NoDelete = true
}

// puts writes a key several times and gives the words that a watch of it writes down.
func puts(c *caller, key string, count int) (revision int64, words []string) {
	c.t.Helper()
	for i := range count {
		revision = c.put(key, fmt.Sprint(i))
		words = append(words, fmt.Sprintf("%d put %d", revision, i))
	}
	return revision, words
}

// A registration from the present on joins, gets its own changes, and covers those of others.
func currentSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head := c.put(key(t, "k"), "before")
	k := w.register(1, key(t, "k"), head+1)
	all := w.register(2, key(t, ""), head+1, func(r *watchv1.Registration) { r.RangeEnd = []byte(key(t, "~")) })
	w.sees(k, head)
	w.sees(all, head)
	_, words := puts(c, key(t, "k"), 3)
	other := c.put(key(t, "other"), "x")
	outside := c.put("outside/"+key(t, ""), "x")
	w.sees(k, outside, words...)
	w.sees(all, outside, append(words, fmt.Sprintf("%d put x", other))...)
}

// A registration from the past catches up, joins and goes on.
func pastSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head, words := puts(c, key(t, "k"), 10)
	c.put(key(t, "other"), "x")
	first, third := w.register(1, key(t, "k"), head-9), w.register(2, key(t, "k"), head-7)
	w.sees(first, head, words...)
	w.sees(third, head, words[2:]...)
	last, more := puts(c, key(t, "k"), 2)
	w.sees(first, last, append(words, more...)...)
	w.sees(third, last, append(words[2:], more...)...)
}

// A registration from the future joins when it begins, and gets nothing from before.
func futureSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head := c.put(key(t, "k"), "before")
	now, later := w.register(1, key(t, "k"), head+1), w.register(2, key(t, "k"), head+4)
	second, words := puts(c, key(t, "k"), 2)
	w.sees(now, second, words...)
	require.False(t, later.joined)
	last, more := puts(c, key(t, "k"), 3)
	w.sees(now, last, append(words, more...)...)
	w.sees(later, last, more[1:]...)
}

// What no memory holds any more comes from the node's store, with the values before.
func storeSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	one := w.register(1, oldKey, oldLast-1, withPrevious)
	two := w.register(2, oldKey, oldLast)
	w.sees(one, c.fence().GetRevision(), fmt.Sprintf("%d put %d before %d", oldLast-1, oldLast-1, oldLast-2),
		fmt.Sprintf("%d put %d before %d", oldLast, oldLast, oldLast-1))
	w.sees(two, c.fence().GetRevision(), fmt.Sprintf("%d put %d", oldLast, oldLast))
}

// Past the window of responses that were not marked as taken nothing arrives but marks. Then everything does.
func hubCreditSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, observer, w := newCaller(t, conn), newWatcher(t, conn), newWatcher(t, conn)
	head := c.put(key(t, "k"), "before")
	seen := observer.register(1, key(t, "k"), head+1)
	observer.sees(seen, head)
	w.silent = true
	one := w.register(1, key(t, "k"), head+1)
	var words []string
	put := func(i int) int64 {
		revision := c.put(key(t, "k"), fmt.Sprint(i))
		words = append(words, fmt.Sprintf("%d put %d", revision, i))
		observer.until(func() bool { return seen.covered >= revision })
		return revision
	}
	for w.taken < credit.Window {
		if r := w.next(); !r.GetMarkAlone() && w.taken < credit.Window {
			put(0)
		}
	}
	covered, got := one.covered, len(one.got)
	var last int64
	for i := range 5 {
		last = put(i)
		// A window of requests is acknowledged without credit, and behind whatever was sent before.
		for range credit.Window {
			w.unregister(100)
		}
		r := w.next()
		require.True(t, r.GetMarkAlone(), "a response without credit: %v", r)
		require.Equal(t, w.asked, r.GetTaken())
	}
	require.Equal(t, covered, one.covered)
	require.Len(t, one.got, got)
	w.silent = false
	w.mark()
	w.sees(one, last, words...)
	observer.sees(seen, last, words...)
}

// The value before a change comes where it was asked for, and there alone.
func previousSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	first := c.put(key(t, "k"), "a")
	with, without := w.register(1, key(t, "k"), first+1, withPrevious), w.register(2, key(t, "k"), first+1)
	past := w.register(3, key(t, "k"), first, withPrevious)
	w.sees(with, first)
	w.sees(past, first, fmt.Sprintf("%d put a", first))
	c.put(key(t, "k"), "b")
	c.remove(key(t, "k"))
	last := c.put(key(t, "k"), "c")
	words := []string{
		fmt.Sprintf("%d put b before a", first+1), fmt.Sprintf("%d delete before b", first+2), fmt.Sprintf("%d put c", first+3),
	}
	w.sees(with, last, words...)
	w.sees(past, last, append([]string{fmt.Sprintf("%d put a", first)}, words...)...)
	w.sees(without, last, fmt.Sprintf("%d put b", first+1), fmt.Sprintf("%d delete", first+2), fmt.Sprintf("%d put c", first+3))
}

// What is filtered out is covered all the same, live and in the past.
func filtersSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head := c.fence().GetRevision()
	live := []*watch{
		w.register(1, key(t, "k"), head+1, withoutPuts), w.register(2, key(t, "k"), head+1, withoutDeletes),
		w.register(3, key(t, "k"), head+1, withoutPuts, withoutDeletes),
	}
	for _, one := range live {
		w.sees(one, head)
	}
	put := c.put(key(t, "k"), "a")
	removed := c.remove(key(t, "k"))
	again := c.put(key(t, "k"), "b")
	past := []*watch{
		w.register(4, key(t, "k"), head+1, withoutPuts), w.register(5, key(t, "k"), head+1, withoutDeletes),
		w.register(6, key(t, "k"), head+1, withoutPuts, withoutDeletes),
	}
	for _, some := range [][]*watch{live, past} {
		w.sees(some[0], again, fmt.Sprintf("%d delete", removed))
		w.sees(some[1], again, fmt.Sprintf("%d put a", put), fmt.Sprintf("%d put b", again))
		w.sees(some[2], again)
	}
}

// A registration that starts below the compact revision, where no memory has what it misses, ends with that revision; one that
// starts at it is served.
func compactedSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	compact := max(oldFirst, c.fence().GetCompactRevision()) + 2
	require.Less(t, compact, int64(oldLast-2), "there is something left to compact")
	read[pb.CompactionResponse](t, c.do(call(t, consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: compact, Physical: true}))[0])
	below, at := w.register(1, oldKey, compact-1), w.register(2, oldKey, compact)
	w.until(func() bool { return below.ended != nil })
	require.Equal(t, compact, below.ended.GetCompactRevision())
	require.Empty(t, below.got)
	var words []string
	for revision := compact; revision <= oldLast; revision++ {
		words = append(words, fmt.Sprintf("%d put %d", revision, revision))
	}
	w.sees(at, c.fence().GetRevision(), words...)
	require.Nil(t, at.ended)
}

// A registration that was cancelled gets nothing more, and others of the stream go on.
func cancelSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head := c.fence().GetRevision()
	gone, stays := w.register(1, key(t, "k"), head+1), w.register(2, key(t, "k"), head+1)
	w.sees(gone, head)
	w.sees(stays, head)
	first := c.put(key(t, "k"), "a")
	w.sees(gone, first, fmt.Sprintf("%d put a", first))
	w.unregister(1)
	// The request was taken in before the registration that follows it.
	next := w.register(3, key(t, "k"), first+1)
	w.sees(next, first)
	second := c.put(key(t, "k"), "b")
	w.sees(stays, second, fmt.Sprintf("%d put a", first), fmt.Sprintf("%d put b", second))
	w.sees(next, second, fmt.Sprintf("%d put b", second))
	require.Len(t, gone.got, 1)
}

// Two streams use the same ids, and neither a slow one nor the end of one is of concern to the other.
func streamsSuite(t *testing.T, s *services, conn grpc.ClientConnInterface) {
	c, w := newCaller(t, conn), newWatcher(t, conn)
	head := c.fence().GetRevision()
	a := w.register(1, key(t, "a"), head+1)
	var others []*watcher
	for _, b := range s.bindings { // one hub serves both bindings at once
		other := newWatcher(t, b.conn)
		other.silent = true
		one := other.register(1, key(t, "b"), head+1)
		other.until(func() bool { return one.joined })
		others = append(others, other)
	}
	_, first := puts(c, key(t, "a"), 10)
	b := c.put(key(t, "b"), "x")
	w.sees(a, b, first...)
	for i, other := range others {
		other.silent = false
		other.mark()
		other.sees(other.watches[1], b, fmt.Sprintf("%d put x", b))
		if i == 0 {
			continue
		}
		other.cancel()
		_, err := other.stream.Recv()
		require.Equal(t, codes.Canceled, status.Code(err))
	}
	last, second := puts(c, key(t, "a"), 2)
	w.sees(a, last, append(first, second...)...)
	others[0].sees(others[0].watches[1], last, fmt.Sprintf("%d put x", b))
}
