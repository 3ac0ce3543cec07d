package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// model is the revision bucket as a map, driven like the Store.
type model struct {
	rng     *rand.Rand
	index   uint64
	main    int64
	stored  map[mvcc.Revision]mvcc.Write
	dropped []mvcc.Revision
}

// next makes up an entry and carries it out on the model.
func (m *model) next() Batch {
	m.index++
	b := Batch{Index: m.index, Term: 1 + m.index/100}
	for range m.rng.IntN(3) { // several requests are packed in one entry
		m.main++
		for sub := range 1 + m.rng.Int64N(3) {
			w := putAt(rev(m.main, sub), fmt.Sprint("key", m.rng.IntN(50)), fmt.Sprint("value", m.main, sub))
			if m.rng.IntN(5) == 0 {
				w = deleteAt(w.Rev, string(w.KV.Key))
			}
			b.Writes = append(b.Writes, w)
			m.stored[w.Rev] = w
		}
	}
	if m.rng.IntN(4) == 0 {
		b.Drop = m.drop()
	}
	return b
}

// drop takes some revisions away: old ones, and those of this very moment.
func (m *model) drop() (drops []mvcc.Drop) {
	revs := slices.SortedFunc(maps.Keys(m.stored), mvcc.Revision.Compare)
	for range min(m.rng.IntN(12), len(revs)) {
		at := m.rng.IntN(len(revs))
		if m.rng.IntN(2) == 0 {
			at = len(revs) - 1 - m.rng.IntN(min(len(revs), 20))
		}
		w, ok := m.stored[revs[at]]
		if !ok {
			continue // twice the same
		}
		drops = append(drops, mvcc.Drop{Rev: w.Rev, Tombstone: w.Tombstone})
		delete(m.stored, w.Rev)
		m.dropped = append(m.dropped, w.Rev)
	}
	return drops
}

// picture is a Reader and what it must show for ever.
type picture struct {
	reader  *Reader
	index   uint64
	stored  map[mvcc.Revision]mvcc.Write
	dropped []mvcc.Revision
}

func (m *model) picture(t *testing.T, s *Store) picture {
	t.Helper()
	r, err := s.Reader()
	require.NoError(t, err)
	return picture{r, m.index, maps.Clone(m.stored), slices.Clone(m.dropped)}
}

func sameKV(a, b *mvccpb.KeyValue) bool { return string(Encode(a)) == string(Encode(b)) }

// check is called from other goroutines, so it returns what is wrong.
func (p picture) check(rng *rand.Rand) error {
	if p.reader.Index() != p.index {
		return fmt.Errorf("index %d, not %d", p.reader.Index(), p.index)
	}
	revs := slices.SortedFunc(maps.Keys(p.stored), mvcc.Revision.Compare)
	for _, r := range revs {
		if data, err := p.reader.Encoded(r); err != nil || !bytes.Equal(data, Encode(p.stored[r].KV)) {
			return fmt.Errorf("encoded %v: %x, %w", r, data, err)
		}
		if kv, err := p.reader.Value(r); err != nil || !sameKV(kv, p.stored[r].KV) {
			return fmt.Errorf("value of %v: %v, %w", r, kv, err)
		}
	}
	for _, r := range p.dropped {
		if _, err := p.reader.Encoded(r); err == nil {
			return fmt.Errorf("%v was dropped and is there encoded", r)
		}
		if _, err := p.reader.Value(r); err == nil {
			return fmt.Errorf("%v was dropped and is there", r)
		}
	}
	var from, to int
	if len(revs) > 0 {
		from = rng.IntN(len(revs))
		to = from + rng.IntN(len(revs)-from)
		revs = revs[from : to+1]
	} else {
		revs = []mvcc.Revision{{}}
	}
	return p.checkScan(revs)
}

func (p picture) checkScan(want []mvcc.Revision) error {
	i := 0
	err := p.reader.Scan(want[0], want[len(want)-1], func(r mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error {
		w := p.stored[r]
		if i >= len(want) || r != want[i] || tombstone != w.Tombstone || !sameKV(kv, w.KV) {
			return fmt.Errorf("scan gives %v %v %v", r, tombstone, kv)
		}
		i++
		return nil
	})
	if err == nil && len(p.stored) > 0 && i != len(want) {
		err = fmt.Errorf("scan gives %d changes, not %d", i, len(want))
	}
	return err
}

func TestReadersAgainstAModel(t *testing.T) {
	rng := newRand(t)
	path := filepath.Join(t.TempDir(), "db")
	opts := testOptions()
	opts.CommitInterval, opts.CommitOps = 2*time.Millisecond, 60
	s := open(t, path, opts)
	m := &model{rng: rng, main: 1, stored: map[mvcc.Revision]mvcc.Write{}}

	pictures := make(chan picture, 8)
	var group sync.WaitGroup
	for i := range 3 {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		group.Go(func() { checkPictures(t, own, pictures) })
	}
	for range 600 {
		require.NoError(t, s.Apply(m.next()))
		switch rng.IntN(30) {
		case 0:
			require.NoError(t, s.Flush(t.Context()))
		case 1, 2, 3:
			pictures <- m.picture(t, s)
		}
	}
	close(pictures)
	group.Wait()

	require.NoError(t, s.Close(t.Context()))
	s = open(t, path, testOptions())
	p := m.picture(t, s)
	defer p.reader.Close()
	require.NoError(t, p.check(rng))
	require.Len(t, content(t, p.reader), len(m.stored))
}

// checkPictures checks each picture at once and again some pictures later,
// when the Store has gone on.
func checkPictures(t *testing.T, rng *rand.Rand, pictures <-chan picture) {
	var held []picture
	look := func(p picture) {
		if err := p.check(rng); err != nil {
			t.Errorf("picture of index %d: %v", p.index, err)
		}
	}
	for p := range pictures {
		look(p)
		held = append(held, p)
		if len(held) > 6 {
			i := rng.IntN(len(held))
			look(held[i])
			held[i].reader.Close()
			held = slices.Delete(held, i, i+1)
		}
	}
	for _, p := range held {
		look(p)
		p.reader.Close()
	}
}
