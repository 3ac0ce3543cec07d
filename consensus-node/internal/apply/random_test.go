package apply_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: HOLDFAST_SEED, or the time")

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d (run again with -seed or HOLDFAST_SEED)", s)
		}
	})
	return s
}

// node is a machine with its database.
type node struct {
	m  *apply.Machine
	db *database
}

func newNode() *node { return &node{m: apply.New(), db: newDatabase()} }

func (n *node) apply(t *testing.T, e *journalv1.Entry) apply.Result {
	t.Helper()
	res, err := n.m.Apply(n.m.Index()+1, 1, e, n.db)
	require.NoError(t, err)
	n.db.store(t, res.Batch)
	return res
}

func (n *node) compact(t *testing.T, limit int) (done bool) {
	t.Helper()
	b, done := n.m.CompactStep(limit)
	n.db.store(t, b)
	return done
}

func (n *node) compactAll(t *testing.T) {
	t.Helper()
	for n.m.Compacting() {
		n.compact(t, 100)
	}
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	before := viewText(n.m.View())
	waits := n.m.Waits
	var err error
	n.m, err = apply.Restore(n.db)
	require.NoError(t, err)
	n.m.Waits = waits
	require.Equal(t, before, viewText(n.m.View()))
}

// TestNodesAgree feeds the same random entries to three nodes: one that runs
// through and compacts at once, one that restarts and compacts whenever chance
// says, and one on which nobody waits for outcomes. All must store the same
// bytes for each entry and publish the same, and in the end hold the same.
func TestNodesAgree(t *testing.T) {
	s := seed(t)
	for round := range uint64(4) {
		t.Run(fmt.Sprintf("round%d", round), func(t *testing.T) {
			g := &generator{Rand: rand.New(rand.NewPCG(s, round))}
			nodesAgree(t, g, rand.New(rand.NewPCG(s, round+1000)))
		})
	}
}

func nodesAgree(t *testing.T, g *generator, chance *rand.Rand) {
	t.Helper()
	steady, restless, silent := newNode(), newNode(), newNode()
	silent.m.Waits = func(uint64) bool { return false }
	sequence, revision := uint64(0), int64(1)
	var old *apply.View
	var oldText string
	for range 400 {
		if g.IntN(15) == 0 {
			membersAgree(t, g, steady, restless, silent)
		}
		e := g.entry(steady.m.View())
		res := steady.apply(t, e)
		steady.compactAll(t)
		again := restless.apply(t, e)
		unseen := silent.apply(t, e)
		require.Equal(t, batchText(res.Batch), batchText(again.Batch))
		require.Equal(t, batchText(res.Batch), batchText(unseen.Batch))
		require.Equal(t, resultText(res), resultText(again))
		require.Len(t, unseen.Revisions, len(res.Revisions))
		for _, change := range res.LeaseChanges {
			sequence++
			require.Equal(t, sequence, change.Sequence, "the lease sequence has no gap")
		}
		for _, rev := range res.Revisions {
			revision++
			require.Equal(t, revision, rev.Revision, "revisions have no gap")
		}
		checkAttached(t, steady)
		if chance.IntN(10) == 0 {
			restless.restart(t)
		}
		if chance.IntN(3) == 0 {
			restless.compact(t, 1+chance.IntN(5))
		}
		if chance.IntN(20) == 0 {
			if old != nil {
				require.Equal(t, oldText, viewText(old), "a view never changes")
			}
			old, oldText = steady.m.View(), viewText(steady.m.View())
		}
	}
	restless.compactAll(t)
	silent.compactAll(t)
	require.Equal(t, steady.db.content(), restless.db.content())
	require.Equal(t, steady.db.content(), silent.db.content())
	require.Equal(t, viewText(steady.m.View()), viewText(restless.m.View()))
	require.Equal(t, viewText(steady.m.View()), viewText(silent.m.View()))
}

