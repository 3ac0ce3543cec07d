package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/holdfastdb/holdfast/tests/history"
)

const (
	lockTTL = 4 * time.Second
	// lockPatience is how long a client waits for a lock before it begins anew with another session.
	lockPatience = 15 * time.Second
)

// Locks takes one lock after the other with clientv3's concurrency package until ctx is done, and gives each hold to note: some are given
// up, and some clients fall silent with the lock in their hands. Between fault and session every error is a new beginning.
func (w *Workload) Locks(ctx context.Context, c Client, locks int, note func(history.Hold)) {
	rng := w.rand(c.Name)
	for ctx.Err() == nil {
		if !w.lockOnce(ctx, c, rng, fmt.Sprintf("lock%d", rng.IntN(locks)), note) {
			rest(ctx, pauseAfterFailure)
		}
	}
}

// lockOnce is the life of one session; it says whether it had the lock.
func (w *Workload) lockOnce(ctx context.Context, c Client, rng *rand.Rand, name string, note func(history.Hold)) bool {
	// The session's keepalives end with this context, as those of a process that dies.
	living, die := context.WithCancel(ctx)
	defer die()
	granting, cancel := context.WithTimeout(living, OpTimeout)
	defer cancel()
	sent := w.Now()
	granted, err := c.Grant(granting, int64(lockTTL/time.Second))
	if err != nil {
		return false
	}
	answers, err := c.KeepAlive(living, granted.ID)
	if err != nil {
		return false
	}
	l := &life{sent: sent, answered: sent, granted: time.Duration(granted.TTL) * time.Second, over: make(chan struct{})}
	go l.follow(answers, w.Now) // ends with living
	defer func() { die(); <-l.over }()
	session, err := concurrency.NewSession(c.Client, concurrency.WithLease(granted.ID), concurrency.WithContext(living))
	if err != nil {
		return false
	}
	mutex := concurrency.NewMutex(session, name)
	waiting, stop := context.WithTimeout(living, lockPatience)
	defer stop()
	if mutex.Lock(waiting) != nil {
		return false
	}
	hold := history.Hold{Lock: name, Client: c.Name, From: w.Now()}
	keepFor(ctx, rng, l)
	if rng.IntN(3) > 0 {
		hold.Until = min(w.Now(), l.until())
		unlocking, cancel := context.WithTimeout(living, OpTimeout)
		defer cancel()
		_ = mutex.Unlock(unlocking) // a lock that could not be given up ends with its lease
	} else {
		hold.Until = l.until() // it falls silent
	}
	if hold.Until > hold.From {
		note(hold)
	}
	return true
}

// together is how far apart answers are that may answer keepalives of before the last answer: clientv3 sends one each 500 ms while none is
// answered, and one each third of lockTTL otherwise.
const together = time.Second

// life is what the holder of a lease knows of it for certain: the keepalive that was answered last was sent after the one before was
// answered, unless both came together. That holds only of answers that are seen as they come, also while the client waits for its lock.
type life struct {
	granted time.Duration
	over    chan struct{} // closed when no answer comes any more

	mu             sync.Mutex
	sent, answered time.Duration
}

// follow sees the answers until there are no more.
func (l *life) follow(answers <-chan *clientv3.LeaseKeepAliveResponse, now func() time.Duration) {
	defer close(l.over)
	for range answers {
		l.mu.Lock()
		if at := now(); at-l.answered >= together {
			l.sent, l.answered = l.answered, at
		}
		l.mu.Unlock()
	}
}

func (l *life) until() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent + l.granted
}

// keepFor keeps the lock for a while, as long as the lease is answered.
func keepFor(ctx context.Context, rng *rand.Rand, l *life) {
	timer := time.NewTimer(time.Duration(rng.Int64N(int64(lockTTL))))
	defer timer.Stop()
	select {
	case <-l.over:
	case <-timer.C:
	case <-ctx.Done():
	}
}
