package apply

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// FuzzDecodePut: what it decodes, it decodes as protobuf does; what protobuf refuses, it does not decode.
func FuzzDecodePut(f *testing.F) {
	for _, req := range []*pb.PutRequest{
		{},
		{Key: []byte("k")},
		{Key: []byte("k"), Value: []byte("v"), Lease: 7},
		{Lease: -1, PrevKv: true},
		{Key: []byte("k"), IgnoreValue: true, IgnoreLease: true},
	} {
		data, err := proto.Marshal(req)
		require.NoError(f, err)
		f.Add(data)
		f.Add(append(data, 0x50, 0x01)) // an unknown field
		f.Add(append(data, data...))    // the last one counts
		f.Add(append(data, 0x0a, 0x05, 'x'))
		f.Add(append(data, 0x08, 0x01)) // the key as a number
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, want := &pb.PutRequest{}, &pb.PutRequest{}
		if !decodePut(data, got) {
			return
		}
		require.NoError(t, proto.Unmarshal(data, want))
		require.True(t, proto.Equal(want, got), "%x: want %v, got %v", data, want, got)
	})
}

func TestDecodePutKnowsWhatClientsSend(t *testing.T) {
	t.Parallel()
	want := &pb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 5, PrevKv: true, IgnoreValue: true, IgnoreLease: true}
	data, err := proto.Marshal(want)
	require.NoError(t, err)
	got := &pb.PutRequest{}
	require.True(t, decodePut(data, got))
	require.True(t, proto.Equal(want, got))
}