// membersAgree applies a random configuration change to all nodes.
func membersAgree(t *testing.T, g *generator, nodes ...*node) {
	t.Helper()
	g.id++
	cc, err := member.ConfChange(member.Kind(1+g.IntN(4)), &journalv1.MemberContext{
		Id: g.id, MemberId: uint64(1 + g.IntN(12)), Learner: g.flip(),
		PeerUrls: []string{fmt.Sprintf("http://h:%d", g.IntN(12))},
	})
	require.NoError(t, err)
	var want string
	for i, n := range nodes {
		res, err := n.m.ApplyConf(n.m.Index()+1, 1, cc)
		require.NoError(t, err)
		n.db.store(t, res.Batch)
		var out strings.Builder
		writeOutcome(&out, res.Outcome)
		got := out.String() + batchText(res.Batch)
		if i == 0 {
			want = got
		}
		require.Equal(t, want, got)
	}
}

// checkAttached compares what the lease table says with what the keys say.
func checkAttached(t *testing.T, n *node) {
	t.Helper()
	v, want := n.m.View(), map[int64][][]byte{}
	all, err := v.KV.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, n.db)
	require.NoError(t, err)
	for _, kv := range all.Kvs {
		if kv.Lease != 0 {
			want[kv.Lease] = append(want[kv.Lease], kv.Key)
		}
	}
	leases, more := v.Leases.Page(0, 1000)
	require.False(t, more)
	for _, l := range leases {
		require.Equal(t, want[l.ID], v.Leases.Keys(l.ID), "lease %d", l.ID)
		delete(want, l.ID)
	}
	require.Empty(t, want, "no key hangs on a lease that is gone")
}

// generator makes entries over few keys, leases and instances, so that most
// commands meet something.
type generator struct {
	*rand.Rand
	id, incarnation uint64
}

func (g *generator) entry(v *apply.View) *journalv1.Entry {
	if g.IntN(30) == 0 {
		return nil
	}
	e := &journalv1.Entry{Version: apply.EntryVersion}
	for range 1 + g.IntN(6) {
		g.id++
		c := g.command(v)
		c.Id = g.id
		e.Commands = append(e.Commands, c)
	}
	return e
}

func (g *generator) key() []byte { return []byte{'a' + byte(g.IntN(8))} }

func (g *generator) lease() int64 { return int64(g.IntN(9)) - 3 }

func (g *generator) flip() bool { return g.IntN(4) == 0 }

func (g *generator) put() *pb.PutRequest {
	req := &pb.PutRequest{Key: g.key(), PrevKv: g.flip(), IgnoreValue: g.flip()}
	if !req.IgnoreValue {
		req.Value = []byte(strconv.Itoa(g.IntN(1000)))
	}
	if req.IgnoreLease = g.flip(); !req.IgnoreLease && g.flip() {
		req.Lease = g.lease()
	}
	return req
}

func (g *generator) delete() *pb.DeleteRangeRequest {
	req := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.flip()}
	if g.flip() {
		req.RangeEnd = g.key()
	}
	return req
}

// txn writes each key at most once, as the check at the proposal demands.
func (g *generator) txn(depth int) *pb.TxnRequest {
	key := g.key()
	req := &pb.TxnRequest{Compare: []*pb.Compare{{
		Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_GREATER,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0},
	}}}
	first, second := g.put(), g.put()
	first.Key, second.Key = append([]byte{'x'}, key...), key
	req.Success = []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: first}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: second}},
	}
	req.Failure = []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.delete()}}}
	if depth == 0 && g.flip() {
		req.Failure = append(req.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(1)}})
	}
	return req
}

