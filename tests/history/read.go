package history

// CheckReads says which reads answered something else than what their revision holds, whatever their consistency, and
// where serializable reads went back on one connection.
func CheckReads(ops []Op, j *Joined) []Violation {
	f := &findings{check: "read"}
	type connection struct {
		client string
		number int64
	}
	newest := map[connection]*Op{}
	for i := range ops {
		op := &ops[i]
		if op.Outcome != Done {
			continue
		}
		if !op.Request.Writes() {
			checkRead(f, op, j)
		}
		if !op.Request.Serializable || op.Conn == 0 {
			continue
		}
		at := connection{op.Client, op.Conn}
		if before := newest[at]; before != nil && before.Return <= op.Call && before.Response.Revision > op.Response.Revision {
			f.add("a serializable read went back on one connection: %v after %v", op, before)
		}
		if newest[at] == nil || newest[at].Response.Revision < op.Response.Revision {
			newest[at] = op
		}
	}
	return f.all
}

func checkRead(f *findings, op *Op, j *Joined) {
	revision := op.Response.Revision
	if op.Request.Revision != 0 {
		revision = op.Request.Revision
	}
	s, ok := j.At(revision)
	if !ok {
		f.add("no watch knows the revision %d: %v", revision, op)
		return
	}
	_, want := s.Apply(&op.Request)
	want.Revision = op.Response.Revision
	if !want.equal(op.Response) {
		f.add("%d holds %v, but %v", revision, want.Results, op)
	}
}
