package transport

import (
	"context"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/services/clock"
)

// burstBytes is what may be sent at once after a pause: a few chunks, so that a pause is not made up for by a burst that is felt.
const burstBytes = 4 * chunkBytes

// bucket is a token bucket over all images that this member sends: what one member may take from its disk, network and processor
// for others that lag does not grow with their number. Its methods may be called at the same time.
type bucket struct {
	perSecond float64 // 0 for no bound

	mu     sync.Mutex
	tokens float64 // may be below zero: what was taken in advance
	at     time.Time
}

func newBucket(perSecond int64) *bucket {
	return &bucket{perSecond: float64(perSecond), tokens: burstBytes}
}

// take takes n bytes and says how long to wait before they are sent.
func (b *bucket) take(n int, now time.Time) time.Duration {
	if b.perSecond <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() {
		b.tokens = min(burstBytes, b.tokens+now.Sub(b.at).Seconds()*b.perSecond)
	}
	b.at = now
	b.tokens -= float64(n)
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.perSecond * float64(time.Second))
}

// wait takes n bytes and returns when they may be sent, or with the context's error.
func (b *bucket) wait(ctx context.Context, n int) error {
	return clock.Pause(ctx, b.take(n, time.Now()))
}
