package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// large makes a database with branch pages, pages of several, and free ones, and returns its bytes.
func large(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	for i := int64(1); i <= 2000; i++ {
		size := 100
		if i%100 == 0 {
			size = 20_000
		}
		b := Batch{Index: uint64(i), Term: 1, Writes: []mvcc.Write{putAt(rev(i+1, 0), fmt.Sprintf("k%d", i%50), string(bytes.Repeat([]byte("v"), size)))}}
		if i > 1000 {
			b.Drop = []mvcc.Drop{{Rev: rev(i-900, 0)}}
		}
		require.NoError(t, s.Apply(b))
	}
	require.NoError(t, s.Close(t.Context()))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		data = data[:tx.Size()] // behind that lies what the file has grown by in advance
		return nil
	}))
	return data
}

// contents reads all that a start reads of a database.
func contents(path string) (text []string, err error) {
	s, err := Open(path, testOptions())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close(context.Background())) }()
	for _, bucket := range append(etcdBuckets(), markBucket) {
		if bucket == BucketKey {
			continue
		}
		if err := s.ForEach(bucket, func(key, value []byte) error {
			text = append(text, fmt.Sprintf("%s %x %x", bucket, key, value))
			return nil
		}); err != nil {
			return nil, err
		}
	}
	r, err := s.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return text, r.Visit(func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error {
		text = append(text, fmt.Sprint(rev, tombstone, kv))
		return nil
	})
}

// used lists the pages of a whole database that its newest tree holds, by what they are.
func used(t *testing.T, data []byte) map[string][]int {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PreLoadFreelist: true})
	require.NoError(t, err)
	defer db.Close()
	pages := map[string][]int{}
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		for id := 0; ; {
			info, err := tx.Page(id)
			if info == nil || err != nil {
				return err
			}
			pages[info.Type] = append(pages[info.Type], id)
			id += 1 + info.OverflowCount
		}
	}))
	return pages
}

const testPageBytes = 4096

// wholePage parses a page that is whole.
func wholePage(data []byte) page {
	p, _ := parsePage(data, binary.NativeEndian.Uint64(data))
	return p
}

func writeDamaged(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "damaged")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// Whatever is changed in the structure of a page in use is found at the start, and the page is named.
func TestDamagedPagesAreNamed(t *testing.T) {
	if os.Getpagesize() != testPageBytes {
		t.Skip("bbolt's pages have the size of the machine's")
	}
	good := large(t)
	pages := used(t, good)
	t.Log(len(pages["leaf"]), "leaves,", len(pages["branch"]), "branches,", len(pages["free"]), "free")
	require.Greater(t, len(pages["leaf"]), 10)
	require.NotEmpty(t, pages["branch"])
	for what, change := range map[string]func(page []byte){
		"cleared":                  func(page []byte) { clear(page[:testPageBytes]) },
		"another page":             func(page []byte) { page[0] ^= 1 },
		"a type that there is not": func(page []byte) { page[8] ^= 8 },
		"a branch for a leaf":      func(page []byte) { page[8] ^= 3 },
		"one element fewer":        func(page []byte) { binary.NativeEndian.PutUint16(page[10:], binary.NativeEndian.Uint16(page[10:])-1) },
		"one element more":         func(page []byte) { binary.NativeEndian.PutUint16(page[10:], binary.NativeEndian.Uint16(page[10:])+1) },
		"far longer":               func(page []byte) { page[14] = 1 },
		"a type or a place":        func(page []byte) { page[pageHeader+pageElement+1] ^= 0x10 },
		"a length or a child":      func(page []byte) { page[pageHeader+pageElement+9] ^= 0x10 },
		"the order of the keys": func(page []byte) {
			p := wholePage(page)
			copy(p.key(1), p.key(0))
		},
	} {
		t.Run(what, func(t *testing.T) {
			for _, kind := range []string{"leaf", "branch"} {
				for _, id := range pages[kind] {
					if count := binary.NativeEndian.Uint16(good[id*testPageBytes+10:]); count < 2 && what != "cleared" {
						continue
					}
					data := bytes.Clone(good)
					change(data[id*testPageBytes:])
					if bytes.Equal(data, good) {
						continue
					}
					path := writeDamaged(t, data)
					_, err := contents(path)
					require.ErrorIs(t, err, ErrCorrupt, "%s page %d", kind, id)
					named, ok := errors.AsType[*PageError](err)
					require.True(t, ok, err)
					require.Equal(t, int64(named.Page)*testPageBytes, named.Offset)
					require.ErrorContains(t, err, path)
					require.NotContains(t, err.Error(), "\n")
					if what != "far longer" && what != "a length or a child" { // which show on the page that they lead to
						require.EqualValues(t, id, named.Page, "%s: %v", kind, err)
					}
					after, readErr := os.ReadFile(path)
					require.NoError(t, readErr)
					require.True(t, bytes.Equal(data, after), "a refused file was written to")
				}
			}
		})
	}
}

