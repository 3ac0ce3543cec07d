// Package wal is the raft log on disk: entries, hard state and snapshot marks of one node, in a directory of its own.
//
// # What it promises
//
//   - What Append wrote with sync, and what MarkSnapshot and Confirm wrote, is there after any crash once the call has returned
//     nil; so is all that was appended before it. What was appended without sync may be missing after a power cut, but only from
//     the end: what Open returns is always the result of the first n calls, never of the 1st and the 3rd.
//   - Open tells a torn tail from damage. A power cut in the middle of an append leaves a torn tail, which is cut silently. Anything
//     else is a [DamageError] that names the file, the offset and what survives; Open then changes nothing.
//   - A write or sync that fails ends the use of the Log: it returns that error from every later call. Nothing is tried again on
//     pages that the kernel may have dropped. Open writes the unconfirmed end again before it counts it as durable, since the
//     page cache may show bytes that a failed sync of the last process never brought to the disk.
//
// # What it asks of its caller
//
//   - One Append per batch of work: all of it is one group, one write and at most one sync. The caller gathers what waits.
//   - sync is false only where raft does not wait for durability: a hard state that differs in the commit index alone.
//   - At the first error the process ends, with no further call but Close.
//   - Prepare, from another goroutine, whenever Wanted says so: else a rotation makes the next segment's file while appends wait.
//   - Confirm after a quiet moment (some 100 ms without an append), so that the last group is guarded against rot as well.
//   - MarkSnapshot(m) only when the database, or a received image under a name that the next start finds, holds all up to
//     m.Index durably; then Release(index) as far as followers allow.
//   - The hard state's commit index may lag behind what was applied: the caller starts with the larger of it and the database's
//     consistent index, and refuses a consistent index beyond the last entry.
//
// # Format, version 1
//
// All integers are little-endian. The directory holds segments named by sequence number (16 hex digits and ".log"), spares
// ("*.spare", content without meaning), unfinished files ("*.tmp") and LOCK. A segment has a fixed, preallocated size:
//
//	header (128 bytes): magic, version, cluster, node, incarnation, sequence, salt, size, length of the opening group,
//	                    end and checksum of the segment before, CRC32C
//	opening group:      the last index, the hard state and the snapshot mark as they stood when the segment began
//	groups, back to back, each starting at a multiple of 8
//	seal:               an empty group that ends a full segment
//
// A group is a header of 48 bytes (magic, kind, sequence, own offset, offset known durable when it was written, length of its
// records, checksum chained so far, number of records, own CRC32C) and records. A record is CRC32C, length, type, payload and
// zeros up to a multiple of 8. Each record's CRC32C continues that of the bytes before it, from the segment's header on, so that
// a record counts only in its place. A group counts whole or not at all. The salt is random per segment and starts every CRC32C
// in it: neither the old bytes of a recycled file nor bytes that a user stored in a value can pass for a group.
//
// # Tear or damage
//
// Groups that were not synced together may reach the disk in any order, so a bad record that is followed by good ones proves
// nothing. A claim does: every group states how far the segment was durable when it was written. A bad record is damage exactly
// if a later intact group of the segment claims durability beyond it; otherwise the log ends there. The opening group is claimed by the
// segment's header, and all of a segment before the last by the header of the one after it and by its own seal.
//
// A new segment is written and synced in full under a temporary name, then renamed; only then is the old one sealed. So a named
// segment with a bad header is damage, as is a sealed segment without a successor. A missing seal is mended if the successor is
// still empty, and damage otherwise.
package wal
