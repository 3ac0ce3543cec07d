package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// watchRows are about what watches cost, and what they cost others.
func watchRows() []row {
	puts := closedLoop(putAnyKey)
	rows := []row{
		{
			name: "watch-1000", about: "deliveries of one key's events to 1000 streams, one put after the other", clients: 1000,
			connections: 20, load: watchers, floor: true,
		},
		{
			name: "watch-10000", about: "the same to 10,000 streams", clients: 10_000, connections: 20, load: watchers,
			floor: true, threeOnly: true,
		},
	}
	for _, watches := range []int{0, 1000, 10_000} {
		rows = append(rows, row{
			name: fmt.Sprintf("put-watched-%d", watches), clients: 100, connections: 20, load: besideWatches(puts, watches, keyAt), threeOnly: true,
			starts: true,
			about:  fmt.Sprintf("puts of 256 bytes, 100 clients, beside %d watch streams, one on each of as many of the keys", watches),
		})
	}
	return append(rows,
		row{
			name: "put-watched-others-10000", starts: true, clients: 100, connections: 20, load: besideWatches(puts, 10_000, otherKeyAt), threeOnly: true,
			about: "the same beside 10,000 watch streams on keys that nobody writes",
		},
		row{
			name: "put-slow-0", starts: true, clients: 20, connections: 20, load: besideStopped(puts, 0), threeOnly: true,
			about: "puts of 256 bytes, 20 clients, beside one key with 256 KiB, written 10 times a second, that nobody watches",
		},
		row{
			name: "put-slow-1000", starts: true, clients: 20, connections: 20, load: besideStopped(puts, 1000), threeOnly: true,
			about: "the same with 1000 watch streams on that key whose clients have stopped reading",
		},
		row{
			name: "put-watch-past", clients: 20, connections: 20, prepare: history, load: beside(puts, watchThePast), threeOnly: true,
			about: "puts of 256 bytes, 20 clients, over 50,000 revisions, while 100 watches read them from the first on, again and again",
		},
		row{name: "idle-1", starts: true, clients: 1, connections: 1, load: idling(1), threeOnly: true, about: "one idle watch stream: what memory is compared with"},
		row{
			name: "idle-10000", starts: true, clients: 10_000, connections: 20, load: idling(1), threeOnly: true,
			about: "10,000 idle streams with a watch each: their memory is the difference of rss_mb",
		},
		row{
			name: "idle-20x1000", starts: true, clients: 20, connections: 20, load: idling(1000), threeOnly: true,
			about: "20 idle streams with 1000 watches each",
		})
}

// otherKeyAt is the name of a key that no row writes.
func otherKeyAt(n int) []byte { return append(keyAt(n), "/other"...) }

// openWatches opens a stream with some watches and returns when all are created; keys are those of the watches.
func openWatches(ctx context.Context, client pb.WatchClient, start int64, keys ...[]byte) (pb.Watch_WatchClient, error) {
	stream, err := client.Watch(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: key, StartRevision: start},
		}}); err != nil {
			return nil, fmt.Errorf("send a watch: %w", err)
		}
		r, err := stream.Recv()
		switch {
		case err != nil:
			return nil, fmt.Errorf("create a watch: %w", err)
		case !r.Created || r.Canceled:
			return nil, fmt.Errorf("a watch was not created: %v", r)
		}
	}
	return stream, nil
}

// besideWatches is a load beside streams with a watch each, whose clients take what comes. A watch that ends is an error.
func besideWatches(l load, watches int, key func(int) []byte) load {
	return func(ctx context.Context, t *target, clients int, m *meter) error {
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		group, watching := errgroup.WithContext(watching)
		opening, ready := errgroup.WithContext(watching)
		opening.SetLimit(loadClients)
		for i := range watches {
			opening.Go(func() error {
				if ready.Err() != nil {
					return ready.Err()
				}
				stream, err := openWatches(watching, pb.NewWatchClient(t.conn(i)), 0, key(i))
				if err != nil {
					return err
				}
				group.Go(func() error { return drain(watching, stream) })
				return nil
			})
		}
		group.Go(func() error {
			defer cancel()
			if err := opening.Wait(); err != nil {
				return err
			}
			m.start()
			if err := l(ctx, t, clients, m); err != nil {
				return err
			}
			return errWatchesDone
		})
		if err := group.Wait(); !errors.Is(err, errWatchesDone) {
			return err
		}
		return nil
	}
}

