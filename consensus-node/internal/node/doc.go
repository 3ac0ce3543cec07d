// Package node joins the parts of a consensus node: it applies committed entries to the replicated state, stores what they
// change, publishes an immutable view for readers, tells the outbox, and answers linearizable reads.
//
// # What it promises
//
//   - An entry is applied once: entries at or below the database's consistent index are passed over.
//   - A write's outcome is handed out only after a view that holds it was published and the feed has it.
//   - Linearize gives a view that holds everything acknowledged anywhere before the call.
//   - A View never changes and blocks no writer.
//   - Who waits for outcomes is told of every term and of every jump of the state, so that lost proposals do not wait.
//
// # The order of one round of apply
//
//	entries -> Machine.Apply (memory) -> Store.Apply (memory, commit behind) -> publish the view -> outbox -> outcomes
//
// # What it asks of its caller
//
// Views are released, and soon. Run ends before the store is closed.
package node
