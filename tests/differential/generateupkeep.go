package differential

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// upkeep is a call of an operator: alarms, with what they forbid, the status, and downgrades.
func (g *Generator) upkeep() Op {
	switch g.rng.IntN(4) {
	case 0:
		return Op{methodStatus, &pb.StatusRequest{}}
	case 1:
		return g.downgrade()
	case 2:
		return Op{methodAlarm, g.alarmRequest(pb.AlarmRequest_GET)}
	default:
		return g.alarm()
	}
}

// alarmRequest is in the name of any member: alarms count also of one that does not exist.
func (g *Generator) alarmRequest(action pb.AlarmRequest_AlarmAction) *pb.AlarmRequest {
	r := &pb.AlarmRequest{
		Action: action, MemberID: pick(g.rng, []uint64{0, 1, 2, math.MaxUint64}),
		Alarm: pg(g, pb.AlarmType_NONE, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT),
	}
	if g.chance(4) {
		r.Alarm = 7
	}
	return r
}

// alarm raises an alarm, makes some requests under it, and takes all alarms back: nothing may stay that stops the run.
func (g *Generator) alarm() Op {
	raise := g.alarmRequest(pb.AlarmRequest_ACTIVATE)
	for range 2 + g.rng.IntN(12) {
		switch g.rng.IntN(9) {
		case 0:
			g.queued = append(g.queued, Op{methodRange, g.rangeRequest()})
		case 1, 2:
			g.queued = append(g.queued, Op{methodPut, g.put()})
		case 3:
			g.queued = append(g.queued, Op{methodDelete, g.deleteRange()})
		case 4, 5:
			g.queued = append(g.queued, Op{methodTxn, g.txn(0)})
		case 6:
			g.queued = append(g.queued, pg(g,
				Op{methodRevoke, &pb.LeaseRevokeRequest{ID: g.lease()}}, Op{methodKeepAlive, &pb.LeaseKeepAliveRequest{ID: g.lease()}},
				Op{methodTimeToLive, &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: true}},
				Op{methodGrant, &pb.LeaseGrantRequest{ID: g.rng.Int64N(1000) + 1, TTL: longTTLS}}))
		case 7:
			g.queued = append(g.queued, pg(g,
				Op{methodStatus, &pb.StatusRequest{}}, Op{methodAlarm, g.alarmRequest(pb.AlarmRequest_GET)},
				Op{methodHashKV, &pb.HashKVRequest{Revision: g.revision()}},
				Op{methodCompact, &pb.CompactionRequest{Revision: g.revision()}}))
		default:
			g.queued = append(g.queued, Op{methodStream, g.rangeRequest()})
		}
	}
	lift := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: raise.MemberID, Alarm: raise.Alarm}
	g.queued = append(g.queued,
		Op{methodAlarm, g.alarmRequest(pb.AlarmRequest_DEACTIVATE)}, Op{methodAlarm, lift},
		Op{methodAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_GET}})
	return Op{methodAlarm, raise}
}

// downgrade asks what may be gone to, begins it, or cancels what was never begun.
func (g *Generator) downgrade() Op {
	return Op{methodDowngrade, &pb.DowngradeRequest{
		Action:  pg(g, pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL, 7),
		Version: pg(g, "", "3", "3.6", "3.6.0", "3.6.13", "3.7", "3.7.0", "3.5.0", "3.8.1", "4.0.0", "x.y.z", "-1.2.3"),
	}}
}
