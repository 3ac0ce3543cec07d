package differential_test

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/tests/differential"
)

// toy answers puts and deletes with a revision. With the fault it forgets to count a put of "b" after a delete.
type toy struct {
	grpc.ClientConnInterface
	fault    bool
	revision int64
	deleted  bool
}

func (s *toy) Invoke(_ context.Context, _ string, request, response any, _ ...grpc.CallOption) error {
	s.revision++
	switch r := request.(type) {
	case *pb.DeleteRangeRequest:
		s.deleted = true
	case *pb.PutRequest:
		if s.fault && s.deleted && string(r.GetKey()) == "b" {
			s.revision--
		}
	}
	header := &pb.ResponseHeader{Revision: s.revision}
	switch r := response.(type) {
	case *pb.PutResponse:
		proto.Merge(r, &pb.PutResponse{Header: header})
	case *pb.DeleteRangeResponse:
		proto.Merge(r, &pb.DeleteRangeResponse{Header: header})
	}
	return nil
}

// A difference is found, and made as short as it can be.
func TestADifferenceIsFoundAndShrunk(t *testing.T) {
	put := func(key string) differential.Op {
		return differential.Op{Method: "/etcdserverpb.KV/Put", Request: &pb.PutRequest{Key: []byte(key)}}
	}
	remove := differential.Op{Method: "/etcdserverpb.KV/DeleteRange", Request: &pb.DeleteRangeRequest{Key: []byte("a")}}
	ops := []differential.Op{put("a"), put("b"), put("c"), remove, put("a"), put("c"), put("c"), put("b"), put("a")}
	replay := func(ops []differential.Op, fault bool) *differential.Difference {
		return differential.NewPair(&toy{fault: fault}, &toy{}).Replay(t.Context(), ops)
	}
	require.Nil(t, replay(ops, false))
	found := replay(ops, true)
	require.NotNil(t, found)
	require.Equal(t, 7, found.At)
	tries := 0
	short := differential.Shrink(slices.Clone(ops), 100, func(ops []differential.Op) bool {
		tries++
		return replay(ops, true) != nil
	})
	require.Len(t, short, 2)
	require.Same(t, remove.Request, short[0].Request)
	require.Equal(t, "b", string(short[1].Request.(*pb.PutRequest).GetKey()))
	require.LessOrEqual(t, tries, 100)
}

// The same seed makes the same requests: what a failing run prints is enough to run it again.
func TestTheSameSeedMakesTheSameRequests(t *testing.T) {
	texts := func(seed uint64) (out []string) {
		g := differential.NewGenerator(seed)
		for range 300 {
			out = append(out, g.Next().String())
		}
		return out
	}
	first := texts(1)
	require.Equal(t, first, texts(1))
	require.NotEqual(t, first, texts(2))
}
