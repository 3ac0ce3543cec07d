package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// cover counts what etcd answered to what: the method with the error's text or OK, and the options of the requests that were answered.
func (p *Pair) cover(op Op, etcds Outcome) {
	_, name, _ := strings.Cut(strings.TrimPrefix(op.Method, "/etcdserverpb."), "/")
	if etcds.Code != codes.OK {
		p.coverage[name+": "+clipLine(etcds.Text)]++
		return
	}
	p.coverage[name+": OK"]++
	coverFields(name, op.Request.ProtoReflect(), p.coverage)
	if r, ok := etcds.Response.(*pb.TxnResponse); ok {
		p.coverage[fmt.Sprintf("%s succeeded %t", name, r.GetSucceeded())]++
	}
}

// coverFields counts the fields that are set, with the message that they are in; of small numbers and enumerations also the value.
func coverFields(in string, m protoreflect.Message, counts map[string]int) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		name := in + "." + string(field.Name())
		counts[name]++
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				coverFields(name, value.List().Get(i).Message(), counts)
			}
		case field.Message() != nil:
			coverFields(name, value.Message(), counts)
		case field.Kind() == protoreflect.EnumKind:
			counts[fmt.Sprintf("%s=%d", name, value.Enum())]++
		}
		return true
	})
}

func clipLine(text string) string {
	const most = 120
	return text[:min(len(text), most)]
}

// Covered lists what was covered, one line each with how often.
func (p *Pair) Covered() string {
	var out strings.Builder
	for _, what := range slices.Sorted(maps.Keys(p.coverage)) {
		fmt.Fprintf(&out, "%7d %s\n", p.coverage[what], what)
	}
	return out.String()
}
