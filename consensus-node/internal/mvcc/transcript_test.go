package mvcc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/status"
)

// TestTranscripts runs the files of testdata. Each line of a do directive is a
// request in the language of script, or one of
//
//	lease N...                  the leases that exist
//	compact REV | step LIMIT    logical compaction, one step of the physical one
//	view NAME | at NAME REQUEST keeps a View, reads from it
//	page REQUEST                RangePage
//	revoke KEY...               DeleteKeys
//	history FROM TO [prev] [KEY[..END]]...
//	hash [REV] | bucket | leased | restore | reads
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		m := &machine{t: t, s: New(), b: newBucket(), views: make(map[string]*View)}
		datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				if d.Cmd == "do" {
					fmt.Fprintf(&out, "> %s\n", line)
				}
				out.WriteString(m.line(line))
			}
			return out.String()
		})
	})
}

type machine struct {
	t     *testing.T
	s     *State
	b     *bucket
	views map[string]*View
}

const maxOps = 6 // of a transaction in transcripts

func (m *machine) line(line string) string {
	sc, err := parseScript(line)
	require.NoError(m.t, err, line)
	switch verb := sc.peek(); verb {
	case "put", "del", "range", "txn":
		req, err := sc.op()
		require.NoError(m.t, err, line)
		require.Empty(m.t, sc.words, line)
		return m.request(req, nil)
	case "page":
		sc.next()
		sc.next()
		req, err := parseRange(sc.args())
		require.NoError(m.t, err, line)
		resp, err := m.s.View().RangePage(req, m.b)
		return show(resp, err)
	case "at":
		sc.next()
		v := m.views[sc.next()]
		req, err := sc.op()
		require.NoError(m.t, err, line)
		return m.request(req, v)
	default:
		return m.command(sc.next(), sc.args())
	}
}

// request checks a request as the API does and runs it on the State, or on a
// View if one is given.
func (m *machine) request(req any, v *View) string {
	var eff Effects
	var resp any
	var err error
	before := m.s.View()
	switch r := req.(type) {
	case *pb.PutRequest:
		if err = CheckPut(r); err == nil {
			resp, eff, err = m.s.Put(r, m.b.env())
		}
	case *pb.DeleteRangeRequest:
		if err = CheckDelete(r); err == nil {
			resp, eff, err = m.s.DeleteRange(r, m.b.env())
		}
	case *pb.RangeRequest:
		if v == nil {
			v = before
		}
		if err = CheckRange(r); err == nil {
			resp, err = v.Range(r, m.b)
		}
	case *pb.TxnRequest:
		if err = CheckTxn(r, maxOps); err != nil {
			break
		}
		if v != nil {
			resp, _, err = v.Txn(r, m.b)
		} else {
			resp, eff, err = m.s.Txn(r, m.b.env())
		}
	}
	m.b.apply(eff)
	if len(eff.Writes) == 0 {
		require.Same(m.t, before, m.s.View(), "a request without effects has changed the State")
	}
	return show(resp, err) + showEffects(eff)
}

func (m *machine) command(verb string, args []string) string {
	num := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		require.NoError(m.t, err)
		return n
	}
	switch verb {
	case "lease":
		for i := range args {
			m.b.leases[num(i)] = make(map[string]bool)
		}
		return ""
	case "compact":
		if err := m.s.Compact(num(0)); err != nil {
			return show(nil, err)
		}
		return ""
	case "step":
		drop, done := m.s.CompactStep(int(num(0)))
		require.True(m.t, m.b.drop(drop), "dropped what is not stored")
		require.Equal(m.t, done, !m.s.Compacting())
		return fmt.Sprintf("drop %s done=%v\n", showDrops(drop), done)
	case "view":
		m.views[args[0]] = m.s.View()
		return fmt.Sprintf("revision=%d compact=%d keys=%d\n",
			m.s.View().Revision(), m.s.View().CompactRevision(), m.s.View().Keys())
	case "revoke":
		var keys [][]byte
		for _, a := range args {
			keys = append(keys, []byte(a))
		}
		eff := m.s.DeleteKeys(keys)
		m.b.apply(eff)
		return showEffects(eff)
	case "history":
		return m.history(num(0), num(1), args[2:])
	case "hash":
		args = append(args, "0")
		h, err := m.s.View().Hash(num(0), m.b.stored())
		if err != nil {
			return show(nil, err)
		}
		return fmt.Sprintf("hash=%08x compact=%d revision=%d\n", h.Hash, h.CompactRevision, h.Revision)
	case "bucket":
		var out []string
		for _, w := range m.b.writes {
			out = append(out, fmt.Sprintf("%d_%d=%s%s", w.Rev.Main, w.Rev.Sub, w.KV.Key, map[bool]string{true: "(t)"}[w.Tombstone]))
		}
		return fmt.Sprintln(out)
	case "leased":
		var out []string
		m.s.Leased(func(key string, id int64) {
			require.True(m.t, m.b.leases[id][key], "lease %d does not know %q", id, key)
			out = append(out, fmt.Sprintf("%s:%d", key, id))
		})
		return fmt.Sprintln(out)
	case "restore":
		s, err := m.b.restore(m.s.CompactRevision())
		require.NoError(m.t, err)
		m.s = s
		return fmt.Sprintf("revision=%d compact=%d keys=%d compacting=%v\n",
			s.Revision(), s.CompactRevision(), s.View().Keys(), s.Compacting())
	case "reads":
		n := m.b.reads
		m.b.reads = 0
		return fmt.Sprintf("%d\n", n)
	}
	m.t.Fatalf("no such command: %s", verb)
	return ""
}

