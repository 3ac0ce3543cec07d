package calls

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// No call ends before its time, and none more than a step after it.
func TestExpiryIsNeverEarlyAndHardlyLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &expiry{timeout: time.Second}
		for _, pause := range []time.Duration{0, expiryStep / 2, expiryStep - 1, expiryStep, 3 * time.Second} {
			time.Sleep(pause)
			begun := time.Now()
			go func() {
				<-e.begin(begun)
				waited := time.Since(begun)
				assert.GreaterOrEqual(t, waited, e.timeout)
				assert.LessOrEqual(t, waited, e.timeout+expiryStep)
			}()
			synctest.Wait()
		}
		time.Sleep(2 * e.timeout)
	})
}
