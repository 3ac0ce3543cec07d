package watch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// transcript drives one Core. Every command prints the effects and the responses that follow from it; with "hold" the
// client does not read until "read".
type transcript struct {
	core  *Core
	feeds map[string]*Position
	hold  bool
}

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		tr := &transcript{}
		datadriven.RunTest(t, path, tr.run)
	})
}

type args struct {
	t *testing.T
	d *datadriven.TestData
}

func (a args) int(key string) int64 {
	var v int64
	a.d.MaybeScanArgs(a.t, key, &v)
	return v
}

func (a args) text(key string) []byte {
	var s string
	a.d.MaybeScanArgs(a.t, key, &s)
	if s == "zero" {
		return []byte{0}
	}
	return []byte(s)
}

func (tr *transcript) run(t *testing.T, d *datadriven.TestData) string {
	a := args{t, d}
	c := tr.core
	switch d.Cmd {
	case "new":
		var last uint64
		limits := DefaultLimits()
		if n := a.int("response"); n > 0 {
			limits = Limits{ResponseBytes: int(n), FragmentBytes: int(n), BufferBytes: int(a.int("buffer"))}
		}
		tr.core = NewCore(limits, func() uint64 { last++; return last })
		tr.feeds = map[string]*Position{}
		tr.hold = false
		return ""
	case "create":
		req := &pb.WatchCreateRequest{
			WatchId: a.int("id"), Key: a.text("key"), RangeEnd: a.text("end"), StartRevision: a.int("start"),
			Fragment: d.HasArg("fragment"), ProgressNotify: d.HasArg("notify"), PrevKv: d.HasArg("prev"),
		}
		if d.HasArg("noput") {
			req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
		}
		c.Request(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	case "cancel":
		c.Request(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: a.int("id")},
		}})
	case "progress":
		c.Request(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	case "fence":
		n := c.Fences()
		if d.HasArg("n") {
			n = int(a.int("n"))
		}
		c.Fenced(n, Fence{Header: wire.Header{ClusterID: 1, Revision: a.int("rev")}, CompactRevision: a.int("compact")})
	case "deliver":
		c.Deliver(uint64(a.int("reg")), a.int("from"), a.int("to"), events(t, d.Input))
	case "joined":
		c.Joined(uint64(a.int("reg")), a.int("to"), tr.feed(a))
	case "live":
		tr.feed(a).Raise(a.int("to"))
	case "broken":
		c.Broken(uint64(a.int("reg")))
	case "compacted":
		c.Compacted(uint64(a.int("reg")), a.int("at"))
	case "tick":
		c.Tick()
	case "hold":
		tr.hold = true
	case "read":
		tr.hold = false
	case "close":
		c.Close()
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return tr.output(t)
}

func (tr *transcript) feed(a args) *Position {
	name := string(a.text("hub"))
	if tr.feeds[name] == nil {
		tr.feeds[name] = &Position{}
	}
	return tr.feeds[name]
}

// events reads lines of "revision key[:bytes]..." into events whose values have so many bytes.
func events(t *testing.T, input string) *wire.Events {
	t.Helper()
	var revisions []*feedv1.Revision
	for line := range strings.Lines(input) {
		f := strings.Fields(line)
		r := &feedv1.Revision{}
		_, err := fmt.Sscan(f[0], &r.Revision)
		require.NoError(t, err)
		for _, key := range f[1:] {
			kv := &mvccpb.KeyValue{Key: []byte(key), ModRevision: r.Revision}
			if name, size, ok := strings.Cut(key, ":"); ok {
				var n int
				_, err := fmt.Sscan(size, &n)
				require.NoError(t, err)
				kv.Key, kv.Value = []byte(name), bytes.Repeat([]byte("v"), n)
			}
			b, err := proto.Marshal(kv)
			require.NoError(t, err)
			r.Events = append(r.Events, &feedv1.Event{Key: kv.Key, Kv: b})
		}
		revisions = append(revisions, r)
	}
	return wire.EncodeEvents(revisions, false)
}

func (tr *transcript) output(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for range 100 {
		if tr.hold {
			break
		}
		r, ok := tr.core.Next()
		if !ok {
			break
		}
		raw := r.Head.Append(nil)
		for _, part := range r.Parts {
			raw = append(raw, part...)
		}
		require.Less(t, len(raw)-len(r.Head.CancelReason), tr.core.limits.ResponseBytes+64)
		var wr pb.WatchResponse
		require.NoError(t, proto.Unmarshal(raw, &wr))
		b.WriteString(describe(&wr))
	}
	e := tr.core.Take()
	if len(e.Drop) > 0 {
		fmt.Fprintf(&b, "  drop %v\n", e.Drop)
	}
	for _, r := range e.Register {
		fmt.Fprintf(&b, "  register %d [%q,%q) from %d", r.ID, r.Key, r.End, r.Next)
		if r.NoPut || r.NoDelete || r.PreviousKV {
			fmt.Fprintf(&b, " noput=%v nodelete=%v prev=%v", r.NoPut, r.NoDelete, r.PreviousKV)
		}
		b.WriteString("\n")
	}
	if n := tr.core.Suspended(); n > 0 {
		fmt.Fprintf(&b, "  suspended %d\n", n)
	}
	if n := tr.core.Fences(); n > 0 {
		fmt.Fprintf(&b, "  waiting for a fence: %d\n", n)
	}
	if tr.core.Wanted() {
		b.WriteString("  progress wanted\n")
	}
	return b.String()
}

func describe(wr *pb.WatchResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "watch %d header %d", wr.WatchId, wr.Header.Revision)
	if wr.Created {
		b.WriteString(" created")
	}
	if wr.Canceled {
		b.WriteString(" canceled")
	}
	if wr.CompactRevision != 0 {
		fmt.Fprintf(&b, " compact=%d", wr.CompactRevision)
	}
	if wr.CancelReason != "" {
		fmt.Fprintf(&b, " %q", wr.CancelReason)
	}
	if wr.Fragment {
		b.WriteString(" fragment")
	}
	for _, ev := range wr.Events {
		fmt.Fprintf(&b, " %s@%d", ev.Kv.Key, ev.Kv.ModRevision)
	}
	b.WriteString("\n")
	return b.String()
}
