// Package watchsim runs real watch-hubs and real proxies before a model of the consensus tier, in a bubble with its own time:
// an hour of faults takes minutes. Between them lie a bus that loses, repeats, delays and reorders, and lines that can be
// held; before the proxies are clients that ask for everything a watch can be asked for, and read at their own pace.
//
// What each watch was told is held against the model's history at once: every change that it asked for comes once, in order,
// whole, with its previous value, and nothing comes at or below a revision that a progress notice named. A watch ends as
// compacted only where it stood below the compact revision. A client's stream ends only with its proxy. And nothing goes
// silent: while a fault lasts that must change latency alone, and after every fault, all that was written arrives.
//
//	go test ./tests/watchsim                        some fixed seeds
//	go test ./tests/watchsim -seed=42 -v            one seed
//	go test ./tests/watchsim -duration=10m          other seeds, as long as the machine is wanted for it
//
// A seed fixes the faults, their order and what clients ask; the goroutines inside take their own turns, so that it makes a failure
// likely to come again, not certain.
package watchsim
