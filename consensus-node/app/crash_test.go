package app

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the random tests; 0: HOLDFAST_SEED, or the time")
	durationFlag = flag.Duration("duration", 4*time.Second, "how long random tests go on")
)

// newRand returns the test's source of chance, and prints its seed on failure.
func newRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if env := os.Getenv("HOLDFAST_SEED"); seed == 0 && env != "" {
		var err error
		seed, err = strconv.ParseUint(env, 10, 64)
		require.NoError(t, err, "HOLDFAST_SEED")
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with -seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

// image is a data directory as a crash leaves it.
type image struct {
	what     string
	log      *faultfs.FS
	database []byte
	// acknowledged is the highest revision that a client had been told of by then.
	acknowledged int64
}

// victim is a node that is photographed while it works. Its database is committed when the test says so and at no other time.
type victim struct {
	t    *testing.T
	rng  *rand.Rand
	cfg  *Config
	fs   *faultfs.FS
	node *running
	call *caller

	acknowledged atomic.Int64
	leases       []int64
	database     []byte // as of the last commit
	seen         history
}

// Small bounds, so that segments rotate, the log is cut and compactions are long.
func crashConfig(t *testing.T, dir string) *Config {
	t.Helper()
	cfg := testConfig(t, dir, "--snapshot-count=20", "--snapshot-catchup-entries=5",
		"--heartbeat-interval=4", "--election-timeout=20")
	cfg.logSegmentBytes = 8 << 10
	return cfg
}

func newVictim(t *testing.T, rng *rand.Rand) *victim {
	t.Helper()
	v := &victim{t: t, rng: rng, cfg: crashConfig(t, t.TempDir()), fs: faultfs.New(rng.Uint64()), seen: history{}}
	v.cfg.logFS = v.fs
	v.cfg.tuneStore = func(o *store.Options) { o.CommitInterval, o.CommitOps, o.CommitBytes = math.MaxInt64, 1<<40, 1<<40 }
	v.node = runNode(t, v.cfg)
	require.Eventually(t, v.node.Listed, 20*time.Second, 5*time.Millisecond)
	v.database = v.readDatabase()
	return v
}

func (v *victim) readDatabase() []byte {
	v.t.Helper()
	data, err := os.ReadFile(v.cfg.databasePath())
	require.NoError(v.t, err)
	return data
}

// burst sends a batch of calls, and takes an image in the middle of one of the changes that they make to the log.
func (v *victim) burst() (images []image) {
	v.t.Helper()
	v.fs.ForkAt(v.rng.IntN(8), v.rng.Uint64(), func(fork *faultfs.FS) {
		images = append(images, image{what: "amid a burst", log: fork, database: v.database, acknowledged: v.acknowledged.Load()})
	})
	var calls []*consensusv1.Call
	for range 1 + v.rng.IntN(12) {
		calls = append(calls, v.random()...)
	}
	for i, answer := range v.call.do(calls...) {
		if answer.GetCode() == 0 && calls[i].GetMethod() == consensusv1.Method_METHOD_PUT {
			v.acknowledged.Store(max(v.acknowledged.Load(), answer.GetRevision()))
		}
	}
	if v.rng.IntN(4) == 0 {
		v.outOfBand()
	}
	v.fs.ForkAt(0, 0, nil) // what was not reached is called off
	v.seen.read(v.t, v.fs.Fork(0), v.cfg.logDir())
	return images
}

// random is one thing that clients ask, or a few that belong together.
func (v *victim) random() []*consensusv1.Call {
	one := func(method consensusv1.Method, request proto.Message) []*consensusv1.Call {
		return []*consensusv1.Call{call(v.t, method, request)}
	}
	key := func() []byte { return fmt.Appendf(nil, "k%03d", v.rng.IntN(300)) }
	value := make([]byte, v.rng.IntN(200))
	for i := range value {
		value[i] = byte(v.rng.Uint32())
	}
	switch v.rng.IntN(12) {
	case 0:
		return one(consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: key(), RangeEnd: key()})
	case 1, 2:
		ops := []*pb.RequestOp{}
		for i := range 1 + v.rng.IntN(40) {
			k := fmt.Appendf(nil, "t%03d", (i*7+v.rng.IntN(7))%300)
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k, Value: value}}})
		}
		return one(consensusv1.Method_METHOD_TXN, &pb.TxnRequest{Success: ops})
	case 3:
		id := int64(1 + v.rng.IntN(1000))
		v.leases = append(v.leases, id)
		return one(consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{ID: id, TTL: 1000})
	case 4:
		return one(consensusv1.Method_METHOD_LEASE_REVOKE, &pb.LeaseRevokeRequest{ID: v.lease()})
	case 5:
		return one(consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: key(), Value: value, Lease: v.lease()})
	case 6:
		return one(consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: v.acknowledged.Load() - int64(v.rng.IntN(20))})
	case 7:
		alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(1 + v.rng.IntN(3)), Alarm: pb.AlarmType_NOSPACE}
		lower := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: alarm.Alarm}
		calls := one(consensusv1.Method_METHOD_ALARM, alarm)
		if v.rng.IntN(4) > 0 {
			calls = append(calls, one(consensusv1.Method_METHOD_ALARM, lower)...)
		}
		return calls
	}
	return one(consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: key(), Value: value})
}

