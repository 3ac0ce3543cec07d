package fault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// writeTimeout is how long a client waits for the answer to a write before it takes it as unknown.
const writeTimeout = 5 * time.Second

// pause between two writes of a writer: the machine is shared, and it is the kills that matter, not the load.
const pause = 5 * time.Millisecond

// write puts values that are never given out twice, one after the other, until ctx is done. After an error it goes on
// with the next: what became of the last is not known.
func write(ctx context.Context, client *clientv3.Client, writer int, acknowledged *acknowledgements) {
	const keys = 5
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		c := change{Key: fmt.Sprintf("w/%d/%d", writer, n%keys), Value: fmt.Sprintf("%d-%d", writer, n)}
		bounded, cancel := context.WithTimeout(ctx, writeTimeout)
		r, err := client.Put(bounded, c.Key, c.Value)
		cancel()
		if err != nil {
			acknowledged.lost()
		} else {
			c.Revision = r.Header.Revision
			acknowledged.add(c)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// watch watches everything from a revision on with one watch, until ctx is done.
func watch(ctx context.Context, client *clientv3.Client, from int64, h *history) {
	for r := range client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(from)) {
		if err := r.Err(); err != nil {
			h.end(err)
			return
		}
		changes := make([]change, 0, len(r.Events))
		for _, e := range r.Events {
			changes = append(changes, change{
				Revision: e.Kv.ModRevision, Key: string(e.Kv.Key), Value: string(e.Kv.Value), Deleted: e.Type == clientv3.EventTypeDelete,
			})
		}
		h.add(changes...)
	}
	if ctx.Err() == nil {
		h.end(errors.New("the watch ended"))
	}
}

// Leases of the workload, in seconds. A kept one must outlive the time in which another instance takes over from one that
// was killed; one that nobody keeps must be gone that time, its TTL and a little later.
const (
	keptTTLS      = 20
	abandonedTTLS = 4
)

// leases are leases with one key each.
type leases struct {
	mu   sync.Mutex
	keys map[string]clientv3.LeaseID
}

// grant makes a lease with the key on it. Errors are tried again: processes are being killed.
func (l *leases) grant(ctx context.Context, client *clientv3.Client, key string, ttl int64) (clientv3.LeaseID, error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, writeTimeout)
		id, err := grantOnce(bounded, client, key, ttl)
		cancel()
		if err == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.keys == nil {
				l.keys = map[string]clientv3.LeaseID{}
			}
			l.keys[key] = id
			return id, nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
	}
}

func grantOnce(ctx context.Context, client *clientv3.Client, key string, ttl int64) (clientv3.LeaseID, error) {
	lease, err := client.Grant(ctx, ttl)
	if err != nil {
		return 0, err
	}
	_, err = client.Put(ctx, key, fmt.Sprintf("lease-%x", lease.ID), clientv3.WithLease(lease.ID))
	return lease.ID, err
}

// keep keeps a lease alive until ctx is done; lost gets what went wrong before.
func keep(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, lost func(string)) {
	answers, err := client.KeepAlive(ctx, id)
	if err != nil {
		lost(fmt.Sprintf("lease %x: %v", id, err))
		return
	}
	for range answers { // each says that it lives, and that is all
		continue
	}
	if ctx.Err() == nil {
		lost(fmt.Sprintf("lease %x, which was kept alive, was given up", id))
	}
}
