package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// onDisk is the real store on a real file. It commits only when told to, and a crash takes the file as the last commit left it. What a power
// cut makes of bbolt's pages is not simulated: nothing is synced, for speed.
type onDisk struct {
	node.Store
	m       *machine
	dir     string
	real    *store.Store
	waiting int
}

var _ database = (*onDisk)(nil)

func (d *onDisk) path() string { return filepath.Join(d.dir, "db") }

// never is longer than any run: commits happen on request alone.
const never = time.Duration(math.MaxInt64)

// open does what the program does before and when it opens its database.
func (d *onDisk) open(mark uint64) error {
	if mark > 0 {
		meta, err := store.ReadMeta(d.path())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		image := raftnode.IncomingImage(d.dir, mark)
		if _, err := os.Stat(image); err == nil && meta.Index < mark {
			if err := os.Rename(image, d.path()); err != nil {
				return err
			}
		}
	}
	if err := raftnode.RemoveIncoming(d.dir); err != nil {
		return err
	}
	const small = 16 << 20
	s, err := store.Open(d.path(), store.Options{
		NoSync: true, MapBytes: small, CommitInterval: never, CommitOps: 1 << 30, CommitBytes: 1 << 30, MaxPendingBytes: 1 << 30,
		OnFailure: func(err error) { panic(err) },
	})
	if err != nil {
		return err
	}
	d.real, d.Store, d.waiting = s, node.Database(s), 0
	return nil
}

// Apply implements node.Store.
func (d *onDisk) Apply(b store.Batch) error {
	d.waiting++
	return d.Store.Apply(b)
}

// Image implements node.Store. It commits first, as the real one does.
func (d *onDisk) Image(ctx context.Context) (raftnode.Image, error) {
	img, err := d.Store.Image(ctx)
	d.waiting = 0
	d.m.refresh()
	return img, err
}

// Install implements node.Store.
func (d *onDisk) Install(path string) error {
	d.waiting = 0
	if err := d.Store.Install(path); err != nil {
		return err
	}
	d.m.refresh()
	return nil
}

func (d *onDisk) meta() (store.Meta, error) { return d.real.Meta() }
func (d *onDisk) pending() int              { return d.waiting }

// commit makes all that waits durable: the real store has no smaller step.
func (d *onDisk) commit(int) error {
	if d.waiting == 0 {
		return nil
	}
	d.waiting = 0
	err := d.real.Flush(context.Background())
	d.m.refresh()
	return err
}

// crash keeps the file as it is now, whatever closing the store would write.
func (d *onDisk) crash(landed int) {
	if d.real == nil {
		return
	}
	if landed > 0 {
		if err := d.commit(-1); err != nil {
			panic(err)
		}
	}
	content, err := os.ReadFile(d.path())
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = d.real.Close(ctx)
	}
	if err == nil {
		err = os.WriteFile(d.path(), content, 0o600)
	}
	if err != nil {
		panic(fmt.Sprintf("crash of the store in %s: %v", d.dir, err))
	}
	d.real, d.waiting = nil, 0
}

func (d *onDisk) payload(img raftnode.Image) (any, error) {
	var b bytes.Buffer
	_, err := img.WriteTo(&b)
	return b.Bytes(), err
}

func (d *onDisk) receive(index uint64, payload any) (string, error) {
	path := raftnode.IncomingImage(d.dir, index)
	return path, os.WriteFile(path, payload.([]byte), 0o600)
}

func (d *onDisk) discard(path string) { _ = os.Remove(path) }

// refresh tells the node that the store has a newer generation.
func (m *machine) refresh() {
	if m.node != nil {
		m.node.Refresh()
	}
}

// onFiles makes databases in a directory of the test's own.
func onFiles(t *testing.T) func(m *machine) database {
	t.Helper()
	dir := t.TempDir()
	return func(m *machine) database {
		d := &onDisk{m: m, dir: filepath.Join(dir, fmt.Sprintf("%d-%d", m.w.seed, m.id))}
		if err := os.RemoveAll(d.dir); err != nil {
			panic(err)
		}
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			panic(err)
		}
		return d
	}
}

// TestRealStore is TestSimulation on the real store, for some seeds.
func TestRealStore(t *testing.T) {
	seed := firstSeed(t)
	for n := range *realFlag {
		s := seed + uint64(n)
		r := simulate(s, none, asDrawn, onFiles(t))
		if r.failure != "" {
			t.Fatalf("%s\n%s%s\nrun it again with -seed %d -real 1", r.failure, r.tail, r.failure, s)
		}
		if again := simulate(s, none, asDrawn, onFiles(t)); again.digest != r.digest {
			t.Fatalf("seed %d gives two runs", s)
		}
	}
}
