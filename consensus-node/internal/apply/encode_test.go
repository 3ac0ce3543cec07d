package apply_test

import (
	"bytes"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

func keyValue(encoded []byte) *mvccpb.KeyValue {
	kv := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(encoded, kv); err != nil {
		panic(err)
	}
	return kv
}

// What is stored and published is what protobuf gives, so that etcd and every
// client can read it.
func TestEncodedKeyValuesAreProtobuf(t *testing.T) {
	for _, lease := range []int64{1, -1, math.MaxInt64, math.MinInt64} {
		for _, value := range [][]byte{nil, {}, []byte("v"), make([]byte, 127), make([]byte, 128), make([]byte, 1<<15)} {
			m, db := apply.New(), newDatabase()
			step(t, m, db, grantCommand(t, lease), putCommand(t, &pb.PutRequest{Key: []byte("k"), Value: value, Lease: lease}))
			res := step(t, m, db, putCommand(t, &pb.PutRequest{Key: []byte("k"), Value: value, PrevKv: true}))
			want, err := proto.Marshal(res.Batch.Writes[0].KV)
			require.NoError(t, err)
			require.Equal(t, want, res.Batch.Encoded[0])
			ev := res.Revisions[0].Events[0]
			require.Equal(t, want, ev.Kv)
			want, err = proto.Marshal(res.Outcomes[0].Response.(*pb.PutResponse).PrevKv)
			require.NoError(t, err)
			require.Equal(t, want, ev.PreviousKv)
			require.Equal(t, lease, keyValue(ev.PreviousKv).Lease)
		}
	}
}

// What is published stays in the feed for long, so it holds nothing of the request, which a large value would be part of.
func TestEventsHoldNoRequest(t *testing.T) {
	for _, length := range []int{1, 127, 128, 1 << 15} {
		m, db := apply.New(), newDatabase()
		key := bytes.Repeat([]byte("k"), length)
		command := putCommand(t, &pb.PutRequest{Key: key, Value: []byte("v")})
		put := step(t, m, db, command).Revisions[0].Events[0]
		clear(command.GetPut())
		require.Equal(t, key, put.Key)
		require.Equal(t, key, keyValue(put.Kv).Key)
		require.Equal(t, "v", string(keyValue(put.Kv).Value))

		deleted := step(t, m, db, deleteCommand(t, key)).Revisions[0].Events[0]
		require.Equal(t, key, deleted.Key)
	}
}

func deleteCommand(t *testing.T, key []byte) *journalv1.Command {
	t.Helper()
	req := &pb.DeleteRangeRequest{Key: key}
	return &journalv1.Command{Command: &journalv1.Command_DeleteRange{DeleteRange: marshal(t, req)}}
}

// step applies one entry and stores its batch.
func step(t *testing.T, m *apply.Machine, db *database, commands ...*journalv1.Command) apply.Result {
	t.Helper()
	res, err := m.Apply(m.Index()+1, 1, &journalv1.Entry{Version: apply.EntryVersion, Commands: commands}, db)
	require.NoError(t, err)
	db.store(t, res.Batch)
	return res
}

func putCommand(t *testing.T, req *pb.PutRequest) *journalv1.Command {
	t.Helper()
	return &journalv1.Command{Command: &journalv1.Command_Put{Put: marshal(t, req)}}
}

func grantCommand(t *testing.T, id int64) *journalv1.Command {
	t.Helper()
	req := &pb.LeaseGrantRequest{ID: id, TTL: 60}
	return &journalv1.Command{Command: &journalv1.Command_LeaseGrant{LeaseGrant: marshal(t, req)}}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}
