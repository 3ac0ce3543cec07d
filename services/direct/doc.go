// Package direct is the in-process binding of a gRPC contract: the same generated code that joins two processes over
// HTTP/2 joins two parts of one process without bytes in between.
//
// A Conn is both ends. Generated RegisterXServer functions register on it, and generated NewXClient functions call
// through it:
//
//	conn := direct.New("watch-hub")
//	hubpb.RegisterHubServer(conn, hub)
//	client := hubpb.NewHubClient(conn)
//
// # What is the same as over the network
//
// A program cannot tell the two bindings apart by what it may rely on. Outgoing metadata of the client's context
// arrives as incoming metadata, and nothing else of that context does (no values). The deadline and the end of the
// client's context reach the handler; the handler's return ends its context. Headers, trailers, status errors with
// their details, the peer, io.EOF at the end of a stream, CloseSend and the call options Header, Trailer, Peer and
// OnFinish behave as in gRPC. An error of a handler that is not a status arrives as Unknown, or as Canceled or
// DeadlineExceeded when it is a context's error. What a handler sent before it returned can be read before its status.
// A caller whose context ends is let go at once, even if the handler does not notice.
//
// # What differs
//
//   - Ownership. A message passed to Send, SendMsg, Invoke or returned from a unary handler belongs to the receiver from
//     then on: nothing is copied but the outermost struct, so the two sides share every slice, map and submessage. (gRPC
//     forbids changing a sent message too, but its receiver may change what it got.) Its sender and all
//     receivers must then treat what hangs on it as read-only if it was sent to several. Such a message must not be
//     marshalled while a receiver may be taking it over (sent on a real connection at the same time, say), because
//     marshalling writes a cache in it: give each kind of connection an outer message of its own.
//   - Both sides must use the same Go type for a message; anything else is codes.Internal.
//   - Message size limits, compression and codecs have no meaning here and are ignored; per-call credentials are refused
//     with codes.Internal rather than dropped.
//   - Flow control counts messages, not bytes: a sender waits once bufferMessages are unread in its direction.
//   - Only interceptors given to New run; client-side interceptors and stats handlers belong to a real connection.
//
// # What it asks of its caller
//
// As with gRPC, a client that opened a stream reads it until an error, or cancels its context; otherwise the handler
// runs on. Close ends everything and waits for the handlers.
package direct
