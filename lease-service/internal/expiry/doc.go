// Package expiry holds the clocks of leases: which lease runs out when, and what is being done about it.
//
// It is a pure core: time comes in as an argument and nothing goes out but data. It knows every lease of the table, those
// that others own too, so that a lease whose owner goes away is taken over without asking anybody. A lease takes about 100
// bytes.
//
// # States
//
//	Foreign --Start--> Live --Due--> Deciding --Settle--> Gone
//	   ^                |  ^             |
//	   |               Stop Resume    Undecide
//	   |                v  |             |
//	   +----Drop-----  Stopped  <--------+--> Live
//
// A clock runs in Live alone. Deciding lasts from the decision to expire until its outcome is known: its deadline can no longer
// move. Stopped is a lease that a client revokes. Gone is revoked, as its outcome said, and waits to be told so in sequence.
//
// # What it promises
//
//   - A deadline never moves to an earlier time while a clock runs or decides. A lease that is granted anew under the id of
//     another inherits nothing of it.
//   - Due never gives a lease whose deadline has not passed. Many that are overdue it gives in the order of the consensus tier's table.
//   - Renewing costs O(1): the heap is put in order when an old deadline comes up, not when it moves.
//   - Rests gives a lease whose true rest has fallen below the table's by a checkpoint's worth, soon after that.
//
// # What it asks of its caller
//
// One goroutine at a time calls the methods. Deadlines saturate: Deadline adds a TTL to a time without overflow.
package expiry
