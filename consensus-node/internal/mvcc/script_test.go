package mvcc

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// script reads the language of the transcripts: words, quoted where Go would
// have to quote them, and [ ; ] around and between the operations of a txn.
//
//	put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//	del KEY [END] [prev]
//	range KEY [END] [rev=N] [limit=N] [sort=TARGET,ORDER] [keys] [count] [minmod=N] ...
//	txn [if TARGET KEY[..END] OP ARG]* then [op; op] else [op; op]
//
// END "\x00" is every key from KEY on.
type script struct{ words []string }

var errScript = errors.New("bad script")

func parseScript(line string) (*script, error) {
	s := &script{}
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		switch {
		case strings.ContainsRune("[;]", rune(line[0])):
			s.words, line = append(s.words, line[:1]), line[1:]
		case line[0] == '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("%w: %s", errScript, line)
			}
			word, _ := strconv.Unquote(quoted)
			s.words, line = append(s.words, word), line[len(quoted):]
		default:
			n := strings.IndexAny(line, " \t[;]")
			if n < 0 {
				n = len(line)
			}
			s.words, line = append(s.words, line[:n]), line[n:]
		}
	}
	return s, nil
}

func (s *script) peek() string {
	if len(s.words) == 0 {
		return ""
	}
	return s.words[0]
}

func (s *script) next() string {
	w := s.peek()
	s.words = s.words[min(1, len(s.words)):]
	return w
}

// args returns the words up to the end of the operation.
func (s *script) args() (out []string) {
	for len(s.words) > 0 && s.peek() != ";" && s.peek() != "]" {
		out = append(out, s.next())
	}
	return out
}

// op parses one request; put gives *pb.PutRequest and so on.
func (s *script) op() (any, error) {
	switch verb := s.next(); verb {
	case "put":
		return parsePut(s.args())
	case "del":
		return parseDelete(s.args())
	case "range":
		return parseRange(s.args())
	case "txn":
		return s.txn()
	default:
		return nil, fmt.Errorf("%w: no such request: %q", errScript, verb)
	}
}

func parsePut(args []string) (*pb.PutRequest, error) {
	req := &pb.PutRequest{Key: []byte(args[0])}
	for i, a := range args[1:] {
		switch name, n := number(a); {
		case a == "prev":
			req.PrevKv = true
		case a == "ignore_value":
			req.IgnoreValue = true
		case a == "ignore_lease":
			req.IgnoreLease = true
		case name == "lease":
			req.Lease = n
		case i == 0:
			req.Value = []byte(a)
		default:
			return nil, fmt.Errorf("%w: put %q", errScript, a)
		}
	}
	return req, nil
}

func parseDelete(args []string) (*pb.DeleteRangeRequest, error) {
	req := &pb.DeleteRangeRequest{Key: []byte(args[0])}
	for i, a := range args[1:] {
		switch {
		case a == "prev":
			req.PrevKv = true
		case i == 0:
			req.RangeEnd = []byte(a)
		default:
			return nil, fmt.Errorf("%w: del %q", errScript, a)
		}
	}
	return req, nil
}

func parseRange(args []string) (*pb.RangeRequest, error) {
	req := &pb.RangeRequest{Key: []byte(args[0])}
	for i, a := range args[1:] {
		name, n := number(a)
		switch {
		case a == "keys":
			req.KeysOnly = true
		case a == "count":
			req.CountOnly = true
		case name == "rev":
			req.Revision = n
		case name == "limit":
			req.Limit = n
		case name == "minmod":
			req.MinModRevision = n
		case name == "maxmod":
			req.MaxModRevision = n
		case name == "mincreate":
			req.MinCreateRevision = n
		case name == "maxcreate":
			req.MaxCreateRevision = n
		case strings.HasPrefix(a, "sort="):
			target, order, _ := strings.Cut(strings.ToUpper(a[5:]), ",")
			req.SortTarget = pb.RangeRequest_SortTarget(enum(target, pb.RangeRequest_SortTarget_value))
			req.SortOrder = pb.RangeRequest_SortOrder(enum(order, pb.RangeRequest_SortOrder_value))
		case i == 0:
			req.RangeEnd = []byte(a)
		default:
			return nil, fmt.Errorf("%w: range %q", errScript, a)
		}
	}
	return req, nil
}

func (s *script) txn() (*pb.TxnRequest, error) {
	req := &pb.TxnRequest{}
	for {
		var err error
		switch s.peek() {
		case "if":
			s.next()
			req.Compare = append(req.Compare, parseCompare(s.next(), s.next(), s.next(), s.next()))
		case "then":
			s.next()
			req.Success, err = s.ops()
		case "else":
			s.next()
			req.Failure, err = s.ops()
		default:
			return req, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *script) ops() (out []*pb.RequestOp, err error) {
	for sep := s.next(); sep == "[" || sep == ";"; sep = s.next() {
		switch s.peek() {
		case "]":
			continue
		case "nothing": // an operation that is none
			s.next()
			out = append(out, &pb.RequestOp{})
			continue
		}
		req, err := s.op()
		if err != nil {
			return nil, err
		}
		op := &pb.RequestOp{}
		switch r := req.(type) {
		case *pb.PutRequest:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: r}
		case *pb.DeleteRangeRequest:
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}
		case *pb.RangeRequest:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: r}
		case *pb.TxnRequest:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: r}
		}
		out = append(out, op)
	}
	return out, nil
}

func parseCompare(target, keys, op, arg string) *pb.Compare {
	key, end, _ := strings.Cut(keys, "..")
	c := &pb.Compare{
		Key: []byte(key), RangeEnd: []byte(end),
		Target: pb.Compare_CompareTarget(enum(strings.ToUpper(target), pb.Compare_CompareTarget_value)),
		Result: pb.Compare_CompareResult(enum(map[string]string{
			"=": "EQUAL", "!=": "NOT_EQUAL", ">": "GREATER", "<": "LESS",
		}[op], pb.Compare_CompareResult_value)),
	}
	n, _ := strconv.ParseInt(arg, 10, 64)
	switch c.Target {
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte(arg)}
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: n}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: n}
	}
	return c
}

// enum finds a name of the API; what is none becomes a number that the API
// does not know.
func enum(name string, values map[string]int32) int32 {
	if v, ok := values[name]; ok {
		return v
	}
	return 99
}

// number splits name=N; max is the largest N.
func number(arg string) (name string, n int64) {
	name, value, ok := strings.Cut(arg, "=")
	if !ok {
		return "", 0
	}
	if value == "max" {
		return name, math.MaxInt64
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return "", 0
	}
	return name, n
}
