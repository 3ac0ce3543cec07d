package app

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// pagesOf streams a range and gives its pages.
func pagesOf(t *testing.T, conn grpc.ClientConnInterface, request *pb.RangeRequest) []*pb.RangeResponse {
	t.Helper()
	stream, err := consensusv1.NewConsensusClient(conn).Stream(t.Context(), &consensusv1.StreamCall{
		Call: call(t, consensusv1.Method_METHOD_RANGE_STREAM, request),
	})
	require.NoError(t, err)
	var pages []*pb.RangeResponse
	for {
		part, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // gRPC gives it bare
			return pages
		}
		require.NoError(t, err)
		m := &pb.RangeStreamResponse{}
		require.NoError(t, proto.Unmarshal(part.GetResponse(), m))
		pages = append(pages, m.GetRangeResponse())
	}
}

// The pages double while they are small and stay within their size when the values grow.
func TestPagesOfARangeStream(t *testing.T) {
	t.Parallel()
	const aim = 64 << 10
	node := runNode(t, testConfig(t, t.TempDir(), fmt.Sprintf("--max-request-bytes=%d", aim)))
	c := newCaller(t, node.direct)
	var calls []*consensusv1.Call
	put := func(key string, size int) {
		calls = append(calls, call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key), Value: bytes.Repeat([]byte{1}, size)}))
	}
	for i := range 500 {
		put(fmt.Sprintf("a%03d", i), 1)
	}
	for i := range 40 {
		put(fmt.Sprintf("b%03d", i)+strings.Repeat("b", aim/4), aim/4)
	}
	c.do(calls...)
	everything := func() *pb.RangeRequest { return &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")} }
	pages := pagesOf(t, node.direct, everything())
	merged := &pb.RangeResponse{}
	for i, page := range pages {
		require.LessOrEqual(t, proto.Size(page), 2*aim+1<<10, "page %d of %d keys", i, len(page.GetKvs()))
		if i < 5 {
			require.Len(t, page.GetKvs(), 10<<i)
		}
		proto.Merge(merged, page)
	}
	want := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, everything()))[0])
	require.True(t, proto.Equal(want, merged))
	keysOnly := everything()
	keysOnly.KeysOnly = true
	for i, page := range pagesOf(t, node.direct, keysOnly) {
		require.LessOrEqual(t, proto.Size(page), 2*aim+1<<10, "page %d of %d keys alone", i, len(page.GetKvs()))
	}

	for _, request := range []*pb.RangeRequest{
		{Limit: 3},
		{Limit: 10},
		{Limit: 15},
		{Limit: 540},
		{Limit: 539},
		{Limit: -1},
		{Revision: -1},
		{Revision: 100},
		{Revision: 2, Limit: 1},
		{CountOnly: true},
		{CountOnly: true, Limit: 2},
		{KeysOnly: true},
		{KeysOnly: true, Limit: 77},
		{Serializable: true},
	} {
		request.Key, request.RangeEnd = []byte("a"), []byte("c")
		merged := &pb.RangeResponse{}
		for _, page := range pagesOf(t, node.network, request) {
			proto.Merge(merged, page)
		}
		want := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, request))[0])
		require.True(t, proto.Equal(want, merged), "%v: %v", request, merged.GetHeader())
	}
}
