// Package workload is clients of a cluster that write down what they were told: key-value clients, lease clients, watchers, a
// compactor. It knows nothing of faults, and nothing of what the record is held against: package history does that.
//
// It promises that each operation is in the record once it has returned, with an outcome that is no guess: an operation
// counts as not done only where the error says that it was refused. It promises that no value is ever put twice, and that
// keys which hang on a lease are changed by the lease's client alone.
//
// It asks for a cluster that is new and that nobody else writes to.
package workload