// drain takes what comes until ctx is done.
func drain(ctx context.Context, stream pb.Watch_WatchClient) error {
	for {
		r, err := stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil //nolint:nilerr // the load is over
		case err != nil:
			return err
		case r.Canceled:
			return fmt.Errorf("a watch was cancelled: %v", r)
		}
	}
}

const (
	largeBytes = 256 << 10
	largeEvery = 100 * time.Millisecond
)

// A client that has stopped reading still takes in what its stream's window holds: it is fixed, since gRPC lets it grow up to 16 MiB, so that
// for many seconds the load would do nothing but fill windows. After so many large puts they are full.
const (
	stoppedWindow = 64 << 10
	fillingPuts   = 5
)

// besideStopped is a load beside a key with large values, and watches on it whose clients read nothing after the beginning.
func besideStopped(l load, watches int) load {
	return func(ctx context.Context, t *target, clients int, m *meter) error {
		stopped, err := connect(ctx, t.endpoints, max(1, watches/50), grpc.WithStaticStreamWindowSize(stoppedWindow))
		if err != nil {
			return err
		}
		defer func() { _ = stopped.close() }()
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		key := []byte("bench/large")
		for i := range watches {
			if _, err := openWatches(watching, pb.NewWatchClient(stopped.conn(i)), 0, key); err != nil {
				return err
			}
		}
		group, both := errgroup.WithContext(context.WithoutCancel(ctx))
		group.Go(func() error { return l(ctx, t, clients, m) })
		group.Go(func() error {
			kv, v := pb.NewKVClient(t.conn(0)), value(rand.New(rand.NewPCG(4, 0)), largeBytes)
			for n := 0; ctx.Err() == nil; n++ {
				if n == fillingPuts {
					m.start()
				}
				if _, err := kv.Put(both, &pb.PutRequest{Key: key, Value: v}); err != nil {
					return err
				}
				_ = pause(ctx, largeEvery) // the loop sees the end
			}
			return nil
		})
		return group.Wait()
	}
}

// pastWatches is how many watches read the past at a time.
const pastWatches = 100

// watchThePast has watches of single keys read everything from the first revision on, up to the last that was there.
func watchThePast(ctx context.Context, t *target) error {
	head, err := pb.NewKVClient(t.conn(0)).Put(ctx, &pb.PutRequest{Key: keyAt(0)})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range pastWatches {
		group.Go(func() error {
			reading, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := openWatches(reading, pb.NewWatchClient(t.conn(i)), 2, keyAt(0))
			if err != nil {
				return err
			}
			for {
				r, err := stream.Recv()
				if err != nil {
					return err
				}
				if n := len(r.Events); n > 0 && r.Events[n-1].Kv.ModRevision >= head.Header.Revision {
					return nil
				}
			}
		})
	}
	return group.Wait()
}

// idling is streams with so many watches each that nothing happens to. So that something is counted, one client puts a key that
// nobody watches now and then.
func idling(watches int) load {
	return func(ctx context.Context, t *target, clients int, m *meter) error {
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx)) // not the group's, which ends when all are opened
		defer cancel()
		var group errgroup.Group
		group.SetLimit(loadClients)
		for i := range clients {
			group.Go(func() error {
				keys := make([][]byte, watches)
				for k := range keys {
					keys[k] = otherKeyAt(i*watches + k)
				}
				_, err := openWatches(watching, pb.NewWatchClient(t.conn(i)), 0, keys...)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		m.start()
		kv := pb.NewKVClient(t.conn(0))
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := kv.Put(watching, &pb.PutRequest{Key: keyAt(0)}); err != nil {
				return err
			}
			m.record(time.Since(began))
			_ = pause(ctx, largeEvery) // the loop sees the end
		}
		return nil
	}
}
