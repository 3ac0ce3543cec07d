package transport

import (
	"sync"
	"time"
)

const (
	// How often the same is said again, and how many different things are remembered for that.
	quietFor     = time.Minute
	quietKeysMax = 256
)

// quiet keeps what repeats itself out of the log: each text is said once, and then once a minute while it goes on. It remembers a
// bounded number of texts, since strangers may choose them.
type quiet struct {
	mu   sync.Mutex
	said map[string]time.Time
}

// may tells whether the text may be said now.
func (q *quiet) may(text string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, ok := q.said[text]; ok && now.Sub(at) < quietFor {
		return false
	}
	if len(q.said) >= quietKeysMax {
		for key, at := range q.said {
			if now.Sub(at) >= quietFor {
				delete(q.said, key)
			}
		}
		if len(q.said) >= quietKeysMax {
			return false
		}
	}
	if q.said == nil {
		q.said = map[string]time.Time{}
	}
	q.said[text] = now
	return true
}
