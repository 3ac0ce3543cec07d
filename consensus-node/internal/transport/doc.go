// Package transport carries raft messages and database images between the members of a cluster, over the gRPC service
// holdfast.peer.v1.Peer.
//
// # What it promises
//
//   - [Transport.Send] never waits. What cannot be queued for a member (unreachable, or its queue is full) is dropped and reported to
//     the node: raft sends it again when it matters. Memory per member is bounded, whatever the member does: at most 64 MiB of
//     appends and 4 MiB of other messages wait, at most 8 MiB and one message are on their way on each of the two streams, and an image
//     takes two chunks of 512 KiB. A member that is not connected holds nothing.
//   - Log appends to a member arrive in order or not at all; all other messages travel beside them on a stream of their own, so that a
//     heartbeat never waits behind a large append.
//   - Both ends check who they talk to before anything else: cluster, member and protocol version. A wrong one is refused with
//     FailedPrecondition and a text that says what was expected, one that was removed with PermissionDenied. Who refuses and who is
//     refused log it once, and once a minute while it goes on, however often it is tried.
//   - A member that was removed is told so at its hello, or when it is evicted: it need not see the entry that removed it.
//   - A hello says where its sender listens, so that a receiver whose member list is behind can answer ([Config.OnHello]).
//   - An image reaches the node only whole: length, a running CRC-32C and a SHA-256 over all of it fit, and file and name are durable.
//     A stream that breaks or stalls midway leaves nothing behind; the next attempt begins anew, with the database as it is then.
//   - All images together are sent at no more than Config.SnapshotBytesPerSecond, as a token bucket with a burst of 2 MiB.
//
// # What it asks of its caller
//
//   - A [Transport] is bound to its node with [Transport.Start] before the node runs, and closed after it has ended.
//   - The [Server] is registered on a gRPC server that takes messages of [ServerMessageBytes] for the largest request allowed.
//   - Who is a peer, and at which URLs, is told with AddPeer, UpdatePeer and RemovePeer as membership changes are applied.
//   - The directory for images is on the file system of the database, and cleaned with raftnode.RemoveIncoming at the start.
package transport
