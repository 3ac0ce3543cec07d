// Package quota says what a request may add to the database and whether there is room for it, as etcd 3.7 does
// (server/storage/quota.go): the costs, the default and the bounds are etcd's.
//
// It is a pure core: sizes come in as arguments. It is asked before a write is proposed, never by apply: the sizes of
// files differ between nodes, and what is in the log is applied the same everywhere.
//
// # What counts
//
// etcd counts the size of its file, free pages included, so that a cluster that ran out of space needs a defragment after
// its compaction. Here the quota bounds the bytes in use: pages that a compaction freed are used again, so room is there as
// soon as they are free. What the file may grow to beyond that, for pages that are free but do not fit or that a reader
// still holds, is bounded too (Usage.FileMax), since the file must not outgrow its memory map.
package quota

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// DefaultBytes is the quota where none is given: 2 GiB.
	DefaultBytes = 2 << 30
	// SuggestedMaxBytes is where etcd begins to warn: 8 GiB.
	SuggestedMaxBytes = 8 << 30
)

// What etcd reckons for the metadata of a key and for a lease, in bytes.
const (
	keyOverhead   = 256
	leaseOverhead = 64
)

// Bytes gives the quota that a --quota-backend-bytes means: 0 is the default; negative, returned as it is, means none.
func Bytes(flag int64) int64 {
	if flag == 0 {
		return DefaultBytes
	}
	return flag
}

// Put is what a put may add, in bytes.
func Put(r *pb.PutRequest) int64 {
	return keyOverhead + int64(len(r.GetKey())) + int64(len(r.GetValue()))
}

// Txn is what the costlier branch of a transaction may add, in bytes; 0 if it holds no put.
func Txn(r *pb.TxnRequest) int64 { return max(branch(r.GetSuccess()), branch(r.GetFailure())) }

// Grant is what a lease may add, in bytes.
func Grant() int64 { return leaseOverhead }

func branch(ops []*pb.RequestOp) (bytes int64) {
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil {
			bytes += Put(put)
		}
		if txn := op.GetRequestTxn(); txn != nil {
			bytes += Txn(txn)
		}
	}
	return bytes
}

// Usage is how full a node is.
type Usage struct {
	// InUse is the size of the database without its free pages, with what waits to be written. File includes them.
	InUse, File int64
	// FileMax is what the file may grow to; 0: no bound.
	FileMax int64
	// DiskFull tells that the disk has no room for a further segment of the log.
	DiskFull bool
}

// Fits tells whether a request of a cost fits. What costs nothing always does. quota is negative for none.
func (u Usage) Fits(quota, cost int64) bool {
	if cost == 0 {
		return true
	}
	return !u.DiskFull && (quota < 0 || below(u.InUse, cost, quota)) && (u.FileMax == 0 || below(u.File, cost, u.FileMax))
}

// Full tells whether not even the smallest write fits, so that the node need not wait for one to say so.
func (u Usage) Full(quota int64) bool { return !u.Fits(quota, 1) }

func below(size, cost, bound int64) bool { return size < math.MaxInt64-cost && size+cost < bound }
