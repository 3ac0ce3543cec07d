// Package fault kills the processes of the split system one after the other, with SIGKILL, while clients write, watch and
// hold leases, and then asks what each promise says: no acknowledged write is missing, every watcher has seen every
// revision once and in order, leases that are kept live and others go, and the nodes agree.
//
// The workload knows nothing of what is asked afterwards: it only writes down what clients were told. The checks are
// functions of that record.
package fault
