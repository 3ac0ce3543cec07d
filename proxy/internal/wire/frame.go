package wire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/holdfastdb/holdfast/services/buffers"
)

// Frame is one gRPC message that is passed on as it is. A received frame owns its bytes; the bytes of a frame that is sent
// must not change afterwards. Several slices are one message: concatenated protobuf fields are valid wire.
type Frame struct {
	// Data is the message of a received frame, and the first part of a sent one.
	Data []byte
	// Shared follows Data when the frame is sent.
	Shared [][]byte
	// Buffers, if not nil, gets Data when that is sent and is long.
	Buffers *buffers.Pool
}

// Counter counts bytes.
type Counter interface{ Add(bytes float64) }

// Codec is the server's codec: frames pass through, every other message goes to the codec that gRPC would have used.
type Codec struct {
	proto          encoding.CodecV2
	sent, received Counter
}

var _ encoding.CodecV2 = Codec{}

// NewCodec makes a codec in front of another one, normally encoding.GetCodecV2("proto"). It counts the bytes of all messages.
func NewCodec(proto encoding.CodecV2, sent, received Counter) Codec {
	return Codec{proto: proto, sent: sent, received: received}
}

// Name is the name of the codec behind it, so that the content type on the wire stays the usual one.
func (c Codec) Name() string { return c.proto.Name() }

// Marshal gives the frame's parts without copying them.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	frame, ok := v.(*Frame)
	if !ok {
		out, err := c.proto.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("wire: %w", err)
		}
		c.sent.Add(float64(out.Len()))
		return out, nil
	}
	out := make(mem.BufferSlice, 0, 1+len(frame.Shared))
	switch {
	case frame.Buffers != nil && buffers.Lent(len(frame.Data)):
		out = append(out, mem.NewBuffer(&frame.Data, frame.Buffers))
	case len(frame.Data) > 0:
		out = append(out, mem.SliceBuffer(frame.Data))
	}
	for _, part := range frame.Shared {
		if len(part) > 0 {
			out = append(out, mem.SliceBuffer(part))
		}
	}
	c.sent.Add(float64(out.Len()))
	return out, nil
}

// Unmarshal copies the received bytes once: gRPC takes its buffers back when this returns.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	c.received.Add(float64(data.Len()))
	frame, ok := v.(*Frame)
	if !ok {
		if err := c.proto.Unmarshal(data, v); err != nil {
			return fmt.Errorf("wire: %w", err)
		}
		return nil
	}
	frame.Data = data.Materialize()
	return nil
}
