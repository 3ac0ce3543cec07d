// Package catchup takes members of real clusters away, writes what their log no longer reaches, and brings them back: they must
// hold the same as the others, and whoever watches through them must have seen everything once and in order. It also kills the
// sender and the receiver of a snapshot while it is under way.
package catchup
