package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Target is what of a key a Compare looks at.
type Target int

// The targets. Each is compared for equality.
const (
	CompareValue Target = iota
	CompareMod
	CompareCreate
	CompareVersion
)

// Compare is one condition of a transaction: the target of the key equals Value or Number.
type Compare struct {
	Key    string
	Target Target
	Value  string
	Number int64
}

// ActionKind is what an Action does.
type ActionKind int

// The kinds.
const (
	Range ActionKind = iota
	Put
	Delete
)

// Action is one request on keys.
type Action struct {
	Kind ActionKind
	Key  string
	End  string // of the range [Key, End); empty: Key alone
	// Value and Lease are of a Put.
	Value string
	Lease int64
	// Prev asks a Put or a Delete for what was there before.
	Prev bool
}

// Request is an operation as it was asked for: Then if all Compares hold, else Else. What is no transaction has one
// action in Then and no Compares.
type Request struct {
	Txn      bool
	Compares []Compare
	Then     []Action
	Else     []Action
	// Serializable and Revision (0: the newest) are of a single Range.
	Serializable bool
	Revision     int64
}

// Writes tells whether the request may change something.
func (r *Request) Writes() bool {
	writes := func(a Action) bool { return a.Kind != Range }
	return slices.ContainsFunc(r.Then, writes) || slices.ContainsFunc(r.Else, writes)
}

// values are the values that the request may put.
func (r *Request) values() (out []string) {
	for _, a := range slices.Concat(r.Then, r.Else) {
		if a.Kind == Put {
			out = append(out, a.Value)
		}
	}
	return out
}

// String is the request in short.
func (r *Request) String() string {
	var b strings.Builder
	if r.Serializable {
		b.WriteString("serializable ")
	}
	if r.Revision != 0 {
		fmt.Fprintf(&b, "at %d ", r.Revision)
	}
	if r.Txn {
		fmt.Fprintf(&b, "if %v then %v else %v", r.Compares, r.Then, r.Else)
	} else {
		fmt.Fprintf(&b, "%v", r.Then)
	}
	return b.String()
}

// String is the action in short.
func (a Action) String() string {
	keys := a.Key
	if a.End != "" {
		keys = fmt.Sprintf("[%s,%s)", a.Key, a.End)
	}
	switch a.Kind {
	case Put:
		return fmt.Sprintf("put %s=%s", keys, brief(a.Value))
	case Delete:
		return "delete " + keys
	default:
		return "range " + keys
	}
}

// String is the condition in short.
func (c Compare) String() string {
	if c.Target == CompareValue {
		return fmt.Sprintf("%s is %q", c.Key, brief(c.Value))
	}
	return fmt.Sprintf("%s of %s is %d", [...]string{"", "mod", "create", "version"}[c.Target], c.Key, c.Number)
}

// brief cuts what is too long to print.
func brief(value string) string {
	const most = 40
	if len(value) > most {
		return fmt.Sprintf("%s...(%d bytes)", value[:most], len(value))
	}
	return value
}

// KV is one key with all that the store says of it.
type KV struct {
	Key, Value                    string
	Create, Mod, Version, LeaseID int64
}

// String is the key in short.
func (kv KV) String() string {
	return fmt.Sprintf("%s=%s(create %d mod %d version %d lease %x)", kv.Key, brief(kv.Value), kv.Create, kv.Mod, kv.Version, kv.LeaseID)
}

// Result is the answer to one Action: the keys of a Range, or what was there before a Put or a Delete that asked for it.
type Result struct {
	KVs   []KV
	Count int64 // keys in the range, or deleted
}

// Response is the answer to a Request.
type Response struct {
	Revision  int64 // of the header
	Succeeded bool  // all Compares held
	Results   []Result
}

func (r Response) equal(other Response) bool {
	return r.Revision == other.Revision && r.Succeeded == other.Succeeded &&
		slices.EqualFunc(r.Results, other.Results, func(a, b Result) bool { return a.Count == b.Count && slices.Equal(a.KVs, b.KVs) })
}

// Outcome is what is known of an operation's end.
type Outcome int

// The outcomes.
const (
	Done    Outcome = iota
	NotDone         // the error says so
	Unknown
)

// Op is one operation of one client.
type Op struct {
	Client  string // its operations follow each other
	Request Request
	// Call and Return are times since the beginning, the same for all clients of the record.
	Call, Return time.Duration
	Outcome      Outcome
	Response     Response // if Done
	Err          string   // if not
	Code         codes.Code
	// Conn is the connection that carried all of it, counted per client from 1; 0: not known.
	Conn int64
}

// String is the operation on one line.
func (o *Op) String() string {
	end := fmt.Sprintf("%d %t %v", o.Response.Revision, o.Response.Succeeded, o.Response.Results)
	if o.Outcome != Done {
		end = o.Err
	}
	return fmt.Sprintf("%s [%v, %v] %v -> %s", o.Client, o.Call.Round(time.Microsecond), o.Return.Round(time.Microsecond), &o.Request, end)
}
