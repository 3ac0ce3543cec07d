// Package framework runs the systems that the suites of this module speak to: Holdfast standalone, three standalones as a
// cluster, the split system, and a real etcd as the oracle. All of them are processes with one face, Cluster, so that one
// suite runs on each and a suite that fails on etcd is known to be wrong itself.
//
// It knows how each system is started, where its clients connect and when it is ready. It knows nothing of what a suite
// asks of it.
//
// It promises that every process it started has ended when the test ends, by its own pid and nothing else; that everything
// listens on free ports of 127.0.0.1 and stores below the test's own folder; that a Cluster is ready when it is returned;
// and that what the processes said is printed when the test fails.
//
// It asks its caller to hand the test's main to Main, which finds the programs or builds them.
package framework
