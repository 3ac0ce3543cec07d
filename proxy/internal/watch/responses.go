package watch

import (
	"math"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// spansMax bounds the span contexts that one response names.
const spansMax = 128

// Response is one response to the client: the head, then the parts, which are shared and read-only. The slice that holds them is good
// until the next call of Next.
type Response struct {
	Head  wire.WatchHead
	Parts [][]byte
	// Spans are the span contexts of sampled writes among the events.
	Spans [][]byte
	// Events is how many events end with this response: those of a revision in fragments come with the first.
	Events int
}

// Next gives the next response, or false if there is none now.
func (c *Core) Next() (Response, bool) {
	clear(c.parts) // they were sent, and must not be kept for an idle client
	if c.wanted && len(c.ready) == 0 {
		c.wanted = false
		c.ready = append(c.ready, entry{all: true})
	}
	for len(c.ready) > 0 {
		e := c.ready[0]
		switch {
		case e.control != nil:
			c.pop()
			if e.creates != nil {
				e.creates.announced = true
			}
			return Response{Head: *e.control}, true
		case e.all:
			c.pop()
			c.progress()
			if c.wanted && len(c.ready) == 0 {
				return Response{}, false
			}
		case e.notice:
			c.pop()
			if e.watch.current() {
				return Response{Head: e.watch.notice(e.watch.sent())}, true
			}
		default:
			response, ok := c.turn(e.watch)
			if len(e.watch.fragments) == 0 {
				c.pop()
				c.requeue(e.watch)
			}
			if ok {
				return response, true
			}
		}
	}
	return Response{}, false
}

func (c *Core) pop() {
	c.ready[0] = entry{}
	c.ready = rest(c.ready, 1)
}

// keptMax is the longest queue whose array is used again when it is empty.
const keptMax = 64

// rest is a queue without its first n, which were cleared. An empty one begins again in its array: a queue that mostly holds
// one would otherwise need a new array each time.
func rest[T any](queue []T, n int) []T {
	switch {
	case n < len(queue):
		return queue[n:]
	case cap(queue) > keptMax:
		return nil
	}
	return queue[:0]
}

// requeue gives a watch its next turn behind the others if it has more to say: a busy watch must not starve the rest of the
// stream.
func (c *Core) requeue(w *watch) {
	w.inReady = false
	if len(w.queue) > 0 || w.finish != nil {
		c.enqueue(w)
	}
}

// turn gives the next response of a watch: one, or all the fragments of one, which must not be parted by other responses.
func (c *Core) turn(w *watch) (Response, bool) {
	switch {
	case len(w.fragments) > 0:
		return c.nextFragment(w), true
	case len(w.queue) > 0:
		return c.events(w), true
	case w.finish != nil:
		head := *w.finish
		head.Header.Revision = max(head.Header.Revision, w.told)
		w.finish = nil
		return Response{Head: head}, true
	}
	return Response{}, false
}

// events joins what waits for the watch into one response of whole revisions.
func (c *Core) events(w *watch) Response {
	bound := c.limits.ResponseBytes
	if w.fragment {
		bound = min(bound, c.limits.FragmentBytes)
	}
	bound -= wire.HeadBytesMax
	response := Response{Parts: c.parts[:0]}
	size, last, taken := 0, int64(0), 0
	for taken < len(w.queue) {
		r := &w.queue[taken]
		to, n := fit(r, bound-size)
		if to == r.from {
			if size > 0 {
				break
			}
			// One revision above the bound goes whole, or in fragments.
			to, n = r.from+1, r.events.Size(r.from, r.from+1)
			if w.fragment {
				return c.split(w, r)
			}
		}
		response.Parts = append(response.Parts, r.events.Bytes(r.from, to))
		r.events.Spans(r.from, to, func(span []byte) {
			if len(response.Spans) < spansMax {
				response.Spans = append(response.Spans, span)
			}
		})
		response.Events += r.events.Count(r.from, to)
		size += n
		last = r.events.Revision(to - 1)
		r.from = to
		if r.from < r.to {
			break
		}
		w.queue[taken] = run{}
		taken++
	}
	w.queue = rest(w.queue, taken)
	if cap(response.Parts) <= keptMax {
		c.parts = response.Parts
	}
	c.sent(w, last, size)
	response.Head = w.head()
	return response
}

// fit gives the end and size of the revisions that fit into so many bytes.
func fit(r *run, bytesMax int) (to, size int) {
	if size = r.events.Size(r.from, r.to); size <= bytesMax {
		return r.to, size
	}
	low, high := r.from, r.to
	for low < high {
		middle := (low + high + 1) / 2
		if r.events.Size(r.from, middle) <= bytesMax {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low, r.events.Size(r.from, low)
}

// split cuts the first revision of r into fragments and gives the first of them.
func (c *Core) split(w *watch, r *run) Response {
	revision := r.events.Revision(r.from)
	w.fragments = r.events.Split(r.from, c.limits.FragmentBytes-wire.HeadBytesMax)
	var spans [][]byte
	r.events.Spans(r.from, r.from+1, func(span []byte) { spans = append(spans, span) })
	events := r.events.Count(r.from, r.from+1)
	r.from++
	if r.from == r.to {
		w.queue = w.queue[1:]
	}
	w.told = max(w.told, revision)
	response := c.nextFragment(w)
	response.Spans, response.Events = spans, events
	return response
}

func (c *Core) nextFragment(w *watch) Response {
	part := w.fragments[0]
	w.fragments = w.fragments[1:]
	c.sent(w, w.told, len(part))
	head := w.head()
	head.Fragment = len(w.fragments) > 0
	return Response{Head: head, Parts: [][]byte{part}}
}

// sent books a response that goes out now.
func (c *Core) sent(w *watch, revision int64, bytes int) {
	w.told = max(w.told, revision)
	w.idle = false
	c.bytes -= bytes
	c.resume()
}

func (w *watch) notice(revision int64) wire.WatchHead {
	w.told = max(w.told, revision)
	return w.head()
}

// progress answers a client's progress request; see the package comment for the rule. The answers go before everything
// else that waits: what they say is true at this moment. Watches that the client has not been told of do not count: it asked
// before it made them.
func (c *Core) progress() {
	live, current, untold := 0, 0, false
	least, told := int64(math.MaxInt64), int64(0)
	var any *watch
	for _, w := range c.watches {
		if w.ended || !w.announced {
			// The common notice would speak for one that ended as compacted, too, as long as its client does not know.
			untold = untold || w.announced && w.finish != nil
			continue
		}
		live++
		told = max(told, w.told)
		least = min(least, w.sent())
		if w.current() {
			current++
			any = w
		}
	}
	switch {
	case live == 0:
		// etcd says nothing where nobody watches.
	case current == 0:
		c.wanted = true
	case current == live && least >= told && !untold:
		for _, w := range c.watches {
			if w.announced {
				w.told = max(w.told, least)
			}
		}
		head := any.notice(least)
		head.WatchID = invalidID
		c.ready = append([]entry{{control: &head}}, c.ready...)
	default:
		var notices []entry
		for _, id := range c.ids() {
			if w := c.watches[id]; w.announced && w.current() {
				head := w.notice(w.sent())
				notices = append(notices, entry{control: &head})
			}
		}
		c.ready = append(notices, c.ready...)
	}
}
