// Package history is what clients of a cluster were told, and the checks of it: which operations were called when and what
// they answered, what each watch delivered, what became of each lease. It has no network and no clock, and it knows
// nothing of the faults that went on meanwhile: what it says is right or wrong whatever happened.
//
// The record. Every value that is put is given out once. Each operation has the times of its call and its return, and an
// outcome: done, with its response; not done, only where the error says so; or unknown. A watch has what it asked for
// and every response in the order in which it came. At least one watch must have seen everything from revision 1 on.
//
// The checks, in the order in which they lean on each other:
//
//   - the watches agree on what happened at each revision, and no revision is missing (Join);
//   - each key's create revision, version and lease follow from its events (Replay);
//   - each revision has one cause: an operation that was acknowledged with it, one of unknown outcome, or the end of a
//     lease. Nothing acknowledged is missing, nothing is done twice, nothing is done that was refused (Resolve);
//   - reads of every kind answer what the revision in their header holds, no read answers from the future, and
//     serializable reads on one connection never go back;
//   - operations in the order of their revisions respect real time (real-time order), and the whole history is
//     linearizable by a model of the key space (Linearizable);
//   - each watch is ordered, unique, reliable, atomic, bookmarkable and shows the right previous values (Watches);
//   - no lease ends before its TTL has passed since the last keepalive that was acknowledged was sent (Leases);
//   - nodes that were asked for a hash at the same revision agree (Hashes).
//
// An operation of unknown outcome needs no guess: its values are in the joined history or they are not. That is what
// keeps the linearizability check fast. Plain deletes have no value; a delete of unknown outcome may account for one
// revision at which its keys were deleted and that no other operation accounts for.
package history