func (m *machine) history(from, to int64, args []string) string {
	var opts HistoryOptions
	for _, a := range args {
		if a == "prev" {
			opts.Prev = m.b
			continue
		}
		key, end, _ := strings.Cut(a, "..")
		opts.Match = append(opts.Match, KeyRange{[]byte(key), []byte(end)})
	}
	var out strings.Builder
	err := m.s.View().History(m.b, from, to, opts, func(rev int64, events []Event) bool {
		fmt.Fprintf(&out, "  %d:\n", rev)
		for _, e := range events {
			require.Equal(m.t, rev, e.Kv.ModRevision)
			out.WriteString("    " + showEvent(e) + "\n")
		}
		return true
	})
	if err != nil {
		return show(nil, err)
	}
	return out.String()
}

func show(resp any, err error) string {
	if err != nil {
		if s, ok := status.FromError(err); ok {
			return fmt.Sprintf("%s: %s\n", s.Code(), s.Message())
		}
		return fmt.Sprintf("error: %v\n", err)
	}
	return showResponse("", resp)
}

func showResponse(in string, resp any) string {
	var out strings.Builder
	kvs := func(name string, list ...*mvccpb.KeyValue) {
		for _, kv := range list {
			fmt.Fprintf(&out, "%s  %s%s\n", in, name, showKV(kv))
		}
	}
	switch r := resp.(type) {
	case *pb.PutResponse:
		fmt.Fprintf(&out, "%sput rev=%d\n", in, r.Header.Revision)
		if r.PrevKv != nil {
			kvs("prev ", r.PrevKv)
		}
	case *pb.DeleteRangeResponse:
		fmt.Fprintf(&out, "%sdel rev=%d deleted=%d\n", in, r.Header.Revision, r.Deleted)
		kvs("prev ", r.PrevKvs...)
	case *pb.RangeResponse:
		fmt.Fprintf(&out, "%srange rev=%d count=%d more=%v\n", in, r.Header.Revision, r.Count, r.More)
		kvs("", r.Kvs...)
	case *pb.TxnResponse:
		fmt.Fprintf(&out, "%stxn rev=%d succeeded=%v\n", in, r.Header.Revision, r.Succeeded)
		for _, op := range r.Responses {
			switch o := op.Response.(type) {
			case *pb.ResponseOp_ResponsePut:
				out.WriteString(showResponse(in+"  ", o.ResponsePut))
			case *pb.ResponseOp_ResponseDeleteRange:
				out.WriteString(showResponse(in+"  ", o.ResponseDeleteRange))
			case *pb.ResponseOp_ResponseRange:
				out.WriteString(showResponse(in+"  ", o.ResponseRange))
			case *pb.ResponseOp_ResponseTxn:
				out.WriteString(showResponse(in+"  ", o.ResponseTxn))
			}
		}
	}
	return out.String()
}

// showKV prints key=value, then create, mod, version and lease.
func showKV(kv *mvccpb.KeyValue) string {
	key := strings.Trim(strconv.Quote(string(kv.Key)), `"`)
	s := fmt.Sprintf("%s=%s c%d m%d v%d", key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version)
	if kv.Lease != 0 {
		s += fmt.Sprintf(" L%d", kv.Lease)
	}
	return s
}

func showEvent(e Event) string {
	s := fmt.Sprintf("%s %s", e.Type, showKV(e.Kv))
	if e.Prev != (Revision{}) {
		s += fmt.Sprintf(" before=%d_%d", e.Prev.Main, e.Prev.Sub)
	}
	if e.PrevKv != nil {
		s += " (" + showKV(e.PrevKv) + ")"
	}
	return s
}

func showEffects(e Effects) string {
	var out strings.Builder
	for i, w := range e.Writes {
		fmt.Fprintf(&out, "  ! %d_%d %s\n", w.Rev.Main, w.Rev.Sub, showEvent(e.Events[i]))
	}
	for _, l := range e.Detach {
		fmt.Fprintf(&out, "  ! detach %s:%d\n", l.Key, l.ID)
	}
	for _, l := range e.Attach {
		fmt.Fprintf(&out, "  ! attach %s:%d\n", l.Key, l.ID)
	}
	return out.String()
}

func showDrops(list []Drop) string {
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%d_%d%s", d.Rev.Main, d.Rev.Sub, map[bool]string{true: "t"}[d.Tombstone]))
	}
	return "[" + strings.Join(slices.Clip(out), " ") + "]"
}
