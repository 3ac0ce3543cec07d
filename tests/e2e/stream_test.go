package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func streamCases() []testCase {
	return []testCase{
		{name: "range stream", run: rangeStream},
		{name: "range stream errors", run: rangeStreamErrors},
		{name: "range stream of one revision", run: rangeStreamPinned},
		{name: "range stream overtaken by compaction", run: rangeStreamCompacted},
		{name: "snapshot", run: snapshotStream},
		{name: "etcdctl snapshot save", run: etcdctlSnapshot},
	}
}

// kv is the KV service on one client URL.
func (s *system) kv(t *testing.T) pb.KVClient {
	t.Helper()
	return pb.NewKVClient(s.Conn(t, s.Endpoints()[0]))
}

// pages opens a streamed range and reads it to its end.
func pages(t *testing.T, kv pb.KVClient, request *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	t.Helper()
	stream, err := kv.RangeStream(bounded(t), request)
	require.NoError(t, err)
	return rest(stream)
}

func rest(stream grpc.ServerStreamingClient[pb.RangeStreamResponse]) (pages []*pb.RangeResponse, err error) {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return pages, nil
		}
		if err != nil {
			return pages, err
		}
		pages = append(pages, m.GetRangeResponse())
	}
}

func putMany(t *testing.T, s *system, prefix string, count, valueBytes int) (last int64) {
	t.Helper()
	value := strings.Repeat("v", valueBytes)
	for i := range count {
		last = put(t, s, fmt.Sprintf("%s%04d", prefix, i), value)
	}
	return last
}

func rangeStream(t *testing.T, s *system) {
	prefix, kv := key(t, "k"), s.kv(t)
	last := putMany(t, s, prefix, 75, 1)
	end := clientv3.GetPrefixRangeEnd(prefix)
	for _, tc := range []struct {
		request *pb.RangeRequest
		sizes   []int // of the pages; empty: not looked at
	}{
		{&pb.RangeRequest{}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{Limit: 3}, []int{3}},
		{&pb.RangeRequest{Limit: 10}, []int{10}},
		{&pb.RangeRequest{Limit: 12}, []int{10, 2}},
		{&pb.RangeRequest{Limit: 75}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{Limit: 76}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{Limit: -1}, nil},
		{&pb.RangeRequest{Revision: -1}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{Revision: last - 40}, []int{10, 20, 5}},
		{&pb.RangeRequest{Revision: last - 40, Limit: 30}, []int{10, 20}},
		{&pb.RangeRequest{KeysOnly: true}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{CountOnly: true}, []int{0}},
		{&pb.RangeRequest{CountOnly: true, Limit: 3, Revision: last - 1}, []int{0}},
		{&pb.RangeRequest{Serializable: true}, []int{10, 20, 40, 5}},
		{&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND}, []int{10, 20, 40, 5}},
	} {
		tc.request.Key, tc.request.RangeEnd = []byte(prefix), []byte(end)
		got, err := pages(t, kv, tc.request)
		require.NoError(t, err, tc.request)
		if tc.sizes != nil {
			var sizes []int
			for _, page := range got {
				sizes = append(sizes, len(page.GetKvs()))
			}
			require.Equal(t, tc.sizes, sizes, tc.request)
		}
		merged := &pb.RangeResponse{}
		for i, page := range got {
			if i < len(got)-1 {
				require.Nil(t, page.GetHeader())
				require.Zero(t, page.GetCount())
				require.False(t, page.GetMore())
			}
			proto.Merge(merged, page)
		}
		want, err := kv.Range(bounded(t), tc.request)
		require.NoError(t, err)
		want.Header.MemberId, merged.Header.MemberId = 0, 0 // another member may answer
		require.True(t, proto.Equal(want, merged), "%v: %v %v", tc.request, merged.GetHeader(), want.GetHeader())
	}
	for _, single := range []string{prefix + "0000", prefix + "nothing"} {
		got, err := pages(t, kv, &pb.RangeRequest{Key: []byte(single)})
		require.NoError(t, err)
		require.Len(t, got, 1)
		want, err := kv.Range(bounded(t), &pb.RangeRequest{Key: []byte(single)})
		require.NoError(t, err)
		want.Header.MemberId, got[0].Header.MemberId = 0, 0
		require.True(t, proto.Equal(want, got[0]))
	}
}

