package main

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// load drives a target with so many clients until ctx is done, and records each completed operation. Its error is the first
// that a client got; the end of ctx is none.
type load func(ctx context.Context, t *target, clients int, m *meter) error

// call is one operation of a client.
type call func(ctx context.Context) error

// closedLoop is a load in which each client waits for its answer before it asks again. newCall makes a client's operation; the
// random numbers are the client's own.
func closedLoop(newCall func(conn *grpc.ClientConn, random *rand.Rand) call) load {
	return func(ctx context.Context, t *target, clients int, m *meter) error {
		// Calls outlive ctx: a cancelled one may have happened, and would be work that nobody counts.
		group, calling := errgroup.WithContext(context.WithoutCancel(ctx))
		for client := range clients {
			do := newCall(t.conn(client), rand.New(rand.NewPCG(1, uint64(client))))
			group.Go(func() error {
				for ctx.Err() == nil {
					began := time.Now()
					if err := do(calling); err != nil {
						return err
					}
					m.recordAt(t.endpoint(client), time.Since(began))
				}
				return nil
			})
		}
		return group.Wait()
	}
}
