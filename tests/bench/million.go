package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// The rows about much data.
const (
	million    = 1_000_000
	txnPuts    = 100 // in one transaction, of the 128 that may be
	rangeLimit = keys
)

// fillMany writes so many revisions of 256 bytes, over so many keys, in transactions.
func fillMany(revisions, over int) func(ctx context.Context, t *target) error {
	return func(ctx context.Context, t *target) error {
		group, ctx := errgroup.WithContext(ctx)
		for client := range loadClients {
			group.Go(func() error {
				kv, v := pb.NewKVClient(t.conn(client)), value(rand.New(rand.NewPCG(2, uint64(client))), valueBytes)
				for n := client * txnPuts; n < revisions; n += loadClients * txnPuts {
					txn := &pb.TxnRequest{}
					for i := n; i < min(n+txnPuts, revisions); i++ {
						put := &pb.PutRequest{Key: keyAt(i % over), Value: v}
						txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
					}
					if _, err := kv.Txn(ctx, txn); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	}
}

// rangeMany reads all keys of the small set at once.
func rangeMany(conn *grpc.ClientConn, _ *rand.Rand) call {
	kv, all := pb.NewKVClient(conn), []byte{0}
	return func(ctx context.Context) error {
		resp, err := kv.Range(ctx, &pb.RangeRequest{Key: all, RangeEnd: all, Limit: rangeLimit})
		if err == nil && len(resp.Kvs) != keys {
			err = fmt.Errorf("%d keys of %d", len(resp.Kvs), keys)
		}
		return err
	}
}

// streamMillion reads all keys of the large set as one stream.
func streamMillion(conn *grpc.ClientConn, _ *rand.Rand) call {
	kv, all := pb.NewKVClient(conn), []byte{0}
	return func(ctx context.Context) error {
		stream, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: all, RangeEnd: all})
		if err != nil {
			return err
		}
		for got, count := 0, int64(0); ; {
			page, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF) && got == million && count == million:
				return nil
			case errors.Is(err, io.EOF):
				return fmt.Errorf("%d keys, and %d are said to be there, of %d", got, count, million)
			case err != nil:
				return err
			}
			got += len(page.GetRangeResponse().GetKvs())
			count += page.GetRangeResponse().GetCount()
		}
	}
}

// patient is an operation that is tried again while the system says that it has too many requests, as etcd does of all that come while it
// defragments. The operation lasts until it is done.
func patient(operation func(*grpc.ClientConn, *rand.Rand) call) func(*grpc.ClientConn, *rand.Rand) call {
	const every = 5 * time.Millisecond
	return func(conn *grpc.ClientConn, random *rand.Rand) call {
		once := operation(conn, random)
		return func(ctx context.Context) error {
			for {
				err := once(ctx)
				if !errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyRequests) {
					return err
				}
				if err := pause(ctx, every); err != nil {
					return err
				}
			}
		}
	}
}

// millionRows are the rows about much data.
func millionRows() []row {
	rows := []row{
		{
			name: "range-10000", about: "linearizable reads of 10,000 keys of 256 bytes at once, 4 clients", clients: 4, connections: 4,
			prepare: fill, load: closedLoop(rangeMany), freshPeak: true,
		},
		{
			name: "rangestream-million", about: "a million keys of 256 bytes as one stream, one client; rss is the peak while it reads",
			clients: 1, connections: 1, prepare: fillMany(million, million), load: closedLoop(streamMillion), steps: whole, freshPeak: true,
		},
		{
			name: "memory-million", clients: 1, connections: loadClients, prepare: fillMany(million, million), load: idle, steps: restart,
			about: "a million keys of 256 bytes: loaded_mb is what all processes hold then, start_ms the time from starting a node that was killed " +
				"to its first answer, and started_mb that node's peak until then",
		},
	}
	puts := closedLoop(patient(putAnyKey))
	for _, r := range []struct {
		name, about string
		work        upkeep
	}{
		{"put-compact-million", "while a million revisions are compacted", compactAll},
		{"put-defragment-million", "while each node is defragmented once", defragmentAll},
		{"put-snapshot-million", "while each endpoint streams a snapshot once", saveAll},
	} {
		rows = append(rows, row{
			name: r.name, clients: 20, connections: 20, prepare: fillMany(million, keys), load: puts, steps: besideQuiet(r.work),
			about: "puts of 256 bytes, 20 clients, " + r.about + "; quiet_p99_ms is what it was before, and x_quiet how many times that it has become",
		})
	}
	return rows
}
