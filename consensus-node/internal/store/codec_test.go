package store

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

func TestEncodeIsProtobuf(t *testing.T) {
	rng := newRand(t)
	bytes := func() []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		b := make([]byte, rng.IntN(300))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	number := func() int64 {
		return int64(rng.Uint64()>>rng.IntN(64)) * int64(rng.IntN(2))
	}
	for range 2000 {
		kv := &mvccpb.KeyValue{
			Key: bytes(), Value: bytes(), CreateRevision: number(), ModRevision: number(), Version: number(), Lease: number(),
		}
		want, err := proto.Marshal(kv)
		require.NoError(t, err)
		got := Encode(kv)
		require.Equal(t, want, append([]byte{}, got...))
		require.Len(t, got, EncodedSize(kv))
		back, err := Decode(got)
		require.NoError(t, err)
		require.True(t, proto.Equal(kv, back), "%v, not %v", back, kv)
	}
}

func TestDecodeOfAnyBytes(t *testing.T) {
	rng := newRand(t)
	valid := Encode(putAt(rev(7, 0), "some key", "some value").KV)
	for range 5000 {
		b := append([]byte{}, valid[:rng.IntN(len(valid)+1)]...)
		if len(b) > 0 {
			b[rng.IntN(len(b))] ^= byte(1 << rng.IntN(8))
		}
		// Where protobuf takes the bytes too, the answers agree.
		var want mvccpb.KeyValue
		got, err := Decode(b)
		if proto.Unmarshal(b, &want) == nil && err == nil {
			want.ProtoReflect().SetUnknown(nil)
			require.True(t, proto.Equal(&want, got), "%x", b)
		}
	}
}

func TestDecodeSkipsUnknownFields(t *testing.T) {
	b := Encode(putAt(rev(7, 0), "k", "v").KV)
	b = protowire.AppendTag(b, 99, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte("later"))
	kv, err := Decode(b)
	require.NoError(t, err)
	require.Equal(t, "k", string(kv.Key))
	_, err = Decode(b[:len(b)-1])
	require.Error(t, err)
}

func TestDropSet(t *testing.T) {
	rng := newRand(t)
	var set dropSet
	in := map[int64]bool{}
	for range 100 {
		before, size := set, len(in)
		set = set.with(randomDrops(rng, in))
		for r := range int64(600) {
			if set.has(rev(r, 0)) != in[r] {
				t.Fatalf("revision %d: in the set is %v", r, !in[r])
			}
		}
		require.Len(t, before.sorted(), size, "an older set has changed")
		require.LessOrEqual(t, len(set.runs), 12)
	}
	sorted := set.sorted()
	require.Len(t, sorted, len(in))
	for i := 1; i < len(sorted); i++ {
		require.True(t, sorted[i-1].Rev.Less(sorted[i].Rev))
	}
}

// randomDrops returns drops that are not in the set yet, and adds them.
func randomDrops(rng *rand.Rand, in map[int64]bool) (drops []mvcc.Drop) {
	for range 1 + rng.IntN(8) {
		if r := rng.Int64N(600); !in[r] {
			in[r] = true
			drops = append(drops, mvcc.Drop{Rev: rev(r, 0)})
		}
	}
	return drops
}
