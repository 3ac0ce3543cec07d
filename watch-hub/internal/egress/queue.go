// Package egress is what waits to be sent to one proxy.
//
// A Queue holds, in order, deliveries, endings, joinings and marks. A mark (a live position) says that everything up to it
// has been put in before; it becomes the stream-wide interval of a response. Marks that would follow each other become one, so
// an idle receiver costs nothing however many revisions pass by it.
//
// It promises that deliveries of one registration keep their order, that no mark is sent before what was put in before it,
// and that its memory is bounded: past the bound Deliver refuses, and the caller ends the registrations concerned. Endings,
// joinings and marks are always taken: their number is bounded by the registrations.
//
// The interval of a live delivery is widened downward, at sending, to what the receiver's position is at the lowest when it
// takes the response: it accepts an interval only if it begins at or below its position, and drops what it has. That is
// the live position it was told last, or, as it takes the deliveries of a response before the joinings, where a
// registration that joins in the same response stood before.
//
// All methods may be called from any goroutine.
package egress

import (
	"sync"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
)

// Limits bound a queue.
type Limits struct {
	// QueueBytes bounds the deliveries that wait: one more is taken while the sum before it is below the bound.
	QueueBytes int
	// ResponseBytes bounds the deliveries in one response; a larger one goes alone.
	ResponseBytes int
	// ResponseEntries bounds the entries of one response.
	ResponseEntries int
}

// DefaultLimits are what a hub uses for each proxy.
func DefaultLimits() Limits {
	return Limits{QueueBytes: 32 << 20, ResponseBytes: 1 << 20, ResponseEntries: 4096}
}

// entry is one thing to send; exactly one of the fields is set.
type entry struct {
	delivery *watchv1.Delivery
	ended    *watchv1.Ended
	joined   []uint64
	mark     int64

	live  bool  // of a delivery
	from  int64 // of joined: at or below where each of them stood
	bytes int
}

// Queue is one stream's queue. Make one with New.
type Queue struct {
	limits Limits

	mu      sync.Mutex
	entries []entry
	bytes   int
	sent    int64 // the live position of the last response
	armed   bool
	leaving bool
	// lagging: it was over half of the bound since it was last below a quarter.
	lagging bool
}

// New makes an empty queue whose receiver has the live position 0.
func New(limits Limits) *Queue { return &Queue{limits: limits} }

// Start sets the live position that the first response begins with. It counts only before anything was taken out.
func (q *Queue) Start(position int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 && q.sent == 0 {
		q.sent = position
	}
}

// Deliver puts in a delivery of the given size in bytes; live says that its registrations are joined. It returns false,
// and takes nothing, if the queue is at its bound.
func (q *Queue) Deliver(d *watchv1.Delivery, live bool, bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes >= q.limits.QueueBytes {
		return false
	}
	q.bytes += bytes
	q.lagging = q.lagging || q.bytes > q.limits.QueueBytes/2
	q.entries = append(q.entries, entry{delivery: d, live: live, bytes: bytes})
	return true
}

// End puts in the end of a registration.
func (q *Queue) End(e *watchv1.Ended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entries = append(q.entries, entry{ended: e})
}

// Join puts in that a registration is joined from here on; its receiver knows it to have covered everything up to from, or
// more.
func (q *Queue) Join(id uint64, from int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.entries); n > 0 && q.entries[n-1].joined != nil {
		last := &q.entries[n-1]
		last.joined, last.from = append(last.joined, id), min(last.from, from)
		return
	}
	q.entries = append(q.entries, entry{joined: []uint64{id}, from: from})
}

// Mark puts in a live position.
func (q *Queue) Mark(position int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.entries); n > 0 && q.entries[n-1].mark > 0 {
		q.entries[n-1].mark = max(q.entries[n-1].mark, position)
		return
	}
	if position > q.sent {
		q.entries = append(q.entries, entry{mark: position})
	}
}

// Leave asks the receiver to move elsewhere.
func (q *Queue) Leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leaving = true
	// An entry of its own, so that the queue is not empty until it was told.
	q.entries = append(q.entries, entry{})
}

// Lagging tells whether the receiver takes so slowly that nothing but live deliveries should be put in: until it is down
// to a quarter of the bound.
func (q *Queue) Lagging() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lagging
}

// Arm tells whether somebody must now see to it that Take is called: true once whenever there is something to take, until Take.
func (q *Queue) Arm() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.armed || len(q.entries) == 0 {
		return false
	}
	q.armed = true
	return true
}

// Take gives the next response, or nil if there is nothing, and whether the queue has just stopped lagging. A
// response is never empty, so each is worth the credit it takes.
func (q *Queue) Take() (response *watchv1.HubResponse, relieved bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.armed = false
	if len(q.entries) == 0 {
		return nil, false
	}
	response = &watchv1.HubResponse{LiveFrom: q.sent, LiveTo: q.sent, Leaving: q.leaving}
	n, bytes, low := 0, 0, q.sent
	for ; n < len(q.entries) && n < q.limits.ResponseEntries; n++ {
		e := &q.entries[n]
		if bytes > 0 && bytes+e.bytes > q.limits.ResponseBytes {
			break
		}
		bytes += e.bytes
		if e.joined != nil {
			low = min(low, e.from)
		}
		put(response, e, low)
	}
	q.drop(n)
	q.bytes -= bytes
	q.sent = response.LiveTo
	if q.lagging && q.bytes <= q.limits.QueueBytes/4 {
		q.lagging, relieved = false, true
	}
	return response, relieved
}

// put adds an entry to a response; low is the lowest position that the receiver of a live delivery may have.
func put(response *watchv1.HubResponse, e *entry, low int64) {
	switch {
	case e.delivery != nil:
		if e.live {
			e.delivery.From = min(e.delivery.From, low)
		}
		response.Deliveries = append(response.Deliveries, e.delivery)
	case e.ended != nil:
		response.Ended = append(response.Ended, e.ended)
	case e.joined != nil:
		response.Joined = append(response.Joined, e.joined...)
	case e.mark > 0:
		response.LiveTo = max(response.LiveTo, e.mark)
	}
}

// drop takes the first n entries off; what is left moves to the front so that the array is used again.
func (q *Queue) drop(n int) {
	left := copy(q.entries, q.entries[n:])
	clear(q.entries[left:])
	q.entries = q.entries[:left]
	const keep = 1 << 12
	if left == 0 && cap(q.entries) > keep {
		q.entries = nil
	}
}

// Sent is the live position of the last response.
func (q *Queue) Sent() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent
}

// Bytes is what waits, in bytes of deliveries.
func (q *Queue) Bytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}
