package differential

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Limits that both systems have by default.
const (
	txnOpsMax       = 128
	requestBytesMax = 1_572_864
	ttlMaxS         = 9_000_000_000
)

// Generator makes requests from a seed. What it has learned from the answers so far makes them hit: Learn after each.
type Generator struct {
	rng         *rand.Rand
	head        int64          // highest revision seen
	compact     int64          // last revision that was compacted
	compactions map[int64]bool // all of them
	leases      []int64
	queued      []Op // what must follow the last request
}

// NewGenerator makes a Generator for two fresh systems.
func NewGenerator(seed uint64) *Generator {
	return &Generator{rng: rand.New(rand.NewPCG(seed, 0)), head: 1, compactions: map[int64]bool{}}
}

// Next makes the next request.
func (g *Generator) Next() Op { return g.asked(g.draw()) }

// asked is the request, or what MustDiffer says that is asked in its place.
func (g *Generator) asked(op Op) Op {
	for _, e := range MustDiffer() {
		if e.instead != nil {
			op = e.instead(g, op)
		}
	}
	return op
}

func (g *Generator) draw() Op {
	if len(g.queued) > 0 {
		op := g.queued[0]
		g.queued = g.queued[1:]
		return op
	}
	switch n := g.rng.IntN(100); {
	case n < 22:
		return Op{methodRange, g.rangeRequest()}
	case n < 27:
		return Op{methodStream, g.rangeRequest()}
	case n < 50:
		return Op{methodPut, g.put()}
	case n < 58:
		return Op{methodDelete, g.deleteRange()}
	case n < 81:
		return Op{methodTxn, g.txn(0)}
	case n < 83:
		return Op{methodCompact, &pb.CompactionRequest{Revision: g.revision(), Physical: g.chance(2)}}
	case n < 88:
		return g.grant()
	case n < 90:
		return Op{methodRevoke, &pb.LeaseRevokeRequest{ID: g.lease()}}
	case n < 93:
		return Op{methodTimeToLive, &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: g.chance(2)}}
	case n < 94:
		return Op{methodLeases, &pb.LeaseLeasesRequest{}}
	case n < 97:
		return Op{methodKeepAlive, &pb.LeaseKeepAliveRequest{ID: g.lease()}}
	case n < 99:
		return Op{methodHashKV, &pb.HashKVRequest{Revision: g.revision()}}
	default:
		return g.upkeep()
	}
}

// Learn takes what etcd answered.
func (g *Generator) Learn(op Op, answer Outcome) {
	if m, ok := answer.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok && answer.Response != nil {
		g.head = max(g.head, m.GetHeader().GetRevision())
	}
	switch r := op.Request.(type) {
	case *pb.CompactionRequest:
		if answer.Response != nil {
			g.compact = r.GetRevision()
			g.compactions[g.compact] = true
		}
	case *pb.LeaseGrantRequest:
		granted, ok := answer.Response.(*pb.LeaseGrantResponse)
		if !ok || answer.Response == nil {
			return
		}
		if follow := g.afterGrant(r, granted.GetID()); follow != nil {
			g.queued = append(g.queued, follow...)
			return
		}
		g.leases = append(g.leases, granted.GetID())
	}
}

// afterGrant is what must follow the grant of a lease that cannot stay: one that would run out in the middle of the run,
// and one whose id the systems chose themselves. Such an id never comes beside a key: the two databases would differ by it,
// and so would their hashes.
func (g *Generator) afterGrant(r *pb.LeaseGrantRequest, id int64) []Op {
	revoke := Op{methodRevoke, &pb.LeaseRevokeRequest{ID: id}}
	switch {
	case r.GetID() == 0:
		return []Op{
			{methodLeases, &pb.LeaseLeasesRequest{}},
			{methodTimeToLive, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}},
			{methodKeepAlive, &pb.LeaseKeepAliveRequest{ID: id}},
			revoke,
		}
	case r.GetTTL() < longTTLS:
		// No key hangs on it: where the machine stands still for longer than the lease lives, one system may expire it and the other not.
		return []Op{revoke}
	}
	return nil
}

// longTTLS outlasts every run, in seconds.
const longTTLS = 100_000

func (g *Generator) grant() Op {
	ids := []int64{0, g.rng.Int64N(1000) + 1, g.rng.Int64N(1000) + 1, g.lease(), -7}
	ttls := []int64{longTTLS, longTTLS + g.rng.Int64N(1000), ttlMaxS, ttlMaxS + 1, 1, 0, -1}
	request := &pb.LeaseGrantRequest{ID: pick(g.rng, ids), TTL: longTTLS}
	if g.chance(4) {
		request.TTL = pick(g.rng, ttls)
	}
	return Op{methodGrant, request}
}

// chance is true once in n times.
func (g *Generator) chance(n int) bool { return g.rng.IntN(n) == 0 }

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// key is one of a few keys, so that requests meet, and seldom the empty one.
func (g *Generator) key() []byte {
	switch n := g.rng.IntN(100); {
	case n < 2:
		return nil
	case n < 4:
		return pick(g.rng, [][]byte{{0}, {0xff}, {0xff, 0xff}, bytes.Repeat([]byte("k"), 3000)})
	case n < 50:
		return pick(g.rng, [][]byte{[]byte("a"), []byte("aa"), []byte("ab"), []byte("b"), []byte("b\x00"), []byte("c")})
	default:
		return fmt.Appendf(nil, "foo/%d", g.rng.IntN(20))
	}
}

// rangeEnd goes with a key: mostly none or one that makes sense.
func (g *Generator) rangeEnd(key []byte) []byte {
	switch n := g.rng.IntN(10); {
	case n < 4:
		return nil
	case n < 6:
		return []byte{0}
	case n < 8 && len(key) > 0:
		end := bytes.Clone(key)
		end[len(end)-1]++
		return end
	case n < 9:
		return []byte("foo0")
	default:
		return g.key()
	}
}

// revision is 0, one in the history, a compacted, a future or an impossible one.
func (g *Generator) revision() int64 {
	switch n := g.rng.IntN(20); {
	case n < 8:
		return 0
	case n < 15:
		return g.compact + g.rng.Int64N(g.head-g.compact+1)
	case n < 16:
		return g.compact + g.rng.Int64N(3) - 1
	case n < 17:
		return g.rng.Int64N(g.compact + 1)
	case n < 18:
		return g.head
	case n < 19:
		return g.head + g.rng.Int64N(3) + 1
	default:
		return pick(g.rng, []int64{-1, 1 << 40, -1 << 63, 1<<63 - 1})
	}
}

// lease is a known one, an unknown one or none.
func (g *Generator) lease() int64 {
	if len(g.leases) > 0 && !g.chance(5) {
		return pick(g.rng, g.leases)
	}
	return pick(g.rng, []int64{0, 12345, -1})
}

func (g *Generator) value() []byte {
	switch n := g.rng.IntN(1000); {
	case n < 100:
		return nil
	case n < 110:
		return bytes.Repeat([]byte("v"), 100<<10)
	case n < 112:
		// Around the largest request, and around the largest message that gRPC takes.
		return make([]byte, pick(g.rng, []int{requestBytesMax - 100, requestBytesMax, requestBytesMax + 100}))
	case n < 113:
		return make([]byte, requestBytesMax+600<<10)
	default:
		return fmt.Appendf(nil, "value-%d", g.rng.IntN(50))
	}
}
