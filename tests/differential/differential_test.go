package differential_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/differential"
	"github.com/holdfastdb/holdfast/tests/framework"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the requests; 0 takes HOLDFAST_SEED or a new one")
	durationFlag = flag.Duration("duration", 4*time.Second, "how long each comparison goes on")
	systemFlag   = flag.String("system", "standalone", "what is compared with etcd: standalone, split, or etcd to check the comparison itself")
	shrinkFlag   = flag.Int("shrink", 60, "most attempts to make a failing sequence shorter; each starts both systems anew")
	withoutFlag  = flag.String("without", "", "methods that are left out, for example LeaseKeepAlive,HashKV")
	moreFlag     = flag.Int("differences", 1, "differences after which a run ends; those after the first may follow from it")
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd")...))
}

// seed is the seed of this run.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if text := os.Getenv("HOLDFAST_SEED"); s == 0 && text != "" {
		var err error
		s, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed=%d)", s, s)
	return s
}

// systems starts the system of ours that is tested, and an etcd.
func systems(t *testing.T) (ours, etcd *framework.Cluster) {
	t.Helper()
	etcd = framework.Etcd(t, framework.Options{Args: []string{"--unsafe-no-fsync"}})
	switch *systemFlag {
	case "standalone":
		return framework.Standalone(t, framework.Options{}), etcd
	case "split":
		return framework.Split(t, framework.Options{}), etcd
	case "etcd": // proves the comparison itself
		return framework.Etcd(t, framework.Options{Args: []string{"--unsafe-no-fsync"}}), etcd
	case "kv":
		return framework.Split(t, framework.Options{Without: []string{"hub1", "hub2", "lease1", "lease2"}}), etcd
	}
	t.Fatalf("no system is called %q", *systemFlag)
	return nil, nil
}

func newPair(t *testing.T) (*differential.Pair, *framework.Cluster) {
	t.Helper()
	ours, etcd := systems(t)
	return differential.NewPair(ours.Conn(t, ours.Endpoints()[0]), etcd.Conn(t, etcd.Endpoints()[0])), etcd
}

// endsMax is how often etcd may end in one test.
const endsMax = 3

// ended tells whether etcd has ended by itself, which is no difference: see "etcd's end" in MustDiffer. Its output says why.
func ended(t *testing.T, etcd *framework.Cluster) bool {
	t.Helper()
	const patience, every = time.Second, 20 * time.Millisecond
	for range patience / every {
		if len(etcd.Running()) == 0 {
			for line := range strings.Lines(etcd.Output(t)) {
				if strings.Contains(line, `"fatal"`) || strings.Contains(line, "panic") {
					t.Logf("etcd has ended by itself: %.300s", line)
				}
			}
			return true
		}
		time.Sleep(every)
	}
	return false
}

// The same requests in the same order get the same answers, field by field.
func TestRequests(t *testing.T) {
	s := seed(t)
	pair, etcd := newPair(t)
	generator := differential.NewGenerator(s)
	var ops []differential.Op
	var found []*differential.Difference
	ends := 0
	for end := time.Now().Add(*durationFlag); time.Now().Before(end); {
		op := generator.Next()
		if leftOut(op.Method) {
			continue
		}
		answer, d := pair.Do(t.Context(), op)
		ops = append(ops, op)
		generator.Learn(op, answer)
		if d != nil && ended(t, etcd) {
			if ends++; ends > endsMax {
				t.Fatalf("seed %d: etcd ends again and again, at last at %s", s, op)
			}
			s++
			pair, etcd = newPair(t)
			generator, ops = differential.NewGenerator(s), nil
			continue
		}
		if d != nil {
			d.At = len(ops) - 1
			found = append(found, d)
			t.Errorf("seed %d, %s", s, d)
			if len(found) >= *moreFlag {
				break
			}
		}
	}
	t.Logf("%d requests", len(ops))
	if testing.Verbose() {
		t.Log("what etcd answered to what, and how often:\n" + pair.Covered())
	}
	if len(found) == 0 {
		require.Greater(t, len(ops), 50, "too few requests to say anything")
	} else if *shrinkFlag > 0 {
		shrink(t, ops[:found[0].At+1])
	}
}

func leftOut(method string) bool {
	for name := range strings.SplitSeq(*withoutFlag, ",") {
		if name != "" && strings.HasSuffix(method, "/"+name) {
			return true
		}
	}
	return false
}

// shrink prints a shorter sequence that fails too.
func shrink(t *testing.T, ops []differential.Op) {
	t.Helper()
	short := differential.Shrink(ops, *shrinkFlag, func(ops []differential.Op) bool {
		failed := false
		t.Run("shrink", func(t *testing.T) {
			pair, etcd := newPair(t)
			failed = pair.Replay(t.Context(), ops) != nil && len(etcd.Running()) > 0
		})
		return failed
	})
	var text strings.Builder
	for _, op := range short {
		text.WriteString(op.String() + "\n")
	}
	t.Logf("%d of %d requests differ too:\n%s", len(short), len(ops), text.String())
}

// The same watches between the same writes are told the same.
func TestWatches(t *testing.T) {
	s := seed(t)
	pair, etcd := newPair(t)
	generator := differential.NewGenerator(s)
	rounds, ends := 0, 0
	const steps = 60
	for end := time.Now().Add(*durationFlag); time.Now().Before(end); rounds++ {
		found, asked, err := differential.RunWatchRound(t.Context(), pair, generator, steps)
		if (len(found) > 0 || err != nil) && ends < endsMax && ended(t, etcd) {
			ends++
			s++
			pair, etcd = newPair(t)
			generator = differential.NewGenerator(s)
			continue
		}
		if len(found) > 0 || err != nil {
			t.Fatalf("seed %d, round %d: %v\n%s\nafter\n%s", s, rounds, err, strings.Join(found, "\n"), strings.Join(asked, "\n"))
		}
	}
	t.Logf("%d rounds of %d steps", rounds, steps)
	require.Positive(t, rounds)
}
