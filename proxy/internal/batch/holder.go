package batch

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// reopenAfter keeps a peer that refuses streams from being asked by every single call.
const reopenAfter = 20 * time.Millisecond

// errHolderClosed is what Stream gives after Close.
var errHolderClosed = errors.New("batch: closed")

// Holder keeps the stream to one peer and opens it again when it broke. All methods may be called from any goroutine.
type Holder[Q any, A Answer] struct {
	open func() (*Stream[Q, A], error)
	// stream is the last that was opened, so that calls need no lock while it lives.
	stream atomic.Pointer[Stream[Q, A]]

	mu     sync.Mutex
	failed time.Time
	err    error
	closed bool
}

// NewHolder makes a Holder without a stream; open is called by one goroutine at a time and must end soon by itself.
func NewHolder[Q any, A Answer](open func() (*Stream[Q, A], error)) *Holder[Q, A] {
	return &Holder[Q, A]{open: open}
}

// Live gives the stream if there is a live one; it does not block.
func (h *Holder[Q, A]) Live() (*Stream[Q, A], bool) {
	stream := h.stream.Load()
	return stream, stream != nil && stream.Err() == nil
}

// Stream gives the live stream, opened now if need be, which may block. It fails at once if the last attempt failed only
// just.
func (h *Holder[Q, A]) Stream() (*Stream[Q, A], error) {
	if stream, ok := h.Live(); ok {
		return stream, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errHolderClosed
	}
	if stream := h.stream.Load(); stream != nil {
		err := stream.Err()
		if err == nil {
			return stream, nil
		}
		h.stream.Store(nil)
		h.failed, h.err = time.Now(), err
	}
	if h.err != nil && time.Since(h.failed) < reopenAfter {
		return nil, h.err
	}
	stream, err := h.open()
	if err != nil {
		h.failed, h.err = time.Now(), err
		return nil, err
	}
	h.stream.Store(stream)
	h.err = nil
	return stream, nil
}

// Close ends the stream; Stream fails from then on.
func (h *Holder[Q, A]) Close() {
	h.mu.Lock()
	stream := h.stream.Swap(nil)
	h.closed = true
	h.mu.Unlock()
	if stream != nil {
		stream.Close()
	}
}
