package main

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/errgroup"
)

// historyRounds is how often each key is written before the rows about upkeep begin: 50,000 revisions.
const historyRounds = 5

// history writes every key some times, so that there is something to compact and to copy.
func history(ctx context.Context, t *target) error {
	for range historyRounds {
		if err := fill(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// upkeep is work of an operator. It is done again and again while a load runs.
type upkeep func(ctx context.Context, t *target) error

// beside is a load with upkeep beside it.
func beside(l load, work upkeep) load {
	return func(ctx context.Context, t *target, clients int, m *meter) error {
		group, both := errgroup.WithContext(context.WithoutCancel(ctx))
		ending, cancel := context.WithCancel(both)
		defer cancel()
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := work(ending, t); err != nil && ending.Err() == nil {
					return err
				}
			}
			return nil
		})
		group.Go(func() error {
			defer cancel() // an operator does not wait any longer
			return l(ctx, t, clients, m)
		})
		return group.Wait()
	}
}

// compactAll compacts everything up to now and waits until it is gone from the disk.
func compactAll(ctx context.Context, t *target) error {
	kv := pb.NewKVClient(t.conn(0))
	now, err := kv.Range(ctx, &pb.RangeRequest{Key: keyAt(0), CountOnly: true})
	if err != nil {
		return err
	}
	_, err = kv.Compact(ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true})
	if errors.Is(err, rpctypes.ErrGRPCCompacted) { // nothing was written since
		return nil
	}
	return err
}

// defragmentAll has one endpoint after the other defragment.
func defragmentAll(ctx context.Context, t *target) error {
	done := map[string]bool{}
	for _, conn := range t.conns {
		if done[conn.Target()] {
			continue
		}
		done[conn.Target()] = true
		if _, err := pb.NewMaintenanceClient(conn).Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
			return err
		}
	}
	return nil
}
