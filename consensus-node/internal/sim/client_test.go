package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// operation is one attempt of a client's call.
type operation struct {
	number  uint64 // the call's; attempts that surely were not made are made again under it
	client  *client
	on      *machine
	run     uint64
	command *journalv1.Command // of a write
	read    *raftnode.Read     // of a linearizable read
	local   bool               // a serializable read
	wanted  uint64             // read index
	known   bool
	least   uint64 // everything up to this index was known to be there when the attempt began
	until   uint64 // when the client gives a read up
}

// result is what a client is told of a write.
type result struct {
	op      *operation
	outcome propose.Outcome
}

// client makes one call at a time.
type client struct {
	w      *world
	number int
	at     uint64 // not before
	op     *operation
	again  *journalv1.Command // a write that surely was not made
	call   uint64
	probed bool // a write was acknowledged since the cluster was healed
}

func (c *client) idle() bool { return c.op == nil }

func (c *client) next() uint64 {
	switch {
	case c.op == nil:
		return c.at
	case c.op.command == nil:
		return c.op.until
	}
	return math.MaxUint64
}

func (c *client) step() bool {
	switch {
	case c.op == nil:
		if c.w.now < c.at || c.w.healed && c.probed {
			return false
		}
		c.invoke()
		return true
	case c.op.command == nil:
		return c.readStep()
	}
	return false
}

// target is where the call goes: mostly to who leads, as it seems.
func (c *client) target() *machine {
	w := c.w
	var up, leaders []*machine
	for _, m := range w.members {
		if !m.up {
			continue
		}
		up = append(up, m)
		if m.raft.Status().Leader == m.id {
			leaders = append(leaders, m)
		}
	}
	switch {
	case len(leaders) > 0 && w.rng.Float64() >= w.faults.Anywhere:
		return leaders[w.rng.IntN(len(leaders))]
	case len(up) > 0:
		return up[w.rng.IntN(len(up))]
	}
	return nil
}

func (c *client) invoke() {
	w := c.w
	c.at = w.now + 1 + w.rng.Uint64N(tickMoments/2)
	m := c.target()
	if m == nil {
		return
	}
	op := &operation{client: c, on: m, run: m.run, least: w.check.known}
	c.op = op
	switch {
	case c.again != nil:
		op.number, op.command = c.call, c.again
	case !w.healed && w.rng.IntN(3) == 0:
		c.startRead(op)
		return
	default:
		w.operations++
		c.call = w.operations
		op.number = c.call
		op.command = c.write()
	}
	c.again = nil
	op.command.SpanContext = binary.BigEndian.AppendUint64(nil, op.number) // travels with the command, and apply does not look at it
	w.note(m, evInvoke, op.number, 0, 0)
	m.packable = true
	m.packer.Submit(propose.Write{Command: op.command, Exclusive: w.rng.IntN(20) == 0, Done: func(o propose.Outcome) {
		w.check.tells(op, o)
		w.done = append(w.done, result{op, o})
	}})
}

func (c *client) startRead(op *operation) {
	w := c.w
	w.operations++
	op.number = w.operations
	op.local = w.rng.IntN(4) == 0
	op.until = w.now + uint64(w.rng.IntN(4*w.faults.ElectionTicks))*tickMoments
	if !op.local {
		op.read = op.on.stepper.JoinRead()
	}
	w.note(op.on, evInvoke, op.number, 1, boolNumber(op.local))
}

// readStep carries a read on.
func (c *client) readStep() bool {
	op, w := c.op, c.w
	m := op.on
	if w.now >= op.until {
		if op.read != nil {
			op.read.Leave()
		}
		w.note(m, evReturn, op.number, 9, 0)
		c.op = nil
		return true
	}
	if w.now < m.pausedUntil {
		return false
	}
	if !op.local {
		if !op.known {
			if w.mutation == readAtOnce {
				op.wanted, op.known = m.raft.Status().Commit, true
			} else if op.wanted, op.known = op.read.Index(); !op.known {
				return false
			}
		}
		if m.raft.Status().Applied < op.wanted && w.mutation != readBeforeApplied {
			return false
		}
	}
	view, err := m.node.Current()
	if err != nil {
		w.fail("%v: no view: %v", m, err)
	}
	w.note(m, evRead, op.number, view.Index, 0)
	w.check.read(op, view)
	view.Release()
	if op.read != nil {
		op.read.Leave()
	}
	c.op = nil
	return true
}