func (v *victim) lease() int64 {
	if len(v.leases) == 0 {
		return 1
	}
	return v.leases[v.rng.IntN(len(v.leases))]
}

// outOfBand does what services ask: the view of the lease-service and the member's attributes change. Alarms that were left end.
func (v *victim) outOfBand() {
	v.t.Helper()
	client := consensusv1.NewConsensusClient(v.node.direct)
	ctx, cancel := context.WithTimeout(v.t.Context(), 10*time.Second)
	defer cancel()
	instance := &feedv1.Instance{Name: fmt.Sprintf("i%d", v.rng.IntN(3)), Incarnation: 1 + uint64(v.rng.IntN(2)), Address: "127.0.0.1:1"}
	_, _ = client.LeaseHeartbeat(ctx, &consensusv1.LeaseHeartbeatRequest{Instance: instance, Leave: v.rng.IntN(2) == 0})
	url := fmt.Sprintf("http://127.0.0.1:%d", 1+v.rng.IntN(1000))
	_, err := client.SetMember(ctx, &consensusv1.Member{Id: v.node.memberID, Name: v.cfg.Name, ClientUrls: []string{url}})
	require.NoError(v.t, err)
	for id := range uint64(3) {
		lower := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: id + 1, Alarm: pb.AlarmType_NOSPACE}
		read[pb.AlarmResponse](v.t, v.call.do(call(v.t, consensusv1.Method_METHOD_ALARM, lower))[0])
	}
}

// commit has the database committed, and takes images of the middle of it: the file before, with what the commit writes in any state that
// a power cut may leave.
func (v *victim) commit() (images []image) {
	v.t.Helper()
	_, applied := nodeText(v.t, v.node.Node)
	log, acknowledged := v.fs.Fork(v.rng.Uint64()), v.acknowledged.Load()
	before := v.database
	require.NoError(v.t, v.node.disk.store.Flush(v.t.Context()))
	v.database = v.readDatabase()
	v.seen.read(v.t, v.fs.Fork(0), v.cfg.logDir())
	if v.node.disk.store.Durable() > applied {
		return nil // the node has written something of its own between the two: they are not of one moment
	}
	torn := func(what string, database []byte) {
		images = append(images, image{what: what, log: log.Fork(v.rng.Uint64()), database: database, acknowledged: acknowledged})
	}
	torn("amid the pages of a commit", tornPages(v.rng, before, v.database))
	torn("amid the root of a commit", tornRoot(v.rng, before, v.database))
	torn("after a commit", v.database)
	return images
}

const (
	pageBytes   = 4096
	sectorBytes = 512
	rootPages   = 2 // bbolt's two meta pages, written in turn after all else is durable
)

// tornPages is a file whose commit had not come to its root: any sectors of the other pages are written, or not.
func tornPages(rng *rand.Rand, before, after []byte) []byte {
	out := make([]byte, max(len(before), len(after)))
	copy(out, before)
	for at := rootPages * pageBytes; at < len(after); at += sectorBytes {
		if rng.IntN(2) == 0 {
			copy(out[at:at+sectorBytes], after[at:])
		}
	}
	if len(after) > len(before) && rng.IntN(2) == 0 {
		out = out[:len(before)] // the file had not grown yet either
	}
	return out
}

// tornRoot is a file whose commit had written all but some bytes of its root.
func tornRoot(rng *rand.Rand, before, after []byte) []byte {
	out := make([]byte, len(after))
	copy(out, after)
	for page := range rootPages {
		for at := page * pageBytes; at < (page+1)*pageBytes; at++ {
			if before[at] != after[at] && rng.IntN(2) == 0 {
				out[at] = before[at]
			}
		}
	}
	return out
}

