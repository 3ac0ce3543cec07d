package edge

import (
	"context"
	"sync"
)

// Bounds of the calls of one stream that are not answered yet. A batch is taken while both are free, so each may be
// exceeded by one batch.
const (
	flightCallsMax = 1 << 15
	flightBytesMax = 64 << 20
)

// flight counts the calls of one stream that are not answered yet.
type flight struct {
	callsMax, bytesMax int

	mu           sync.Mutex
	calls, bytes int
	freed        chan struct{} // capacity 1
}

func newFlight(callsMax, bytesMax int) *flight {
	return &flight{callsMax: callsMax, bytesMax: bytesMax, freed: make(chan struct{}, 1)}
}

// begin waits for room and takes it. One goroutine at a time calls it.
func (f *flight) begin(ctx context.Context, calls, bytes int) error {
	for {
		f.mu.Lock()
		if f.calls < f.callsMax && f.bytes < f.bytesMax {
			f.calls += calls
			f.bytes += bytes
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-f.freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end gives the room of one call back.
func (f *flight) end(bytes int) {
	f.mu.Lock()
	full := f.calls >= f.callsMax || f.bytes >= f.bytesMax
	f.calls--
	f.bytes -= bytes
	free := full && f.calls < f.callsMax && f.bytes < f.bytesMax
	f.mu.Unlock()
	if free {
		select {
		case f.freed <- struct{}{}:
		default:
		}
	}
}
