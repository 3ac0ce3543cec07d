package apply_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// TestTranscripts runs testdata: entries, and what comes out of them. The
// directives are
//
//	entry [index=N] [term=N]    one command a line: its name and its request
//	                            in protobuf's text form
//	conf kind                   a configuration change with this context
//	bootstrap                   names and peer URLs
//	compact-step limit=N
//	state                       what a View shows
//	rows bucket                 what the database holds
//
// Each entry is also applied by a Machine restored from the database just
// before, and must give the same.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		h := &harness{m: apply.New(), db: newDatabase(), term: 1}
		datadriven.RunTest(t, path, h.run)
	})
}

type harness struct {
	m    *apply.Machine
	db   *database
	term uint64
	id   uint64 // of the last proposal
}

func (h *harness) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "entry":
		return h.entry(t, d)
	case "conf":
		return h.conf(t, d)
	case "bootstrap":
		return h.bootstrap(t, d)
	case "compact-step":
		var limit int
		d.ScanArgs(t, "limit", &limit)
		b, done := h.m.CompactStep(limit)
		h.db.store(t, b)
		var out strings.Builder
		writeBatch(&out, b)
		fmt.Fprintf(&out, "done %v compacting %v\n", done, h.m.Compacting())
		return out.String()
	case "state":
		return viewText(h.m.View())
	case "rows":
		var out strings.Builder
		require.NoError(t, h.db.Rows(d.CmdArgs[0].Key, func(key, value []byte) error {
			fmt.Fprintf(&out, "%q %q\n", key, value)
			return nil
		}))
		return out.String()
	}
	t.Fatalf("%s: unknown directive %s", d.Pos, d.Cmd)
	return ""
}

func (h *harness) entry(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	index := h.m.Index() + 1
	if d.HasArg("index") {
		d.ScanArgs(t, "index", &index)
	}
	if d.HasArg("term") {
		d.ScanArgs(t, "term", &h.term)
	}
	var e *journalv1.Entry
	if d.Input != "" {
		e = &journalv1.Entry{Version: apply.EntryVersion}
		for line := range strings.Lines(d.Input) {
			h.id++
			e.Commands = append(e.Commands, parseCommand(t, h.id, strings.TrimSpace(line)))
		}
	}
	twin, err := apply.Restore(h.db)
	require.NoError(t, err)
	require.Equal(t, viewText(twin.View()), viewText(h.m.View()), "restored")
	res, err := h.m.Apply(index, h.term, e, h.db)
	again, twinErr := twin.Apply(index, h.term, e, h.db)
	require.Equal(t, err, twinErr)
	require.Equal(t, resultText(res), resultText(again), "applied by a restored machine")
	require.Equal(t, batchText(res.Batch), batchText(again.Batch), "applied by a restored machine")
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	h.db.store(t, res.Batch)
	return resultText(res)
}

func (h *harness) conf(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	mc := &journalv1.MemberContext{}
	require.NoError(t, prototext.Unmarshal([]byte(d.Input), mc))
	cc := &raftpb.ConfChangeV2{}
	kinds := map[string]member.Kind{
		"add": member.Add, "promote": member.Promote, "remove": member.Remove, "update": member.Update,
	}
	if name := d.CmdArgs[0].Key; name != "leave-joint" {
		var err error
		cc, err = member.ConfChange(kinds[name], mc)
		require.NoError(t, err)
	}
	res, err := h.m.ApplyConf(h.m.Index()+1, h.term, cc)
	require.NoError(t, err)
	h.db.store(t, res.Batch)
	var out strings.Builder
	writeOutcome(&out, res.Outcome)
	fmt.Fprintf(&out, "raft: %s\n", raftpb.ConfChangesToString(res.Change.GetChanges()))
	writeBatch(&out, res.Batch)
	return out.String()
}

func (h *harness) bootstrap(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	peers := map[string][]string{}
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		peers[fields[0]] = fields[1:]
	}
	members, err := member.Initial("token", peers)
	require.NoError(t, err)
	b, err := h.m.Bootstrap(1, h.term, members)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	h.db.store(t, b)
	var out strings.Builder
	fmt.Fprintf(&out, "cluster %x\n", member.ClusterID(members))
	writeBatch(&out, b)
	return out.String()
}

