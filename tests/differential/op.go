package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Op is one request.
type Op struct {
	Method  string // as gRPC has it
	Request proto.Message
}

// The methods that a Generator uses.
const (
	methodRange      = "/etcdserverpb.KV/Range"
	methodPut        = "/etcdserverpb.KV/Put"
	methodDelete     = "/etcdserverpb.KV/DeleteRange"
	methodTxn        = "/etcdserverpb.KV/Txn"
	methodCompact    = "/etcdserverpb.KV/Compact"
	methodGrant      = "/etcdserverpb.Lease/LeaseGrant"
	methodRevoke     = "/etcdserverpb.Lease/LeaseRevoke"
	methodTimeToLive = "/etcdserverpb.Lease/LeaseTimeToLive"
	methodLeases     = "/etcdserverpb.Lease/LeaseLeases"
	methodKeepAlive  = "/etcdserverpb.Lease/LeaseKeepAlive"
	methodHashKV     = "/etcdserverpb.Maintenance/HashKV"
	methodStream     = "/etcdserverpb.KV/RangeStream"
	methodAlarm      = "/etcdserverpb.Maintenance/Alarm"
	methodStatus     = "/etcdserverpb.Maintenance/Status"
	methodDowngrade  = "/etcdserverpb.Maintenance/Downgrade"
)

// responses has an empty response for each method.
func responses() map[string]proto.Message {
	return map[string]proto.Message{
		methodRange: &pb.RangeResponse{}, methodStream: &pb.RangeResponse{}, methodPut: &pb.PutResponse{}, methodDelete: &pb.DeleteRangeResponse{},
		methodTxn: &pb.TxnResponse{}, methodCompact: &pb.CompactionResponse{}, methodGrant: &pb.LeaseGrantResponse{},
		methodRevoke: &pb.LeaseRevokeResponse{}, methodTimeToLive: &pb.LeaseTimeToLiveResponse{}, methodLeases: &pb.LeaseLeasesResponse{},
		methodKeepAlive: &pb.LeaseKeepAliveResponse{}, methodHashKV: &pb.HashKVResponse{}, methodAlarm: &pb.AlarmResponse{},
		methodStatus: &pb.StatusResponse{}, methodDowngrade: &pb.DowngradeResponse{},
	}
}

func response(method string) proto.Message {
	if empty, ok := responses()[method]; ok {
		return empty
	}
	panic("differential: no response is known for " + method)
}

// String is the request as a person reads it; long values are cut.
func (o Op) String() string { return o.Method + " {" + clip(prototext.Format(o.Request)) + "}" }

const shownBytesMax = 4 << 10

func clip(text string) string {
	if len(text) > shownBytesMax {
		return fmt.Sprintf("%s... (%d bytes in all)", text[:shownBytesMax], len(text))
	}
	return text
}

// Outcome is what came back: a response, or an error's code and text.
type Outcome struct {
	Response proto.Message // nil after an error
	Code     codes.Code
	Text     string
	Took     time.Duration // not compared
}

// String is the outcome as a person reads it.
func (o Outcome) String() string {
	if o.Code != codes.OK {
		return fmt.Sprintf("%s: %s", o.Code, o.Text)
	}
	return clip(prototext.Format(o.Response))
}

// Do sends the request and waits for the answer.
func (o Op) Do(ctx context.Context, conn grpc.ClientConnInterface) Outcome {
	answer, began := response(o.Method), time.Now()
	var err error
	switch o.Method {
	case methodKeepAlive:
		err = keepAlive(ctx, conn, o.Request, answer)
	case methodStream:
		err = rangeStream(ctx, conn, o.Request, answer)
	default:
		err = conn.Invoke(ctx, o.Method, o.Request, answer)
	}
	if err != nil {
		s := status.Convert(err)
		return Outcome{Code: s.Code(), Text: s.Message(), Took: time.Since(began)}
	}
	return Outcome{Response: answer, Took: time.Since(began)}
}

// keepAlive sends one keepalive on a stream of its own.
func keepAlive(ctx context.Context, conn grpc.ClientConnInterface, request, answer proto.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, methodKeepAlive)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	return stream.RecvMsg(answer)
}

// rangeStream reads a streamed range to its end and merges its pages into one answer.
func rangeStream(ctx context.Context, conn grpc.ClientConnInterface, request, answer proto.Message) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, methodStream)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		page := &pb.RangeStreamResponse{}
		if err := stream.RecvMsg(page); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		proto.Merge(answer, page.GetRangeResponse())
	}
}
