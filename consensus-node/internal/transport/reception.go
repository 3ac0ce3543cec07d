package transport

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// reception is the place of the one image that is received at a time.
type reception struct {
	mu      sync.Mutex
	term    uint64             // of the leader whose image it is
	abandon context.CancelFunc // nil while none is received, or while one is being installed
	free    chan struct{}      // closed when the place is free; nil while it is
}

// errSuperseded ends an image whose leader was succeeded by another that sends one too.
var errSuperseded = status.Error(codes.Aborted, "a later leader sends a snapshot")

// claim takes the place for an image of term's leader. The image of an earlier one is given up for it: its sender may be cut off, and would
// hold the place until its stream stalls. Any other image is refused while one is received. The context ends when this one is given up in
// turn; received says that from now on it is not, and release that it is over.
func (r *reception) claim(ctx context.Context, term uint64) (_ context.Context, received, release func(), err error) {
	for {
		r.mu.Lock()
		if r.free == nil {
			break
		}
		free, abandon := r.free, r.abandon
		earlier := r.term < term
		r.mu.Unlock()
		if !earlier || abandon == nil {
			return nil, nil, nil, status.Error(codes.ResourceExhausted, "another snapshot is being received")
		}
		abandon()
		select {
		case <-free:
		case <-ctx.Done():
			return nil, nil, nil, ctx.Err()
		}
	}
	defer r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	r.term, r.abandon, r.free = term, cancel, make(chan struct{})
	received = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.abandon = nil
	}
	release = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		cancel()
		close(r.free)
		r.abandon, r.free = nil, nil
	}
	return ctx, received, release, nil
}
