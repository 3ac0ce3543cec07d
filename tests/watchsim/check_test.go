package watchsim

import (
	"bytes"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// responseBytesMax is what a plain gRPC client takes.
const responseBytesMax = 4 << 20

// watch is one watch that a client wants, with what it was told; it outlives the streams that it is on.
type watch struct {
	name, key, end                      string
	noPut, noDelete                     bool
	previous, fragment, notify, refused bool

	// next is the first revision that is not covered yet; 0: from now on, which the created response turns into a revision.
	next int64
	// bookmark is what a progress notice promised.
	bookmark int64

	// What follows is of the present stream.

	asked      int64 // the head when it was asked for
	id         int64
	header     int64
	cancelling bool
	parts      []*mvccpb.Event
}

func (w *watch) String() string {
	return fmt.Sprintf("%s [%q,%q) no put %v no delete %v next %d", w.name, w.key, w.end, w.noPut, w.noDelete, w.next)
}

// wanted are the changes of a revision that the watch is to get. The caller holds the world's lock.
func (w *watch) wanted(changes []change) (out []change) {
	for _, c := range changes {
		if inRange(c.key, w.key, w.end) && (!c.deleted && !w.noPut || c.deleted && !w.noDelete) {
			out = append(out, c)
		}
	}
	return out
}

// missing is the first revision up to another that the watch has not got; 0: none.
func (w *watch) missing(world *world, upTo int64) int64 {
	world.mu.Lock()
	defer world.mu.Unlock()
	for r := max(w.next, 1); r <= min(upTo, int64(len(world.history))-1); r++ {
		if len(w.wanted(world.history[r])) > 0 {
			return r
		}
	}
	return 0
}

// took takes in a response with events and says what is wrong with it.
func (w *watch) took(world *world, r *pb.WatchResponse, bytesIn int) error {
	if r.GetHeader().GetRevision() < w.header {
		return fmt.Errorf("the header fell from %d to %d", w.header, r.GetHeader().GetRevision())
	}
	w.header = r.GetHeader().GetRevision()
	if r.GetFragment() && !w.fragment {
		return fmt.Errorf("a fragment that nobody asked for")
	}
	w.parts = append(w.parts, r.GetEvents()...)
	if r.GetFragment() {
		return nil
	}
	events := w.parts
	w.parts = nil
	revisions := 0
	for len(events) > 0 {
		revision, n := events[0].GetKv().GetModRevision(), 0
		for n < len(events) && events[n].GetKv().GetModRevision() == revision {
			n++
		}
		if err := w.revision(world, revision, events[:n]); err != nil {
			return err
		}
		events = events[n:]
		revisions++
		if revision > w.header {
			return fmt.Errorf("the header %d is below the event at %d", w.header, revision)
		}
	}
	if revisions > 1 && bytesIn > responseBytesMax {
		return fmt.Errorf("%d revisions were joined to %d bytes", revisions, bytesIn)
	}
	return nil
}

// revision checks the events of one revision: the next that the watch is to get, and all of it.
func (w *watch) revision(world *world, revision int64, events []*mvccpb.Event) error {
	switch {
	case revision < w.next:
		return fmt.Errorf("%d came again, out of order, or split: all up to %d had come", revision, w.next-1)
	case revision <= w.bookmark:
		return fmt.Errorf("%d came after a notice at %d", revision, w.bookmark)
	}
	if missed := w.missing(world, revision-1); missed > 0 {
		return fmt.Errorf("%d came and %d did not", revision, missed)
	}
	world.mu.Lock()
	defer world.mu.Unlock()
	if revision >= int64(len(world.history)) {
		return fmt.Errorf("%d does not exist", revision)
	}
	want := w.wanted(world.history[revision])
	if len(want) != len(events) {
		return fmt.Errorf("%d has %d events, %d came", revision, len(want), len(events))
	}
	for i, e := range events {
		c := want[i]
		if (e.GetType() == mvccpb.Event_DELETE) != c.deleted || !bytes.Equal(encode(e.GetKv()), c.kv) {
			return fmt.Errorf("%d: %v came for %s", revision, e, c.key)
		}
		switch previous := e.GetPrevKv(); {
		case previous == nil && w.previous && c.prev != nil && revision > world.compact:
			return fmt.Errorf("%d: the previous value of %s is missing", revision, c.key)
		case previous != nil && (!w.previous || !bytes.Equal(encode(previous), c.prev)):
			return fmt.Errorf("%d: %v came as the previous value of %s", revision, previous, c.key)
		}
	}
	w.next = revision + 1
	return nil
}

// told takes in a progress notice; common: it speaks for all watches of the stream.
func (w *watch) told(world *world, revision int64, common bool) error {
	if common && w.next > revision+1 {
		return fmt.Errorf("a notice for all at %d, but it stands at %d", revision, w.next)
	}
	if missed := w.missing(world, revision); missed > 0 {
		return fmt.Errorf("a notice at %d, but %d did not come", revision, missed)
	}
	if len(w.parts) > 0 {
		return fmt.Errorf("a notice between fragments")
	}
	if revision < w.header && !common {
		return fmt.Errorf("a notice at %d below the header %d", revision, w.header)
	}
	w.header = max(w.header, revision)
	w.bookmark = max(w.bookmark, revision)
	w.next = max(w.next, revision+1)
	return nil
}

// ended takes in that the watch was cancelled as compacted.
func (w *watch) ended(world *world, compact int64) error {
	most := world.compacted()
	if w.next >= compact || compact > most {
		return fmt.Errorf("ended as compacted at %d (the most is %d) while at %d", compact, most, w.next)
	}
	w.next = compact
	return nil
}
