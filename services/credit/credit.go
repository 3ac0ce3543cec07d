// Package credit forms batches on a stream without a timer.
//
// A gRPC send returns as soon as the message is buffered, so "what queued while the last send ran" would make batches of one.
// Here at most Window batches that carry items await the receiver's taken mark. An idle stream therefore sends at
// once, and under load everything that queues during one round trip goes out as the next batch.
//
// One Lane serves one direction of one stream together with the marks of the other direction:
//
//	sender goroutine:    batch, err := lane.Next(ctx); stream.Send(batch.Items, batch.Taken)
//	receiver goroutine:  on each message: lane.Taken(msg.taken); if it has items: lane.Received()
//	anyone:              lane.Put(item)
//
// Marks ride on batches. One goes alone only when Window batches are unmarked, for then the other side may be out of credit:
// calls that come one at a time, each answered before the next, cost one message each way. A message without items needs no
// credit and is not counted by the receiver.
package credit

import (
	"context"
	"errors"
	"sync"
)

// Window is the number of batches that may await the receiver's mark: one in flight and one behind it keep the
// receiver busy, more would only make batches smaller.
const Window = 2

// ErrFull says that the queue is at its bound; the item was not taken.
var ErrFull = errors.New("credit: queue is full")

// ErrClosed says that the lane was closed; the item was not taken.
var ErrClosed = errors.New("credit: lane is closed")

// Limits bound a lane. Every field must be positive.
type Limits struct {
	// QueueItems bounds the items that wait in the queue.
	QueueItems int
	// QueueBytes bounds their sum of sizes; an item is taken while the sum before it is below the bound.
	QueueBytes int
	// BatchItems and BatchBytes bound one batch; a single larger item goes alone.
	BatchItems int
	BatchBytes int
}

// Batch is what one stream message carries.
type Batch[T any] struct {
	// Items in the order of Put; may be empty for a message that carries the mark alone.
	Items []T
	// Taken is the cumulative number of batches received from the other side.
	Taken uint64
}

// Lane is the state of one direction. All methods may be called from any goroutine; Next from one at a time.
type Lane[T any] struct {
	limits Limits
	size   func(T) int

	mu         sync.Mutex
	queue      []T
	queueBytes int
	sent       uint64 // batches with items that Next gave out
	taken      uint64 // of those, how many the other side has taken
	received   uint64 // batches with items that came from the other side
	marked     uint64 // the last value of received that Next gave out
	closed     bool
	wake       chan struct{} // capacity 1: something changed for Next
}

// NewLane makes an empty lane; size gives an item's bytes.
func NewLane[T any](limits Limits, size func(T) int) *Lane[T] {
	return &Lane[T]{limits: limits, size: size, wake: make(chan struct{}, 1)}
}

// Put queues an item. It never blocks: past the bounds it returns ErrFull, after Close ErrClosed.
func (l *Lane[T]) Put(item T) error {
	n := l.size(item)
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return ErrClosed
	case len(l.queue) >= l.limits.QueueItems || l.queueBytes >= l.limits.QueueBytes:
		l.mu.Unlock()
		return ErrFull
	}
	l.queue = append(l.queue, item)
	l.queueBytes += n
	ready := len(l.queue) == 1 && l.sent-l.taken < Window
	l.mu.Unlock()
	if ready {
		l.signal()
	}
	return nil
}

// Taken records the other side's cumulative mark. Marks that go back or beyond what was sent are ignored.
func (l *Lane[T]) Taken(mark uint64) {
	l.mu.Lock()
	ok := mark > l.taken && mark <= l.sent
	if ok {
		l.taken = mark
	}
	ready := ok && len(l.queue) > 0
	l.mu.Unlock()
	if ready {
		l.signal()
	}
}

// Received records that a batch with items came from the other side, so that the next message carries the mark.
func (l *Lane[T]) Received() {
	l.mu.Lock()
	l.received++
	due := l.received-l.marked >= Window
	l.mu.Unlock()
	if due {
		l.signal()
	}
}

// Next waits until there is something to send: items with credit, or a mark. It returns ErrClosed after Close once the queue is
// empty or has no credit, and the context's error if that ends first. The items belong to the caller.
func (l *Lane[T]) Next(ctx context.Context) (Batch[T], error) {
	for {
		if batch, ok, err := l.poll(); ok || err != nil {
			return batch, err
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return Batch[T]{}, ctx.Err()
		}
	}
}

func (l *Lane[T]) poll() (Batch[T], bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	credit := l.sent-l.taken < Window
	switch {
	case len(l.queue) > 0 && credit:
		batch := Batch[T]{Items: l.cut(), Taken: l.received}
		l.sent++
		l.marked = l.received
		return batch, true, nil
	case l.received-l.marked >= Window:
		l.marked = l.received
		return Batch[T]{Taken: l.received}, true, nil
	case l.closed:
		return Batch[T]{}, false, ErrClosed
	}
	return Batch[T]{}, false, nil
}

// cut takes the next batch off the queue; the caller holds the lock and the queue is not empty.
func (l *Lane[T]) cut() []T {
	n, bytes := 0, 0
	for n < len(l.queue) && n < l.limits.BatchItems {
		size := l.size(l.queue[n])
		if n > 0 && bytes+size > l.limits.BatchBytes {
			break
		}
		bytes += size
		n++
	}
	items := l.queue[:n:n]
	rest := l.queue[n:]
	if len(rest) == 0 {
		// The slice goes to the caller whole, so the next one starts with a capacity that this load needs.
		l.queue = make([]T, 0, n)
	} else {
		l.queue = append(make([]T, 0, len(rest)+n), rest...)
	}
	l.queueBytes -= bytes
	return items
}

// Queued tells how many items wait.
func (l *Lane[T]) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Close refuses further items and ends Next.
func (l *Lane[T]) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
}

func (l *Lane[T]) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
