// Package batch carries many calls over one stream in batches that form by credit (see services/credit), and matches
// the answers, which come in any order, to their callers.
//
// It promises that every call that Go accepted is done exactly once: with its answer, with ErrNotSent if it never left this
// process, or with ErrLost if the stream broke after it was sent, so that nobody knows what became of it. It knows neither
// the calls nor the contract: a Binding turns batches into the contract's messages.
//
// It asks its caller that Waiter.Done does not block, since one goroutine serves all the answers of a stream.
package batch
