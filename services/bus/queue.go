package bus

import (
	"slices"
	"sync"
)

// queue is a bounded first-in-first-out queue of messages and gap notices with one consumer. It is the queue before the
// wire and the queue of an in-memory subscription.
type queue struct {
	messagesMax, bytesMax int

	mu     sync.Mutex
	items  []Message
	bytes  int
	gaps   []Cause // not told yet; each cause at most once, so bounded
	closed bool

	wake chan struct{} // has one token when there may be something to take
}

func newQueue(messagesMax, bytesMax int) *queue {
	return &queue{messagesMax: messagesMax, bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// put appends a message, or returns ErrFull or ErrClosed.
func (q *queue) put(m Message) error {
	bytes := size(m.bytes())
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case len(q.items) >= q.messagesMax, q.bytes+bytes > q.bytesMax:
		return ErrFull
	}
	q.items = append(q.items, m)
	q.bytes += bytes
	q.wakeLocked()
	return nil
}

// gap notes that something was missed.
func (q *queue) gap(cause Cause) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed && !slices.Contains(q.gaps, cause) {
		q.gaps = append(q.gaps, cause)
		q.wakeLocked()
	}
}

func (q *queue) wakeLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for something and takes all of it: gaps are told before the messages. ok is false once the queue is closed
// and empty.
func (q *queue) take() (gaps []Cause, items []Message, ok bool) {
	for {
		q.mu.Lock()
		if len(q.gaps) > 0 || len(q.items) > 0 {
			gaps, items = q.gaps, q.items
			q.gaps, q.items, q.bytes = nil, nil, 0
			q.mu.Unlock()
			return gaps, items, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return nil, nil, false
		}
		<-q.wake
	}
}

// close ends the queue; with discard what waits in it is dropped, otherwise it can still be taken.
func (q *queue) close(discard bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if discard {
		q.items, q.gaps, q.bytes = nil, nil, 0
	}
	q.wakeLocked()
}