func rangeStreamErrors(t *testing.T, s *system) {
	k, kv := []byte(key(t, "k")), s.kv(t)
	for _, tc := range []struct {
		request *pb.RangeRequest
		code    codes.Code
		text    string
	}{
		{&pb.RangeRequest{}, codes.InvalidArgument, "etcdserver: key is not provided"},
		{&pb.RangeRequest{Key: k, SortOrder: 7}, codes.InvalidArgument, "etcdserver: invalid sort option"},
		{&pb.RangeRequest{Key: k, SortTarget: 7}, codes.InvalidArgument, "etcdserver: invalid sort option"},
		{&pb.RangeRequest{Key: k, SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented, "RangeStream does not support custom sort orders"},
		{
			&pb.RangeRequest{Key: k, SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE},
			codes.Unimplemented, "RangeStream does not support custom sort orders",
		},
		{&pb.RangeRequest{Key: k, MinModRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
		{&pb.RangeRequest{Key: k, MaxCreateRevision: 1}, codes.Unimplemented, "RangeStream does not support revision filters"},
		{&pb.RangeRequest{Key: k, Revision: 1 << 40}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{&pb.RangeRequest{Key: k, Revision: 1 << 40, CountOnly: true}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	} {
		_, err := pages(t, kv, tc.request)
		require.Equal(t, tc.code, status.Code(err), tc.request)
		require.Equal(t, tc.text, status.Convert(err).Message(), tc.request)
	}
	// A target without an order: see differences_test.go.
	_, err := pages(t, kv, &pb.RangeRequest{Key: k, SortTarget: pb.RangeRequest_MOD})
	require.Equal(t, s.sortTargetInStream(), status.Code(err))
}

// slowly opens a streamed range of more than fits between the server and a client that does not read, and takes its first page.
func slowly(t *testing.T, s *system, prefix string) (stream grpc.ServerStreamingClient[pb.RangeStreamResponse], first *pb.RangeResponse) {
	t.Helper()
	const count, valueBytes = 400, 100_000
	putMany(t, s, prefix, count, valueBytes)
	stream, err := s.kv(t).RangeStream(t.Context(), &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix))})
	require.NoError(t, err)
	m, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, m.GetRangeResponse().GetKvs(), 10)
	return stream, m.GetRangeResponse()
}

func rangeStreamPinned(t *testing.T, s *system) {
	prefix := key(t, "k")
	stream, merged := slowly(t, s, prefix)
	put(t, s, prefix+"0399", "changed")
	put(t, s, prefix+"9999", "new")
	_, err := s.client.Delete(bounded(t), prefix+"0398")
	require.NoError(t, err)
	others, err := rest(stream)
	require.NoError(t, err)
	for _, page := range others {
		proto.Merge(merged, page)
	}
	require.Len(t, merged.GetKvs(), 400)
	require.Equal(t, int64(400), merged.GetCount())
	for _, kv := range merged.GetKvs() {
		require.Len(t, kv.GetValue(), 100_000)
		require.LessOrEqual(t, kv.GetModRevision(), merged.GetHeader().GetRevision())
	}
	require.Equal(t, merged.GetHeader().GetRevision(), merged.GetKvs()[399].GetModRevision(), "the newest at the start")
}

func rangeStreamCompacted(t *testing.T, s *system) {
	prefix := key(t, "k")
	stream, _ := slowly(t, s, prefix)
	revision := put(t, s, prefix+"0399", "changed")
	_, err := s.client.Compact(bounded(t), revision)
	require.NoError(t, err)
	_, err = rest(stream)
	require.Equal(t, codes.OutOfRange, status.Code(err))
	require.Equal(t, "etcdserver: mvcc: required revision has been compacted", status.Convert(err).Message())
}

func snapshotStream(t *testing.T, s *system) {
	putMany(t, s, key(t, "k"), 50, 1000)
	for _, endpoint := range s.Endpoints() {
		stream, err := pb.NewMaintenanceClient(s.Conn(t, endpoint)).Snapshot(bounded(t), &pb.SnapshotRequest{})
		require.NoError(t, err)
		var db []byte
		for total := int64(-1); ; {
			m, err := stream.Recv()
			require.NoError(t, err)
			require.Nil(t, m.GetHeader())
			require.Equal(t, clusterVersion, m.GetVersion())
			if total == int64(len(db)) {
				sum := sha256.Sum256(db)
				require.Equal(t, sum[:], m.GetBlob())
				require.Zero(t, m.GetRemainingBytes())
				break
			}
			if total < 0 {
				total = int64(m.GetRemainingBytes()) + int64(len(m.GetBlob()))
			}
			require.Len(t, m.GetBlob(), int(min(32<<10, total-int64(len(db)))))
			db = append(db, m.GetBlob()...)
			require.Equal(t, uint64(total)-uint64(len(db)), m.GetRemainingBytes())
		}
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
	}
}

func etcdctlSnapshot(t *testing.T, s *system) {
	revision := put(t, s, key(t, "k"), "v")
	for i, endpoint := range s.Endpoints() {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.db", i))
		out, err := exec.CommandContext(bounded(t), framework.Program(t, "etcdctl"), "--endpoints", endpoint, "snapshot", "save", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "Server version "+clusterVersion)
		var stderr bytes.Buffer
		status := exec.CommandContext(bounded(t), framework.Program(t, "etcdutl"), "snapshot", "status", file)
		status.Stderr = &stderr
		line, err := status.Output()
		require.NoError(t, err, "%s", stderr.String())
		fields := strings.Split(strings.TrimSpace(string(line)), ", ") // hash, revision, total keys, total size, version
		require.Equal(t, fmt.Sprint(revision), fields[1])
		require.Equal(t, clusterVersion, fields[4])
	}
}
