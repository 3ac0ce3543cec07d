// Package follow puts the lease changes that arrive over a lossy feed into the order of their sequence, and makes one table of
// pages that were read at different sequences.
//
// It is a pure core: messages and pages come in as arguments, changes and tables go out as data.
//
// # What it promises
//
//   - Accept gives each change of the lease sequence exactly once, in order and without a gap, whatever was lost, doubled,
//     delayed or reordered; what it cannot give in order waits, up to a bound.
//   - Behind tells whether anybody said that there is more than was given.
//   - A finished Build is the lease table as of exactly one sequence.
//
// # What it asks of its caller
//
// One goroutine at a time calls the methods. When Behind stays true for longer than messages usually take, the caller
// reads the table. While it reads, it goes on to Accept what arrives.
package follow
