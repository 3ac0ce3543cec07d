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
//   - Defragment writes the file anew without its free pages, while everything
//     else goes on, and puts the new file in the old one's place in one step.
//     At any crash one of the two is there, whole.
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
//     process runs: twice the space quota is a good value. SizeMax says where
//     the caller had better stop writing.
//  7. Nothing is dropped while Defragmenting, or not much: what is, is
//     remembered until the end.
//
// # Why the map must be large
//
// bbolt can move its memory map only when no read transaction is open, and
// here one always is: that of the newest generation, shared by all Readers.
// So the map never moves. Address space costs nothing until it is used; a file
// that would outgrow the map fails the commit with a clear error, and the next
// Open makes the map twice the file's size.
//
// # Why the list of free pages is a map that is not written
//
// bbolt would write the whole list with each commit: a database of 8 GiB that
// was compacted down to 1 has about two million free pages, or 14 MiB a
// commit. Left out, the list is made at Open by a walk over all pages in use,
// which a start reads anyway to build the index. And as a map by length it
// finds a run of pages at once, where the array looks from its begin on.
//
// # How a Defragment catches up
//
// The copy is made in rounds, each from one read transaction of the old file
// and in small transactions of the new one. Revisions only grow and their
// content never changes, so each round goes on behind the last revision of
// the one before; nothing has to be kept for it. The other buckets are small
// and are copied last. What commits change behind the copy's back is noted:
// drops from the begin on, rows from when their buckets are copied. Then
// commits wait, the last of it is copied, the file synced, renamed and its
// directory synced, and the next transaction for Readers is one of the new
// file. Apply does not wait for any of that: what it takes meanwhile is
// committed to the new file.
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