// parseCommand reads a name and a request in protobuf's text form.
func parseCommand(t *testing.T, id uint64, line string) *journalv1.Command {
	t.Helper()
	name, text, _ := strings.Cut(line, " ")
	c := &journalv1.Command{Id: id}
	read := func(m proto.Message) { require.NoError(t, prototext.Unmarshal([]byte(text), m), line) }
	encoded := func(m proto.Message) []byte {
		read(m)
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		return b
	}
	switch name {
	case "put":
		c.Command = &journalv1.Command_Put{Put: encoded(&pb.PutRequest{})}
	case "delete":
		c.Command = &journalv1.Command_DeleteRange{DeleteRange: encoded(&pb.DeleteRangeRequest{})}
	case "txn":
		c.Command = &journalv1.Command_Txn{Txn: encoded(&pb.TxnRequest{})}
	case "compact":
		c.Command = &journalv1.Command_Compact{Compact: encoded(&pb.CompactionRequest{})}
	case "grant":
		c.Command = &journalv1.Command_LeaseGrant{LeaseGrant: encoded(&pb.LeaseGrantRequest{})}
	case "revoke":
		c.Command = &journalv1.Command_LeaseRevoke{LeaseRevoke: encoded(&pb.LeaseRevokeRequest{})}
	case "alarm":
		c.Command = &journalv1.Command_Alarm{Alarm: encoded(&pb.AlarmRequest{})}
	case "expire":
		c.Command = &journalv1.Command_LeaseExpire{LeaseExpire: &journalv1.LeaseExpire{}}
		read(c.GetLeaseExpire())
	case "checkpoint":
		c.Command = &journalv1.Command_LeaseCheckpoint{LeaseCheckpoint: &journalv1.LeaseCheckpoints{}}
		read(c.GetLeaseCheckpoint())
	case "view":
		c.Command = &journalv1.Command_ViewChange{ViewChange: &journalv1.ViewChange{}}
		read(c.GetViewChange())
	case "attributes":
		c.Command = &journalv1.Command_MemberAttributes{MemberAttributes: &journalv1.MemberAttributes{}}
		read(c.GetMemberAttributes())
	case "version":
		c.Command = &journalv1.Command_ClusterVersion{ClusterVersion: text}
	case "command": // as it is
		read(c)
	default:
		t.Fatalf("unknown command %q", line)
	}
	return c
}

// text is a message in one line. Protobuf varies the spaces between builds on
// purpose; no value in the tests has two in a row.
func text(m proto.Message) string {
	return strings.ReplaceAll(prototext.MarshalOptions{}.Format(m), "  ", " ")
}

func writeOutcome(out *strings.Builder, o apply.Outcome) {
	switch {
	case o.Err != nil:
		fmt.Fprintf(out, "%d: error: %v\n", o.ID, o.Err)
	case o.Response == nil:
		fmt.Fprintf(out, "%d: at %d\n", o.ID, o.Revision)
	default:
		fmt.Fprintf(out, "%d: at %d %s: %s\n", o.ID, o.Revision, o.Response.ProtoReflect().Descriptor().Name(), text(o.Response))
	}
}

func resultText(res apply.Result) string {
	var out strings.Builder
	for _, o := range res.Outcomes {
		writeOutcome(&out, o)
	}
	for _, rev := range res.Revisions {
		fmt.Fprintf(&out, "feed %d\n", rev.Revision)
		for _, ev := range rev.Events {
			writeEvent(&out, ev)
		}
	}
	for _, change := range res.LeaseChanges {
		fmt.Fprintf(&out, "lease feed %s\n", text(change))
	}
	writeBatch(&out, res.Batch)
	return out.String()
}

func writeEvent(out *strings.Builder, ev *feedv1.Event) {
	verb := "put"
	if ev.Deleted {
		verb = "delete"
	}
	fmt.Fprintf(out, "  %s %q %s previous %d %s\n", verb, ev.Key, kvText(ev.Kv), ev.PreviousModRevision, kvText(ev.PreviousKv))
}

func writeBatch(out *strings.Builder, b apply.Batch) {
	fmt.Fprintf(out, "batch %d/%d\n", b.Term, b.Index)
	for i, w := range b.Writes {
		mark := ""
		if w.Tombstone {
			mark = "t"
		}
		fmt.Fprintf(out, "  write %d_%d%s %s\n", w.Rev.Main, w.Rev.Sub, mark, kvText(b.Encoded[i]))
	}
	for _, d := range b.Drop {
		fmt.Fprintf(out, "  drop %d_%d\n", d.Rev.Main, d.Rev.Sub)
	}
	for _, r := range b.Rows {
		if r.Delete {
			fmt.Fprintf(out, "  delete %s %q\n", r.Bucket, r.Key)
		} else {
			fmt.Fprintf(out, "  put %s %q %q\n", r.Bucket, r.Key, r.Value)
		}
	}
}

func kvText(encoded []byte) string {
	if len(encoded) == 0 {
		return "-"
	}
	kv := keyValue(encoded)
	return fmt.Sprintf("{%q=%q create %d mod %d version %d lease %d}",
		kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
}

func viewText(v *apply.View) string {
	var out strings.Builder
	fmt.Fprintf(&out, "entry %d/%d revision %d compacted %d keys %d\n",
		v.Term, v.Index, v.KV.Revision(), v.KV.CompactRevision(), v.KV.Keys())
	fmt.Fprintf(&out, "leases %d sequence %d view %s\n", v.Leases.Len(), v.Leases.Sequence(), text(v.Leases.Cluster()))
	leases, _ := v.Leases.Page(0, 1000)
	for _, l := range leases {
		owner := "nobody"
		if o := v.Leases.Owner(l.ID); o != nil {
			owner = o.Name
		}
		fmt.Fprintf(&out, "  lease %d granted %d ttl %d rest %d keys %q owner %s\n",
			l.ID, l.GrantedSequence, l.TTLS, l.RemainingTTLS, v.Leases.Keys(l.ID), owner)
	}
	for _, m := range v.Members.Members() {
		fmt.Fprintf(&out, "member %+v\n", m)
	}
	if removed := v.Members.Removed(); len(removed) > 0 {
		fmt.Fprintf(&out, "removed %x\n", removed)
	}
	if version := v.Members.ClusterVersion().String(); version != "" {
		fmt.Fprintf(&out, "cluster version %s\n", version)
	}
	for _, a := range v.Alarms {
		fmt.Fprintf(&out, "alarm %s of %x\n", a.Type, a.Member)
	}
	return out.String()
}
