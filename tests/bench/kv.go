package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// The data: as many keys as rows read and write, and the size of each value.
const (
	keys        = 10_000
	valueBytes  = 256
	mixedBytes  = 8
	mixedLimit  = 1000
	loadClients = 64
)

// keyAt is the name of a key: 16 bytes.
func keyAt(n int) []byte {
	const digits = "0123456789abcdef"
	key := []byte("bench/key-000000")
	for i := len(key) - 1; n > 0; i-- {
		key[i] = digits[n%16]
		n /= 16
	}
	return key
}

// value is random, so that nothing along the way can make it smaller.
func value(random *rand.Rand, size int) []byte {
	out := make([]byte, (size+7)/8*8)
	for i := 0; i < len(out); i += 8 {
		binary.LittleEndian.PutUint64(out[i:], random.Uint64())
	}
	return out[:size]
}

func putAnyKey(conn *grpc.ClientConn, random *rand.Rand) call {
	kv, v := pb.NewKVClient(conn), value(random, valueBytes)
	return func(ctx context.Context) error {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: keyAt(random.IntN(keys)), Value: v})
		return err
	}
}

// rangeAnyKey reads a single key that exists.
func rangeAnyKey(serializable bool) func(*grpc.ClientConn, *rand.Rand) call {
	return func(conn *grpc.ClientConn, random *rand.Rand) call {
		kv := pb.NewKVClient(conn)
		return func(ctx context.Context) error {
			resp, err := kv.Range(ctx, &pb.RangeRequest{Key: keyAt(random.IntN(keys)), Serializable: serializable})
			if err == nil && len(resp.Kvs) != 1 {
				err = errors.New("a key is missing")
			}
			return err
		}
	}
}

// comparePut is a transaction whose compare always holds, so that its work is always the same.
func comparePut(conn *grpc.ClientConn, random *rand.Rand) call {
	kv, v := pb.NewKVClient(conn), value(random, valueBytes)
	return func(ctx context.Context) error {
		key := keyAt(random.IntN(keys))
		resp, err := kv.Txn(ctx, &pb.TxnRequest{
			Compare: []*pb.Compare{{
				Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: -1},
			}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: v}}}},
		})
		if err == nil && !resp.Succeeded {
			err = errors.New("the compare did not hold")
		}
		return err
	}
}

// mixed is what etcd's benchmark calls txn-mixed, with its defaults: transactions, half of which put one small value under
// one key and half range over all keys up to a limit.
func mixed(conn *grpc.ClientConn, random *rand.Rand) call {
	kv, v := pb.NewKVClient(conn), value(random, mixedBytes)
	all := []byte{0}
	return func(ctx context.Context) error {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: keyAt(0), Value: v}}}
		if random.IntN(2) == 0 {
			op.Request = &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: all, RangeEnd: all, Limit: mixedLimit}}
		}
		_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
		return err
	}
}

// fill writes every key once.
func fill(ctx context.Context, t *target) error {
	group, ctx := errgroup.WithContext(ctx)
	for client := range loadClients {
		group.Go(func() error {
			kv, v := pb.NewKVClient(t.conn(client)), value(rand.New(rand.NewPCG(2, uint64(client))), valueBytes)
			for n := client; n < keys; n += loadClients {
				if _, err := kv.Put(ctx, &pb.PutRequest{Key: keyAt(n), Value: v}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