// restore starts a node from an image and compares all that it holds with the model: as the database has it, and after the log was replayed.
func (v *victim) restore(img image) {
	t := v.t
	t.Helper()
	powerCut := v.rng.IntN(2) == 0
	if powerCut {
		img.log.Restart()
	} else {
		img.log.Kill()
	}
	seen := maps.Clone(v.seen)
	what := fmt.Sprintf("%s, power cut %v", img.what, powerCut)
	cfg := crashConfig(t, t.TempDir())
	cfg.logFS = redirected{FS: img.log, from: cfg.logDir(), to: v.cfg.logDir()}
	require.NoError(t, os.MkdirAll(cfg.snapDir(), 0o700))
	require.NoError(t, os.WriteFile(cfg.databasePath(), img.database, 0o600))

	opened, err := Open(cfg, discarding())
	require.NoError(t, err, what)
	text, index := nodeText(t, opened)
	require.Equal(t, replay(t, seen, index).text(t), text, what+": the database is no prefix of the log")
	require.NoError(t, opened.Close())

	node := runNode(t, cfg)
	require.Eventually(t, node.Listed, 20*time.Second, time.Millisecond)
	text, index = nodeText(t, node.Node)
	seen.read(t, redirected{FS: img.log.Fork(0), from: cfg.logDir(), to: v.cfg.logDir()}, cfg.logDir())
	want := replay(t, seen, index)
	require.Equal(t, want.text(t), text, what+": state is not that of the log replayed once")
	view := want.machine.View()
	require.GreaterOrEqual(t, view.KV.Revision(), img.acknowledged, what+": an acknowledged write is lost")
	if compacted := view.KV.CompactRevision(); compacted > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		require.NoError(t, node.machine.AwaitCompacted(ctx, compacted), what)
	}
	want.compact()
	require.Equal(t, want.keys(), storedKeys(t, node.Node), what+": the compaction did not go to its end")
	node.stop()
}

// keys are the revisions that the model's bucket holds.
func (m *model) keys() (keys []string) {
	for k := range m.stored() {
		keys = append(keys, fmt.Sprintf("%x", k))
	}
	return keys
}

func storedKeys(t *testing.T, n *Node) (keys []string) {
	t.Helper()
	reader, err := n.disk.store.Reader()
	require.NoError(t, err)
	defer reader.Close()
	var damage error
	for k := range reader.Stored(&damage) {
		keys = append(keys, fmt.Sprintf("%x", k))
	}
	require.NoError(t, damage)
	return keys
}

// From any kill point between log, apply, commit of the database and cutting of the log, state is that of the log replayed once: no write
// is lost and none is applied twice.
func TestAnyCrashIsRecoveredFrom(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	v := newVictim(t, rng)
	tried := map[string]int{}
	for until := time.Now().Add(*durationFlag); time.Now().Before(until); {
		v.call = newCaller(t, v.node.direct) // a stream does not live as long as a long run
		var images []image
		for range 1 + rng.IntN(30) {
			images = append(images, v.burst()...)
		}
		images = append(images, v.commit()...)
		for range 2 {
			img := images[rng.IntN(len(images))]
			img.log = img.log.Fork(rng.Uint64())
			tried[img.what]++
			v.restore(img)
		}
	}
	v.node.stop()
	t.Logf("%v, %d entries", tried, len(v.seen))
}

// redirected is a file system whose one directory bears another path.
type redirected struct {
	vfs.FS
	from, to string
}

func (r redirected) at(name string) string { return r.to + strings.TrimPrefix(name, r.from) }

func (r redirected) MkdirAll(dir string) error               { return r.FS.MkdirAll(r.at(dir)) }
func (r redirected) Create(name string) (vfs.File, error)    { return r.FS.Create(r.at(name)) }
func (r redirected) Open(name string) (vfs.File, error)      { return r.FS.Open(r.at(name)) }
func (r redirected) OpenReadOnly(n string) (vfs.File, error) { return r.FS.OpenReadOnly(r.at(n)) }
func (r redirected) Rename(oldname, newname string) error {
	return r.FS.Rename(r.at(oldname), r.at(newname))
}
func (r redirected) Remove(name string) error            { return r.FS.Remove(r.at(name)) }
func (r redirected) List(dir string) ([]string, error)   { return r.FS.List(r.at(dir)) }
func (r redirected) SyncDir(dir string) error            { return r.FS.SyncDir(r.at(dir)) }
func (r redirected) Lock(name string) (io.Closer, error) { return r.FS.Lock(r.at(name)) }
