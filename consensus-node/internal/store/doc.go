// Package store is the database file of one consensus node: a bbolt file in
// etcd's bucket and key schema, with what is ours in buckets that begin with
// "holdfast_". It knows nothing of keys and their meaning; package mvcc does.
//
// # What it promises
//
//   - Apply does not wait for the disk. What it took is visible to every
//     Reader opened after it returned, and a committer goroutine writes it to
//     bbolt behind it, many entries in one transaction.
//   - A transaction ends only at an entry boundary and holds the index, term
//     and ConfState of the last entry it covers. So at any crash the file is
//     the result of a prefix of the log, and says which.
//   - Durable is the index up to which the file is fsynced. The log may be cut
//     at or below it and nowhere else.
//   - A Reader is an immutable picture of committed and uncommitted changes.
//     Neither taking nor using it takes a lock that the writer holds.
//   - An Image is one bbolt transaction; its index, term and ConfState are
//     read inside it.
//   - A failed commit or fsync is final: it goes to OnFailure once, and every
//     later call that writes returns it. Nothing is tried again, since after a
//     failed fsync the kernel may count lost pages as clean.
//
// # What it asks of its caller
//
//  1. One goroutine calls Apply and Install, and no two at a time.
//  2. The process holds a lock on the data directory before Open creates a
//     file in it. (An existing file is locked by Open itself.)
//  3. Proposals are refused while Pressure is 1 or more: Apply then blocks
//     until the committer has caught up.
//  4. Readers are closed, and soon. One that stays open keeps every page alive
//     that was freed since, and the records that were uncommitted when it was
//     opened: the file and the memory grow. Who publishes a Reader for others
//     takes a new one after each OnDurable, also when no entries come.
//  5. The process ends after OnFailure.
//  6. Options.MapBytes exceeds what the file may ever grow to while the
//     process runs: twice the space quota is a good value.
//
// # Why the map must be large
//
// bbolt can move its memory map only when no read transaction is open, and
// here one always is: that of the newest generation, shared by all Readers.
// So the map never moves. Address space costs nothing until it is used; a file
// that would outgrow the map fails the commit with a clear error, and the next
// Open makes the map twice the file's size.
//
// # How a Reader sees what is not committed
//
// Revisions only grow, so uncommitted changes form sorted slices that are only
// appended to: one that the committer is writing and one that Apply fills.
// Apply publishes the slice headers, with the shared bbolt transaction, through
// an atomic pointer. A Reader holds such headers; what is appended later lies
// beyond its length. After a commit a new transaction is opened and published
// without the slice that it now contains. The old one closes with its last
// Reader.
package store
