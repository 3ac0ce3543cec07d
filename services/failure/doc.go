// Package failure knows the ways in which Holdfast's parts fail, and what each looks like from outside.
//
// Inside a service an error that somebody acts on has a Kind. Make one with New or Wrap, ask with KindOf or Is. At the
// edge one table turns kinds into the errors that etcd's clients know (package rpctypes): same code, same text. That
// table is the only place where the two meet.
//
// It promises that internal text never leaves the process: a Kind that the table gives a text of etcd's goes out with
// that text alone, and an error without a kind goes out as Unknown "internal error" and into the log instead.
//
// ExitCode does the same for a process that ends.
package failure