func marshaled(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (g *generator) command(v *apply.View) *journalv1.Command {
	switch g.IntN(22) {
	case 0, 1, 2, 3, 4, 5:
		return &journalv1.Command{Command: &journalv1.Command_Put{Put: marshaled(g.put())}}
	case 6, 7:
		return &journalv1.Command{Command: &journalv1.Command_DeleteRange{DeleteRange: marshaled(g.delete())}}
	case 8, 9:
		return &journalv1.Command{Command: &journalv1.Command_Txn{Txn: marshaled(g.txn(0))}}
	case 10:
		rev := v.KV.Revision() - int64(g.IntN(10))
		return &journalv1.Command{Command: &journalv1.Command_Compact{Compact: marshaled(&pb.CompactionRequest{Revision: rev})}}
	case 11, 12, 13:
		req := &pb.LeaseGrantRequest{ID: g.lease(), TTL: int64(1 + g.IntN(100))}
		return &journalv1.Command{Command: &journalv1.Command_LeaseGrant{LeaseGrant: marshaled(req)}}
	case 14:
		req := &pb.LeaseRevokeRequest{ID: g.lease()}
		return &journalv1.Command{Command: &journalv1.Command_LeaseRevoke{LeaseRevoke: marshaled(req)}}
	case 15, 16:
		return g.ownerCommand(v)
	case 17:
		return g.viewChange(v)
	case 18:
		req := &pb.AlarmRequest{
			Action: pb.AlarmRequest_AlarmAction(g.IntN(3)), MemberID: uint64(1 + g.IntN(2)), Alarm: pb.AlarmType_NOSPACE,
		}
		if g.IntN(3) > 0 {
			req.Action = pb.AlarmRequest_DEACTIVATE // or hardly anything would be written
		}
		return &journalv1.Command{Command: &journalv1.Command_Alarm{Alarm: marshaled(req)}}
	case 19:
		members := v.Members.Members()
		attributes := &journalv1.MemberAttributes{Id: 99, Name: "n"}
		if len(members) > 0 {
			attributes.Id = members[g.IntN(len(members))].ID
		}
		return &journalv1.Command{Command: &journalv1.Command_MemberAttributes{MemberAttributes: attributes}}
	case 20:
		return &journalv1.Command{Command: &journalv1.Command_ClusterVersion{ClusterVersion: fmt.Sprintf("3.%d", g.IntN(9))}}
	default:
		return &journalv1.Command{Command: &journalv1.Command_Put{Put: []byte{0xff}}}
	}
}

// ownerCommand comes from an instance of the view, mostly.
func (g *generator) ownerCommand(v *apply.View) *journalv1.Command {
	view := v.Leases.Cluster()
	who := &feedv1.Instance{Name: "stranger", Incarnation: 1}
	if n := len(view.GetInstances()); n > 0 {
		who = view.GetInstances()[g.IntN(n)]
	}
	epoch := view.GetEpoch() - uint64(g.IntN(5)/4)
	if g.flip() {
		return &journalv1.Command{Command: &journalv1.Command_LeaseCheckpoint{LeaseCheckpoint: &journalv1.LeaseCheckpoints{
			Checkpoints: []*feedv1.LeaseCheckpoint{{Id: g.lease(), RemainingTtlS: int64(g.IntN(20))}},
			Epoch:       epoch, Name: who.GetName(), Incarnation: who.GetIncarnation(),
		}}}
	}
	var decided uint64
	if sequence := v.Leases.Sequence(); !g.flip() {
		decided = sequence - min(sequence, g.Uint64N(10))
	}
	return &journalv1.Command{Command: &journalv1.Command_LeaseExpire{LeaseExpire: &journalv1.LeaseExpire{
		Ids: []int64{g.lease(), g.lease(), g.lease()}, Epoch: epoch, Name: who.GetName(), Incarnation: who.GetIncarnation(),
		DecidedSequence: decided,
	}}}
}

func (g *generator) viewChange(v *apply.View) *journalv1.Command {
	vc := &journalv1.ViewChange{FromEpoch: v.Leases.Cluster().GetEpoch()}
	for _, i := range g.Perm(4)[:1+g.IntN(3)] {
		g.incarnation++
		vc.Instances = append(vc.Instances, &feedv1.Instance{Name: fmt.Sprintf("lease%d", i), Incarnation: g.incarnation})
	}
	for _, old := range v.Leases.Cluster().GetInstances() {
		vc.Departed = append(vc.Departed, &feedv1.Departed{Name: old.Name, Incarnation: old.Incarnation, Released: g.flip()})
	}
	return &journalv1.Command{Command: &journalv1.Command_ViewChange{ViewChange: vc}}
}
