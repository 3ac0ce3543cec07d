package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// floor is the system that no system for watches can undercut: a bare grpc-go server that sends one shared message to all streams
// for each put. It keeps nothing.
const floor = "floor"

// floorCommand makes this program the floor's server: `bench floor HOST:PORT`.
const floorCommand = "floor"

func floorSystem(self string) system {
	return system{nodes: []int{1, 3}, layout: func(_ settings, _ row, data string, ports runner.PortPlan) runner.Layout {
		address := fmt.Sprintf("%s:%d", host, ports["n1"].Admin)
		return runner.Layout{
			Tiers:   [][]runner.Process{{{Name: "n1", Path: self, Args: []string{floorCommand, address}, Dir: data}}},
			Clients: []string{"http://" + address},
		}
	}}
}

// floorServer answers puts and watches, whatever their keys.
type floorServer struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer

	mu       sync.Mutex
	revision int64
	streams  map[chan *shared]bool
}

// floorWaiting is how many messages may wait for one stream; the load waits for all streams before it puts again.
const floorWaiting = 16

// Put is of KVServer.
func (f *floorServer) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision++
	header := &pb.ResponseHeader{Revision: f.revision}
	data, err := proto.Marshal(&pb.WatchResponse{Header: header, Events: []*mvccpb.Event{{
		Kv: &mvccpb.KeyValue{Key: r.Key, Value: r.Value, ModRevision: f.revision, CreateRevision: 1, Version: f.revision},
	}}})
	if err != nil {
		return nil, err
	}
	for stream := range f.streams {
		select {
		case stream <- &shared{data}:
		default:
			return nil, errors.New("a stream does not take what is sent")
		}
	}
	return &pb.PutResponse{Header: header}, nil
}

// Watch is of WatchServer: one watch for each stream.
func (f *floorServer) Watch(stream pb.Watch_WatchServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.WatchResponse{Header: &pb.ResponseHeader{}, Created: true}); err != nil {
		return err
	}
	waiting := make(chan *shared, floorWaiting)
	f.mu.Lock()
	f.streams[waiting] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.streams, waiting)
		f.mu.Unlock()
	}()
	for {
		select {
		case message := <-waiting:
			if err := stream.SendMsg(message); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// shared is a message whose bytes go to many streams as they are.
type shared struct{ data []byte }

// sharing is a codec that passes shared messages on.
type sharing struct{ encoding.CodecV2 }

// Marshal is of encoding.CodecV2.
func (c sharing) Marshal(v any) (mem.BufferSlice, error) {
	if s, ok := v.(*shared); ok {
		return mem.BufferSlice{mem.SliceBuffer(s.data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// serveFloor serves until the process is ended.
func serveFloor(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("floor wants an address")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(sharing{encoding.GetCodecV2(grpcproto.Name)}))
	f := &floorServer{streams: map[chan *shared]bool{}}
	pb.RegisterKVServer(server, f)
	pb.RegisterWatchServer(server, f)
	return server.Serve(listener)
}
