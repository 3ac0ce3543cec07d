package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/services/credit"
)

// Errors that a call is done with, or refused with; test them with errors.Is.
var (
	// ErrNotSent says that the call never left: it may be sent elsewhere.
	ErrNotSent = errors.New("batch: stream ended before the call was sent")
	// ErrLost says that the stream ended after the call was sent: it may or may not have been carried out.
	ErrLost = errors.New("batch: stream ended before the answer came")
	// ErrFull says that too many calls wait or are in flight; the call was not taken.
	ErrFull = errors.New("batch: too many calls in flight")
)

// Answer is what a contract's answers have in common.
type Answer interface {
	// GetId is the id of the call that it answers.
	GetId() uint64
}

// Binding speaks one contract over one open stream. Send is called by one goroutine at a time, and Recv by another.
type Binding[Q any, A Answer] interface {
	// Send sends a batch. One without calls carries the mark alone. The slice and the calls belong to the binding.
	Send(calls []Q, cancelled []uint64, taken uint64) error
	// Recv waits for a batch; one without answers carries the mark alone.
	Recv() (answers []A, taken uint64, err error)
}

// Waiter is told the outcome of a call.
type Waiter[A Answer] interface {
	// Done is called once, from the stream's goroutine or from Go's caller; it must not block. The error is nil,
	// or wraps ErrNotSent or ErrLost.
	Done(answer A, err error)
}

// Limits bound a stream.
type Limits struct {
	credit.Limits
	// InFlight bounds the calls that wait for an answer, sent or not.
	InFlight int
}

// DefaultLimits suit the calls of one proxy: batches up to 1 MiB (one larger call goes alone), and enough in flight for
// tens of thousands of clients.
func DefaultLimits() Limits {
	return Limits{
		Limits:   credit.Limits{QueueItems: 32 << 10, QueueBytes: 64 << 20, BatchItems: 4 << 10, BatchBytes: 1 << 20},
		InFlight: 64 << 10,
	}
}

// Stream is one open stream. Make one with Open. All methods may be called from any goroutine.
type Stream[Q any, A Answer] struct {
	lane    *credit.Lane[*entry[Q, A]]
	binding Binding[Q, A]
	limits  Limits
	setID   func(Q, uint64)
	cancel  context.CancelFunc
	done    chan struct{}
	ended   atomic.Bool // once err is set

	mu        sync.Mutex
	nextID    uint64
	waiting   map[uint64]*entry[Q, A]
	cancelled []uint64
	err       error
}

type entry[Q any, A Answer] struct {
	call   Q
	id     uint64
	bytes  int
	sent   bool
	gone   bool
	waiter Waiter[A]
}

// Open starts the two goroutines of a stream. They end, and Done is closed, when the binding fails or after Close; cancel
// must make a blocked Send and Recv of the binding return. setID puts the stream's id into a call.
func Open[Q any, A Answer](
	binding Binding[Q, A], cancel context.CancelFunc, limits Limits, setID func(call Q, id uint64),
) *Stream[Q, A] {
	s := &Stream[Q, A]{
		lane:    credit.NewLane(limits.Limits, func(e *entry[Q, A]) int { return e.bytes }),
		binding: binding, limits: limits, setID: setID, cancel: cancel,
		done: make(chan struct{}), waiting: map[uint64]*entry[Q, A]{},
	}
	var loops sync.WaitGroup
	loops.Go(func() { s.fail(s.send()) })
	loops.Go(func() { s.fail(s.receive()) })
	go func() {
		loops.Wait()
		s.abandon()
		close(s.done)
	}()
	return s
}

