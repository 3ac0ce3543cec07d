package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
)

// watchTimeout is how long an event may take to reach all watchers before the run is given up.
const watchTimeout = 30 * time.Second

// delivery is the arrival of one revision at one watcher.
type delivery struct {
	revision int64
	at       time.Time
}

// watchers is a load in which each client watches the same key on a stream of its own. One put follows the other as soon as
// all have got the event: every message carries one event, on every system. What is recorded is each delivery, from before
// the put was sent to the watcher's receipt.
func watchers(ctx context.Context, t *target, clients int, m *meter) error {
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, watching := errgroup.WithContext(watching)
	created, arrived := make(chan struct{}, clients), make(chan delivery, clients)
	for client := range clients {
		group.Go(func() error { return watchOne(watching, pb.NewWatchClient(t.conn(client)), created, arrived) })
	}
	group.Go(func() error {
		defer cancel()
		if err := collect(watching, clients, created, func(struct{}) error { return nil }); err != nil {
			return fmt.Errorf("create the watches: %w", err)
		}
		kv, v := pb.NewKVClient(t.conn(0)), value(rand.New(rand.NewPCG(3, 0)), valueBytes)
		for ctx.Err() == nil {
			if err := putToAll(watching, kv, v, clients, arrived, m); err != nil {
				return err
			}
		}
		return errWatchesDone
	})
	if err := group.Wait(); !errors.Is(err, errWatchesDone) {
		return err
	}
	return nil
}

// errWatchesDone ends the watchers when the last put has reached all.
var errWatchesDone = errors.New("all watches are done")

// watchOne passes on all events of one watch until ctx is done.
func watchOne(ctx context.Context, client pb.WatchClient, created chan<- struct{}, arrived chan<- delivery) error {
	stream, err := client.Watch(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: keyAt(0)},
	}}); err != nil {
		return fmt.Errorf("send a watch: %w", err)
	}
	for {
		resp, err := stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil //nolint:nilerr // the load is over
		case err != nil:
			return err
		case resp.Canceled:
			return fmt.Errorf("a watch is cancelled: %s", resp.CancelReason)
		case resp.Created:
			created <- struct{}{}
		}
		for _, event := range resp.Events {
			arrived <- delivery{event.Kv.ModRevision, time.Now()}
		}
	}
}

// putToAll puts once and waits until every watcher has the event. One that comes twice or in another's place is an error.
func putToAll(ctx context.Context, kv pb.KVClient, v []byte, clients int, arrived <-chan delivery, m *meter) error {
	began := time.Now()
	put, err := kv.Put(ctx, &pb.PutRequest{Key: keyAt(0), Value: v})
	if err != nil {
		return err
	}
	return collect(ctx, clients, arrived, func(d delivery) error {
		if d.revision != put.Header.Revision {
			return fmt.Errorf("revision %d arrived instead of %d", d.revision, put.Header.Revision)
		}
		m.record(d.at.Sub(began))
		return nil
	})
}

// collect takes so many from a channel.
func collect[T any](ctx context.Context, count int, from <-chan T, take func(T) error) error {
	timer := time.NewTimer(watchTimeout)
	defer timer.Stop()
	for n := range count {
		select {
		case got := <-from:
			if err := take(got); err != nil {
				return err
			}
		case <-timer.C:
			return fmt.Errorf("%d of %d watchers have it after %v", n, count, watchTimeout)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
