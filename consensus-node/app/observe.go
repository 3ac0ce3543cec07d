package app

import (
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

func (m *metrics) synced(took time.Duration) { m.walSync.Observe(took.Seconds()) }

func (m *metrics) written(bytes int, took time.Duration) {
	m.walWrite.Observe(took.Seconds())
	m.walBytes.Add(float64(bytes))
}

func (m *metrics) committed(times store.CommitTimes) {
	m.commit.Observe(times.Whole.Seconds())
	m.rebalance.Observe(times.Rebalance.Seconds())
	m.spill.Observe(times.Spill.Seconds())
	m.write.Observe(times.Write.Seconds())
}

func (m *metrics) defragmented(took time.Duration) { m.defragment.Observe(took.Seconds()) }
func (m *metrics) imaged(open time.Duration)       { m.image.Observe(open.Seconds()) }

// Command implements node.Observer.
func (m *metrics) Command(op apply.Op, failed bool, took time.Duration) {
	m.applied[op].observe(failed, took)
	if took > slowAfter {
		m.slow.Inc()
	}
}

// Applied implements node.Observer.
func (m *metrics) Applied(ops mvcc.Ops, leases []*feedv1.LeaseChange) {
	m.Ops(ops)
	for _, change := range leases {
		switch c := change.GetChange().(type) {
		case *feedv1.LeaseChange_Granted:
			m.granted.Inc()
			m.ttl.Observe(float64(c.Granted.GetTtlS()))
		case *feedv1.LeaseChange_Revoked:
			m.revoked.Add(float64(len(c.Revoked.GetIds())))
		}
	}
}

// Ops implements edge.Observer.
func (m *metrics) Ops(ops mvcc.Ops) {
	add := func(to interface{ Add(value float64) }, n int) {
		if n > 0 {
			to.Add(float64(n))
		}
	}
	add(m.ranges, ops.Ranges)
	add(m.puts, ops.Puts)
	add(m.deletes, ops.Deletes)
	add(m.txns, ops.Txns)
	add(m.putBytes, ops.PutBytes)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// CompactStep implements node.Observer.
func (m *metrics) CompactStep(took time.Duration) { m.compactPause.Observe(milliseconds(took)) }

// Compacted implements node.Observer.
func (m *metrics) Compacted(took time.Duration, dropped int) {
	m.compactTotal.Observe(milliseconds(took))
	m.compactKeys.Add(float64(dropped))
	m.compactLast.SetToCurrentTime()
}

// Installing implements node.Observer.
func (m *metrics) Installing(now bool) { m.installing.Set(truth(now)) }

// Request implements edge.Observer.
func (m *metrics) Request(kind edge.RequestKind, failed bool, took time.Duration) {
	m.requests[kind].observe(failed, took)
	if (kind == edge.RequestRange || kind == edge.RequestReadonlyTxn) && took > slowAfter {
		m.slow.Inc()
	}
}

// Ranged implements edge.Observer.
func (m *metrics) Ranged(failed bool, took time.Duration) {
	m.ranges.Inc()
	m.read.observe(failed, took)
}

// Hashed implements edge.Observer.
func (m *metrics) Hashed(keys bool, took time.Duration) {
	if keys {
		m.hashRev.Observe(took.Seconds())
		return
	}
	m.hash.Observe(took.Seconds())
}

// Promoted implements edge.Observer.
func (m *metrics) Promoted(refusal string) {
	if refusal != "" {
		m.notPromoted.WithLabelValues(refusal).Inc()
		return
	}
	m.promoted.Inc()
}
