package apply

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Fields of mvccpb.KeyValue. The encoding is written out here, and tested to
// be what protobuf gives, because the same bytes must come out on every node
// of a cluster, whatever protobuf version it was built with, and because it
// runs for every write.
const (
	fieldKey     protowire.Number = 1
	fieldCreate  protowire.Number = 2
	fieldMod     protowire.Number = 3
	fieldVersion protowire.Number = 4
	fieldValue   protowire.Number = 5
	fieldLease   protowire.Number = 6
)

func encodedSize(kv *mvccpb.KeyValue) int {
	return bytesSize(kv.Key) + intSize(kv.CreateRevision) + intSize(kv.ModRevision) +
		intSize(kv.Version) + bytesSize(kv.Value) + intSize(kv.Lease)
}

// encodedKey is the key inside an encoded key-value. What lives on with an event should be the event alone: the key that the request
// brought holds on to the whole request.
func encodedKey(encoded []byte, size int) []byte {
	if size == 0 {
		return nil
	}
	start := bytesSize(encoded[:size]) - size
	return encoded[start : start+size : start+size]
}

func appendKeyValue(dst []byte, kv *mvccpb.KeyValue) []byte {
	dst = appendBytes(dst, fieldKey, kv.Key)
	dst = appendInt(dst, fieldCreate, kv.CreateRevision)
	dst = appendInt(dst, fieldMod, kv.ModRevision)
	dst = appendInt(dst, fieldVersion, kv.Version)
	dst = appendBytes(dst, fieldValue, kv.Value)
	return appendInt(dst, fieldLease, kv.Lease)
}

// bytesSize and intSize count one byte for the tag: all fields are below 16.
func bytesSize(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(b))
}

func intSize(v int64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(v))
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}

func appendInt(dst []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, uint64(v))
}

// encoder cuts encoded key-values from one allocation. What it cuts lives and
// dies together: the changes of one revision.
type encoder struct{ buf []byte }

func (e *encoder) encode(kv *mvccpb.KeyValue) []byte {
	start := len(e.buf)
	e.buf = appendKeyValue(e.buf, kv)
	return e.buf[start:len(e.buf):len(e.buf)]
}

// published makes room for the changes of one revision: for one change, which is what most revisions hold, in one allocation.
func published(changes int) (encoded [][]byte, events []feedv1.Event, rev *feedv1.Revision) {
	if changes == 1 {
		one := &struct {
			rev     feedv1.Revision
			event   [1]feedv1.Event
			pointer [1]*feedv1.Event
			encoded [1][]byte
		}{}
		one.rev.Events = one.pointer[:]
		return one.encoded[:], one.event[:], &one.rev
	}
	return make([][]byte, changes), make([]feedv1.Event, changes), &feedv1.Revision{Events: make([]*feedv1.Event, changes)}
}

// publish turns what one request changed into rows for the store and a
// revision for the feed; of a put both hold the same bytes. Writes and events
// are in step, one of each per change.
func publish(eff mvcc.Effects) (encoded [][]byte, rev *feedv1.Revision) {
	size := 0
	for i, w := range eff.Writes {
		ev := &eff.Events[i]
		size += encodedSize(w.KV)
		if w.Tombstone {
			size += encodedSize(ev.Kv)
		}
		if ev.PrevKv != nil {
			size += encodedSize(ev.PrevKv)
		}
	}
	enc := encoder{buf: make([]byte, 0, size)}
	encoded, events, rev := published(len(eff.Writes))
	rev.Revision = eff.Revision
	for i, w := range eff.Writes {
		ev, out := &eff.Events[i], &events[i]
		encoded[i] = enc.encode(w.KV)
		out.Key, out.Deleted, out.Kv = encodedKey(encoded[i], len(w.KV.Key)), w.Tombstone, encoded[i]
		if w.Tombstone {
			out.Kv = enc.encode(ev.Kv)
		}
		out.PreviousModRevision = ev.Prev.Main
		if ev.PrevKv != nil {
			out.PreviousKv = enc.encode(ev.PrevKv)
		}
		rev.Events[i] = out
	}
	return encoded, rev
}
