package apply

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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

// DecodePut decodes a put, by far the most frequent request, without copying where it can: key and value lie in data, which nobody
// changes any more. The error is protobuf's.
func DecodePut(data []byte) (*pb.PutRequest, error) {
	req := &pb.PutRequest{}
	if decodePut(data, req) {
		return req, nil
	}
	req.Reset()
	return req, proto.Unmarshal(data, req)
}

// decodePut is DecodePut for what clients send; ok is false for anything else, which protobuf decides about.
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
