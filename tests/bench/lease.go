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

// leaseSeconds is long enough that no lease ends during a run.
const leaseSeconds = 300

// grantRevoke grants a lease and revokes it: two calls, recorded as one operation.
func grantRevoke(conn *grpc.ClientConn, _ *rand.Rand) call {
	lease := pb.NewLeaseClient(conn)
	return func(ctx context.Context) error {
		granted, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: leaseSeconds})
		if err != nil {
			return err
		}
		_, err = lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: granted.ID})
		return err
	}
}

// keepAlives is a load in which each client has a lease and a stream of its own, and renews again as soon as it is answered.
func keepAlives(ctx context.Context, t *target, clients int, m *meter) error {
	group, calling := errgroup.WithContext(context.WithoutCancel(ctx))
	for client := range clients {
		group.Go(func() error {
			streaming, cancel := context.WithCancel(calling)
			defer cancel()
			lease := pb.NewLeaseClient(t.conn(client))
			granted, err := lease.LeaseGrant(streaming, &pb.LeaseGrantRequest{TTL: leaseSeconds})
			if err != nil {
				return err
			}
			stream, err := lease.LeaseKeepAlive(streaming)
			for err == nil && ctx.Err() == nil {
				err = keepAlive(stream, granted.ID, m)
			}
			return err
		})
	}
	return group.Wait()
}

func keepAlive(stream pb.Lease_LeaseKeepAliveClient, id int64, m *meter) error {
	began := time.Now()
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return fmt.Errorf("send a keepalive: %w", err)
	}
	resp, err := stream.Recv()
	switch {
	case err != nil:
		return err
	case resp.ID != id || resp.TTL <= 0:
		return errors.New("a lease is lost")
	}
	m.record(time.Since(began))
	return nil
}
