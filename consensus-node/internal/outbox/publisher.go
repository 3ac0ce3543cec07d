package outbox

import (
	"context"
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// BusMessageBytesMax bounds the revisions in one bus message, below NATS' default of 1 MiB for a payload with room for
// the envelope.
const BusMessageBytesMax = 768 << 10

// Publish walks the ring and hands each message to send until the context ends: changes as they come (gathered, while nobody watches),
// and a heartbeat after each HeartbeatInterval without one. While speaks says no (a follower in a cluster where the leader speaks) it is
// silent and moves along; at the moment it becomes yes, signalled through turned, a heartbeat goes out at once.
//
// A send that fails drops the message: followers see the hole and fetch it.
func Publish(
	ctx context.Context, cursor *Cursor, interest *Interest, speaks func() bool, turned <-chan struct{}, send func(*feedv1.Message),
) {
	timer := time.NewTimer(HeartbeatInterval)
	defer timer.Stop()
	spoke := false
	gathered := cursor.revision // what was gathered goes out without another wait
	for {
		if !speaks() {
			cursor.Skip()
			spoke = false
		} else if !spoke {
			send(cursor.Heartbeat())
			spoke = true
		}
		if changed := cursor.idle(); changed != nil {
			select {
			case <-changed:
			case <-turned:
			case <-timer.C:
				if spoke {
					send(cursor.Heartbeat())
				}
				timer.Reset(HeartbeatInterval)
			case <-ctx.Done():
				return
			}
			continue
		}
		if !spoke {
			continue
		}
		if cursor.revision >= gathered {
			interest.gather(ctx, cursor)
			gathered = cursor.ring.State().Head
		}
		if message, _ := cursor.Next(); message != nil {
			send(message)
			timer.Reset(HeartbeatInterval)
		}
	}
}

// Stream walks the ring for one direct follower: a heartbeat at once, then changes as they come and heartbeats in
// between, until the context ends or send fails.
func Stream(ctx context.Context, cursor *Cursor, send func(*feedv1.Message) error) error {
	if err := send(cursor.Heartbeat()); err != nil {
		return err
	}
	timer := time.NewTimer(HeartbeatInterval)
	defer timer.Stop()
	for {
		message, changed := cursor.Next()
		if message == nil {
			select {
			case <-changed:
				continue
			case <-timer.C:
				message = cursor.Heartbeat()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := send(message); err != nil {
			return err
		}
		timer.Reset(HeartbeatInterval)
	}
}
