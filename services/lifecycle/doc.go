// Package lifecycle starts, runs and stops the parts of a process in order.
//
// A Part goes through these states and no others:
//
//	New --> Starting --> Running --> Stopping --> Stopped
//	           |            |           |
//	           +------------+-----------+-------> Failed
//
// Start makes the part usable by what comes after it, Run is its work, Stop ends the work gracefully. A Group runs parts
// in the order in which they depend on each other: each starts when those before it run, and each is stopped before
// those that it depends on. When one fails, all stop, and the Group returns that first error.
//
// It promises that a Group's Run returns only when every Start, Run and Stop has returned, or when the time to stop has
// passed; in that case its error names the parts that hang. It asks of a part that Start and Run end when their
// context does, and that Stop returns when its own context ends.
//
// Main does what every main function does around that: signals, the one line on stderr, the exit code.
package lifecycle
