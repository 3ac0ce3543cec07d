// Package wire knows how the edge's messages look as bytes: which of them pass through undecoded, what may be read from
// them without decoding, and how a watch response is put together around events that many streams share.
//
// It promises never to keep or change bytes that it is given, except where a comment says that ownership moves.
// It asks its caller to treat what a Frame or an Events value holds as read-only from the moment it is shared.
package wire