// A file that was cut anywhere is refused, and the first page that is gone is named.
func TestACutFileIsRefused(t *testing.T) {
	good := large(t)
	for _, size := range []int{len(good) / 2, len(good) / 2 / testPageBytes * testPageBytes, 3 * testPageBytes, 2*testPageBytes + 1} {
		_, err := contents(writeDamaged(t, good[:size]))
		require.ErrorIs(t, err, ErrCorrupt, size)
		named, ok := errors.AsType[*PageError](err)
		require.True(t, ok, err)
		require.EqualValues(t, size/testPageBytes, named.Page)
	}
	for _, size := range []int{0, 1, 100, testPageBytes} {
		_, err := contents(writeDamaged(t, good[:size]))
		require.ErrorIs(t, err, ErrCorrupt, size)
	}
}

// One of the two pages with the metadata may be torn by a crash: the other is used. Without both there is no database.
func TestMetaPages(t *testing.T) {
	good := large(t)
	want, err := contents(writeDamaged(t, good))
	require.NoError(t, err)
	for page := range 2 {
		data := bytes.Clone(good)
		clear(data[page*testPageBytes+pageHeader:][:64])
		got, err := contents(writeDamaged(t, data))
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			continue
		}
		require.LessOrEqual(t, len(got), len(want))
	}
	data := bytes.Clone(good)
	for page := range 2 {
		data[page*testPageBytes+pageHeader+40] ^= 4
	}
	_, err = contents(writeDamaged(t, data))
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorContains(t, err, "pages 0 and 1")
}

// A row that bbolt's structure says nothing about, and that is not what is stored under such a key: its page is named too.
func TestADamagedRowIsLocated(t *testing.T) {
	good := large(t)
	// The first field of a stored key-value: what stands there then is none. A page that is free holds older copies, which nobody reads.
	row := []byte("\n\x03k49")
	var path string
	var err error
	at := len(good)
	for err == nil {
		at = bytes.LastIndex(good[:at], row)
		require.Positive(t, at, "no copy of the row is in use")
		data := bytes.Clone(good)
		data[at] = 0xff
		path = writeDamaged(t, data)
		_, err = contents(path)
	}
	require.ErrorIs(t, err, ErrCorrupt)
	named, ok := errors.AsType[*PageError](err)
	require.True(t, ok, err)
	require.Equal(t, int64(at)/testPageBytes, int64(named.Page))
	require.ErrorContains(t, err, path)
}

// Damage anywhere is refused as such, or a start sees what it would have seen without: no panic, no fault, and nothing that is missing.
func TestRandomDamage(t *testing.T) {
	seed := uint64(rand.Uint32())
	if text := os.Getenv("HOLDFAST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("HOLDFAST_SEED=%d", seed)
		}
	})
	rnd := rand.New(rand.NewPCG(seed, 0))
	good := large(t)
	want, err := contents(writeDamaged(t, good))
	require.NoError(t, err)
	refused := 0
	for range 300 {
		data := bytes.Clone(good)
		start := 2*testPageBytes + rnd.IntN(len(data)-2*testPageBytes)
		switch rnd.IntN(4) {
		case 0: // among the elements of a page
			start = start/testPageBytes*testPageBytes + rnd.IntN(200)
			data[start] ^= 1 << rnd.IntN(8)
		case 1:
			data[start] ^= 1 << rnd.IntN(8)
		case 2:
			page := start / testPageBytes * testPageBytes
			copy(data[page:page+testPageBytes], good[rnd.IntN(len(good)/testPageBytes)*testPageBytes:])
		default:
			for i := start; i < min(start+64, len(data)); i++ {
				data[i] = byte(rnd.Uint32())
			}
		}
		got, err := contents(writeDamaged(t, data))
		if err != nil {
			refused++
			require.ErrorIs(t, err, ErrCorrupt)
			continue
		}
		require.Len(t, got, len(want), "something is missing")
	}
	require.Positive(t, refused)
}
