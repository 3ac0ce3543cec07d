package mvcc

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// lastValue answers every revision with one value: benchmarks measure the core
// and not the map of a test.
type lastValue struct{ kv mvccpb.KeyValue }

func (l *lastValue) Value(Revision) (*mvccpb.KeyValue, error) { return &l.kv, nil }

const benchKeys = 1_000_000

func benchKey(i int) []byte { return fmt.Appendf(nil, "/registry/pods/default/pod-%08d", i) }

// million returns a State of benchKeys keys, made as a restart makes it.
func million() *State {
	l := NewLoader(-1)
	kv := &mvccpb.KeyValue{Version: 1}
	for i := range benchKeys {
		rev := Revision{Main: int64(i) + 2}
		kv.Key, kv.CreateRevision, kv.ModRevision = benchKey(i*7919%benchKeys), rev.Main, rev.Main
		if err := l.Add(rev, false, kv); err != nil {
			panic(err)
		}
	}
	return l.State()
}

func BenchmarkRestoreMillion(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s *State
	for b.Loop() {
		s = million()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/benchKeys, "heap-B/key")
	runtime.KeepAlive(s)
}

func BenchmarkPut(b *testing.B) {
	for _, perView := range []int{1, 100} {
		b.Run(fmt.Sprintf("puts-per-view=%d", perView), func(b *testing.B) {
			s, n := million(), 0
			keys := make([][]byte, 1<<16)
			for i := range keys {
				keys[i] = benchKey(rand.IntN(benchKeys))
			}
			env := Env{Values: &lastValue{}}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Put(&pb.PutRequest{Key: keys[n%len(keys)], Value: keys[0]}, env); err != nil {
					b.Fatal(err)
				}
				if n++; n%perView == 0 {
					s.View()
				}
			}
		})
	}
}

func BenchmarkRange(b *testing.B) {
	s := million()
	v, vals := s.View(), &lastValue{}
	for name, req := range map[string]*pb.RangeRequest{
		"one-key":      {Key: benchKey(4711)},
		"limit-500":    {Key: benchKey(0), RangeEnd: benchKey(500), Limit: 500},
		"count-10000":  {Key: benchKey(0), RangeEnd: benchKey(10000), CountOnly: true},
		"keys-only-50": {Key: benchKey(0), RangeEnd: benchKey(50), KeysOnly: true},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Range(req, vals); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkView(b *testing.B) {
	s := million()
	b.ReportAllocs()
	for b.Loop() {
		s.view = nil
		s.View()
	}
}
