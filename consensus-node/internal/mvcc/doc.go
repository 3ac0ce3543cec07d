// Package mvcc is the multi-version key space of a consensus node: what every
// key was at every revision that is not compacted, with the semantics, fields,
// errors and revision numbers of etcd 3.7.
//
// It is a pure core: no files, goroutines, clocks or loggers. It holds the
// index alone, that is which revisions a key has; the stored key-values are
// read through an interface (Values), and what a write changes goes out as
// data (Effects).
//
// # What it promises
//
//   - The result of a write depends only on the State, the request and the
//     answers of Leases. Two nodes that apply the same requests give the same
//     responses, revisions and effects.
//   - A request that returns a gRPC status error has changed nothing.
//   - A View never changes. It costs O(1) to take, and any goroutine may use
//     it while the writer goes on.
//   - Compaction is logical at once (Compact) and physical in bounded steps
//     (CompactStep); no answer and no hash depends on how far the steps are.
//
// # What it asks of its caller, in this order for each write
//
//  1. One goroutine at a time calls the methods of a State.
//  2. The shape of a request was checked with CheckRange, CheckPut,
//     CheckDelete or CheckTxn before it was proposed.
//  3. Effects.Writes are stored, in order, under their bucket keys
//     (AppendBucketKey), and are readable through Values before the next
//     write is applied and before a View of them is handed out.
//  4. Leases of Effects.Detach are detached first, then those of
//     Effects.Attach attached.
//  5. An error that carries no gRPC status comes from Values: storage is in
//     trouble, the State may be half-way through the request, and the process
//     must end.
//
// A View and the Values it is used with must fit each other: Values must
// still hold what CompactStep told to drop after the View was taken. A bbolt
// read transaction opened together with the View, or a check that no drop has
// been executed since, gives that. Key-values that Values returns are shared
// with responses and events and must not be changed by anybody; the same goes
// for requests once they are given to a State.
//
// # Memory
//
// A key with one revision costs its bytes (rounded up by the allocator) plus
// 96 to 120 bytes: 64 for its history, 8 for its slot, and 24 in a tree node
// that is 50 to 100% full. Each further revision that is not compacted costs 32
// bytes, up to twice that in the slack of a growing slice. A tombstone costs as
// much as a put until it is compacted, and what compaction has freed 24 bytes
// (of a million at most) until it is dropped. A put to a key that the index has copies
// no tree node; the first new key in a node after a View copies that node and
// those above it, 4 KiB in all at a million keys, and writes between two Views
// share the copies.
package mvcc
