package main

import (
	"math/bits"
	"time"
)

// subBuckets is how finely a histogram divides each power of two: a quantile is at most 1/subBuckets above the truth.
const subBuckets = 64

// histogram counts durations in buckets that grow with the duration. The zero value is empty.
type histogram struct {
	counts [(64 - 6) * subBuckets]uint64
	total  uint64
}

// bucketOf is the bucket of a duration in nanoseconds: the first subBuckets hold one value each.
func bucketOf(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - bits.Len64(subBuckets)
	return shift*subBuckets + int(ns>>shift)
}

// topOf is the largest duration that falls in the bucket.
func topOf(bucket int) uint64 {
	if bucket < 2*subBuckets {
		return uint64(bucket)
	}
	shift := bucket/subBuckets - 1
	return uint64(bucket-shift*subBuckets+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

// quantile is the duration that a share q of all, above 0 and at most 1, does not exceed; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank, seen := uint64(q*float64(h.total)+0.5), uint64(0)
	rank = max(rank, 1)
	for bucket, count := range h.counts {
		if seen += count; seen >= rank {
			return time.Duration(topOf(bucket))
		}
	}
	return time.Duration(topOf(len(h.counts) - 1))
}
