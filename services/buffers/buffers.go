// Package buffers lends large byte slices that are used again.
//
// An answer of some megabytes that is garbage once it is sent costs a collection for every few of them, and the memory that comes
// together in between. A Pool passes such slices from who has sent the last answer to who makes the next one.
package buffers

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

// What is lent: slices of 32 KiB to 16 MiB. Smaller ones are cheap to make, larger ones too many bytes to keep.
const (
	lentMin = 1 << 15
	lentMax = 1 << 24
	// between each power of two and the next there are so many sizes.
	stepBits = 2
	steps    = 1 << stepBits
	classes  = 9*steps + 1
)

// Pool lends byte slices. All methods may be called from any goroutine. A nil Pool makes each slice anew and keeps none; the zero value is
// ready.
type Pool struct {
	// classes hold *[]byte, of a capacity of at least sizeOf(i) each. What nobody takes, the next collections of garbage take.
	classes [classes]sync.Pool
}

var _ mem.BufferPool = (*Pool)(nil)

// Take gives an empty slice with room for n bytes, whose bytes are not zero. It is the caller's.
func (p *Pool) Take(n int) []byte {
	if p == nil || !Lent(n) {
		return make([]byte, 0, n)
	}
	class := classOf(n)
	if sizeOf(class) < n {
		class++
	}
	if b, ok := p.classes[class].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, sizeOf(class))
}

// Get is of mem.BufferPool.
func (p *Pool) Get(length int) *[]byte {
	b := p.Take(length)[:length]
	clear(b)
	return &b
}

// Put takes a slice, whoever made it; nobody may use it any more. It is of mem.BufferPool.
func (p *Pool) Put(b *[]byte) {
	if p == nil || !Lent(cap(*b)) {
		return
	}
	p.classes[classOf(cap(*b))].Put(b)
}

// Lent tells whether slices of that many bytes are lent, so that it is worth while to give them back.
func Lent(n int) bool { return n >= lentMin && n <= lentMax }

// classOf is the class of the greatest size that is not above n, which is lent.
func classOf(n int) int {
	octave := bits.Len(uint(n)) - 1
	return (octave-bits.Len(lentMin)+1)<<stepBits + n>>(octave-stepBits)&(steps-1)
}

// sizeOf is the size of a class.
func sizeOf(class int) int {
	return (steps + class&(steps-1)) << (class >> stepBits) * (lentMin >> stepBits)
}
