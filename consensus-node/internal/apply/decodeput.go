package apply

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of etcdserverpb.PutRequest.
const (
	putKey         protowire.Number = 1
	putValue       protowire.Number = 2
	putLease       protowire.Number = 3
	putPrevKv      protowire.Number = 4
	putIgnoreValue protowire.Number = 5
	putIgnoreLease protowire.Number = 6
)

// decodePut decodes a put, by far the most frequent request, without copying: key and value lie in data, which belongs to the command
// and lives as long. ok is false for what it does not know; protobuf decides then.
func decodePut(data []byte, req *pb.PutRequest) (ok bool) {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		if field == putKey || field == putValue {
			value, n := protowire.ConsumeBytes(data)
			if kind != protowire.BytesType || n < 0 {
				return false
			}
			data = data[n:]
			if field == putKey {
				req.Key = slices.Clip(value)
			} else {
				req.Value = slices.Clip(value)
			}
			continue
		}
		number, n := protowire.ConsumeVarint(data)
		if kind != protowire.VarintType || n < 0 {
			return false
		}
		data = data[n:]
		switch field {
		case putLease:
			req.Lease = int64(number)
		case putPrevKv:
			req.PrevKv = number != 0
		case putIgnoreValue:
			req.IgnoreValue = number != 0
		case putIgnoreLease:
			req.IgnoreLease = number != 0
		default:
			return false
		}
	}
	return true
}
