package edge

import (
	"sync/atomic"
	"time"
)

// idSource makes ids that no other node and no earlier run of this node makes: 16 bits of the member, 40 bits of the start
// in milliseconds, 8 bits and what overflows from them counted.
type idSource struct {
	base uint64
	next atomic.Uint64
}

func newIDSource(member uint64) *idSource {
	const (
		memberShift = 48
		timeShift   = 8
		timeMask    = 1<<40 - 1
	)
	started := uint64(time.Now().UnixMilli()) & timeMask
	return &idSource{base: member<<memberShift | started<<timeShift}
}

// leaseID gives a positive id.
func (s *idSource) leaseID() int64 {
	const positive = 1<<63 - 1
	for {
		if id := int64((s.base + s.next.Add(1)) & positive); id != 0 {
			return id
		}
	}
}
