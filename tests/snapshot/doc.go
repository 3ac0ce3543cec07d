// Package snapshot moves whole databases between etcd and Holdfast and back, with the real programs of both, and compares every
// key, revision, lease, alarm and hash on the way; and it gives "snapshot restore" what it must refuse.
package snapshot
