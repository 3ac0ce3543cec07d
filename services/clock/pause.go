package clock

import (
	"context"
	"time"
)

// Pause waits, for a time of the runtime's clock, or until the context ends; then it returns the context's error. A pause of nothing only
// looks at the context.
func Pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
