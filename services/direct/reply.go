package direct

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// errHeaderSent answers header calls that come too late, as a gRPC server's.
func errHeaderSent() error {
	return status.Error(codes.Internal, "direct: the header was sent already")
}

// reply is the server's metadata on its way to the client. It is the grpc.ServerTransportStream behind grpc.SetHeader
// and its like.
type reply struct {
	method string

	mu       sync.Mutex
	header   metadata.MD
	trailer  metadata.MD
	sent     bool
	ended    bool
	received chan struct{} // closed once the header is final; nil for a unary call, where nobody waits for it
}

var _ grpc.ServerTransportStream = (*reply)(nil)

// Method is the full method name, "/service/method".
func (r *reply) Method() string { return r.method }

// SetHeader adds to the header until it is sent.
func (r *reply) SetHeader(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent || r.ended {
		return errHeaderSent()
	}
	r.header = metadata.Join(r.header, md)
	return nil
}

// SendHeader adds md to the header and sends it, at most once.
func (r *reply) SendHeader(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent || r.ended {
		return errHeaderSent()
	}
	r.header = metadata.Join(r.header, md)
	r.sendLocked()
	return nil
}

// SetTrailer adds to the trailer until the handler returns.
func (r *reply) SetTrailer(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return errHeaderSent()
	}
	r.trailer = metadata.Join(r.trailer, md)
	return nil
}

// flush sends the header with the first message, if SendHeader has not.
func (r *reply) flush() {
	r.mu.Lock()
	if !r.sent && !r.ended {
		r.sendLocked()
	}
	r.mu.Unlock()
}

func (r *reply) sendLocked() {
	r.sent = true
	if r.header == nil {
		r.header = metadata.MD{}
	}
	if r.received != nil {
		close(r.received)
	}
}

// end closes the reply when the handler has returned. A header that was set but not sent goes out, as in gRPC; with
// none the client sees a reply of trailers only.
func (r *reply) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if r.sent {
		return
	}
	if r.header.Len() > 0 {
		r.sendLocked()
	} else if r.received != nil {
		close(r.received)
	}
}

// seen gives what the client may see now: the header once it is sent, the trailer once the call has ended. The client
// gets copies that it may keep and change.
func (r *reply) seen() (header, trailer metadata.MD) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		header = r.header.Copy()
	}
	if r.ended {
		trailer = r.trailer.Copy()
	}
	return header, trailer
}

// checkOptions refuses the call options that ask for something this binding cannot give and must not drop.
func checkOptions(opts []grpc.CallOption) error {
	for _, opt := range opts {
		if _, ok := opt.(grpc.PerRPCCredsCallOption); ok {
			return status.Error(codes.Internal, "direct: per-call credentials are not supported in process")
		}
	}
	return nil
}

// finish fills in what the call options ask for at the end of a call.
func finish(opts []grpc.CallOption, r *reply, p *peer.Peer, err error) {
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			*opt.HeaderAddr, _ = r.seen()
		case grpc.TrailerCallOption:
			_, *opt.TrailerAddr = r.seen()
		case grpc.PeerCallOption:
			*opt.PeerAddr = *p
		case grpc.OnFinishCallOption:
			opt.OnFinish(err)
		}
	}
}