// Go queues a call of about so many bytes and returns its id. It does not block. With an error (ErrFull, or ErrNotSent
// after the stream's end) the call was not taken and the waiter is not called.
func (s *Stream[Q, A]) Go(call Q, bytes int, waiter Waiter[A]) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotSent, s.err)
	}
	if len(s.waiting) >= s.limits.InFlight {
		return 0, ErrFull
	}
	s.nextID++
	e := &entry[Q, A]{call: call, id: s.nextID, bytes: bytes, waiter: waiter}
	s.setID(call, e.id)
	// Under the lock, so that ids leave in increasing order.
	if err := s.lane.Put(e); err != nil {
		if errors.Is(err, credit.ErrFull) {
			return 0, ErrFull
		}
		return 0, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	s.waiting[e.id] = e
	return e.id, nil
}

// Cancel forgets a call: its waiter is not called any more, unless that is happening now. It tells whether the call may
// have been sent. The other side hears of it with the next batch, since it alone is worth no message.
func (s *Stream[Q, A]) Cancel(id uint64) (sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.waiting[id]
	if !ok {
		return true
	}
	delete(s.waiting, id)
	if e.sent {
		s.cancelled = append(s.cancelled, id)
	}
	e.gone = true
	return e.sent
}

// Done is closed when the stream has ended and every call is done.
func (s *Stream[Q, A]) Done() <-chan struct{} { return s.done }

// Err tells why the stream ended, nil while it lives.
func (s *Stream[Q, A]) Err() error {
	if !s.ended.Load() { // each call asks
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the stream and waits until every call is done.
func (s *Stream[Q, A]) Close() {
	s.fail(errors.New("closed"))
	<-s.done
}

func (s *Stream[Q, A]) send() error {
	for {
		batch, err := s.lane.Next(context.Background())
		if err != nil {
			return err
		}
		calls, cancelled := s.depart(batch.Items)
		if err := s.binding.Send(calls, cancelled, batch.Taken); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// depart marks calls as sent and leaves out those whose caller has gone. A batch that the lane counted must not become
// empty, for the other side counts batches with calls alone: then the last call goes although nobody waits for it.
func (s *Stream[Q, A]) depart(entries []*entry[Q, A]) (calls []Q, cancelled []uint64) {
	if len(entries) == 0 {
		return nil, nil
	}
	calls = make([]Q, 0, len(entries))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range entries {
		if e.gone && (i < len(entries)-1 || len(calls) > 0) {
			continue
		}
		e.sent = true
		calls = append(calls, e.call)
	}
	cancelled, s.cancelled = s.cancelled, nil
	return calls, cancelled
}

func (s *Stream[Q, A]) receive() error {
	var waiters []Waiter[A]
	for {
		answers, taken, err := s.binding.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		s.lane.Taken(taken)
		if len(answers) == 0 {
			continue
		}
		s.lane.Received()
		waiters = s.matched(waiters[:0], answers)
		for i, answer := range answers {
			if waiters[i] != nil {
				waiters[i].Done(answer, nil)
			}
		}
		clear(waiters)
	}
}

// matched appends the waiter of each answer, nil where nobody waits any more; none of them waits from here on.
func (s *Stream[Q, A]) matched(waiters []Waiter[A], answers []A) []Waiter[A] {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, answer := range answers {
		var waiter Waiter[A]
		if e := s.waiting[answer.GetId()]; e != nil {
			waiter = e.waiter
			delete(s.waiting, answer.GetId())
		}
		waiters = append(waiters, waiter)
	}
	return waiters
}

// fail ends the stream with the first error.
func (s *Stream[Q, A]) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
		s.ended.Store(true)
	}
	s.mu.Unlock()
	s.lane.Close()
	s.cancel()
}

// abandon tells every waiter that is left that no answer will come.
func (s *Stream[Q, A]) abandon() {
	s.mu.Lock()
	left, err := s.waiting, s.err
	s.waiting = map[uint64]*entry[Q, A]{}
	s.mu.Unlock()
	var none A
	for _, e := range left {
		why := ErrNotSent
		if e.sent {
			why = ErrLost
		}
		e.waiter.Done(none, fmt.Errorf("%w: %w", why, err))
	}
}