// unknown says whether an error leaves open what came of a write.
func unknown(err error) bool {
	return errors.Is(err, rpctypes.ErrGRPCTimeout) || errors.Is(err, rpctypes.ErrGRPCTimeoutDueToLeaderFail) || errors.Is(err, rpctypes.ErrGRPCStopped)
}

// returned is told what came of the write.
func (c *client) returned(r result) {
	w, op := c.w, r.op
	if c.op != op {
		return // its process ended meanwhile
	}
	c.op = nil
	if w.mutation == unknownIsRefused && unknown(r.outcome.Err) {
		r.outcome.NotProposed = true
	}
	switch {
	case r.outcome.NotProposed:
		w.note(op.on, evReturn, op.number, 2, 0)
		w.check.refused(op)
		c.at = w.now + 1 + w.rng.Uint64N(tickMoments)
		c.again = proto.CloneOf(op.command)
		c.again.Id = 0
		if w.rng.IntN(4) == 0 {
			c.again = nil // never mind
		}
	case unknown(r.outcome.Err):
		w.note(op.on, evReturn, op.number, 3, 0)
	default:
		index := w.check.acknowledged(op, r.outcome.Outcome)
		w.note(op.on, evReturn, op.number, 1, index)
		c.probed = w.healed && op.least >= w.check.healedAt
	}
}

// abandoned is told that a process ended.
func (c *client) abandoned(m *machine) {
	if c.op != nil && c.op.on == m && c.op.run == m.run {
		c.w.note(m, evReturn, c.op.number, 4, 0)
		c.op = nil
	}
}

// write draws a command over few keys and leases.
func (c *client) write() *journalv1.Command {
	w := c.w
	put := func() *pb.PutRequest {
		value := fmt.Sprint(c.call, strings.Repeat("v", w.rng.IntN(1<<w.rng.IntN(9))))
		req := &pb.PutRequest{Key: c.key(), Value: []byte(value), PrevKv: w.rng.IntN(3) == 0}
		if w.rng.IntN(6) == 0 {
			req.Lease = int64(1 + w.rng.IntN(5))
		}
		return req
	}
	command := &journalv1.Command{}
	switch w.rng.IntN(16) {
	case 0, 1:
		command.Command = &journalv1.Command_DeleteRange{DeleteRange: encoded(&pb.DeleteRangeRequest{Key: c.key(), PrevKv: true})}
	case 2, 3, 4:
		key := c.key()
		first := put()
		first.Key = key
		command.Command = &journalv1.Command_Txn{Txn: encoded(&pb.TxnRequest{
			Compare: []*pb.Compare{{
				Key: key, Target: pb.Compare_MOD, Result: pb.Compare_LESS,
				TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(w.rng.IntN(100))},
			}},
			Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: first}}},
			Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
		})}
	case 5:
		rev := w.check.oracle.View().KV.Revision() - int64(w.rng.IntN(20))
		command.Command = &journalv1.Command_Compact{Compact: encoded(&pb.CompactionRequest{Revision: max(1, rev)})}
	case 6, 7:
		req := &pb.LeaseGrantRequest{ID: int64(1 + w.rng.IntN(5)), TTL: int64(10 + w.rng.IntN(90))}
		command.Command = &journalv1.Command_LeaseGrant{LeaseGrant: encoded(req)}
	case 8:
		command.Command = &journalv1.Command_LeaseRevoke{LeaseRevoke: encoded(&pb.LeaseRevokeRequest{ID: int64(1 + w.rng.IntN(5))})}
	default:
		command.Command = &journalv1.Command_Put{Put: encoded(put())}
	}
	return command
}

func (c *client) key() []byte { return []byte{'a' + byte(c.w.rng.IntN(8))} }

func encoded(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
