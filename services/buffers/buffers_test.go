package buffers

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClasses(t *testing.T) {
	require.Equal(t, lentMin, sizeOf(0))
	require.Equal(t, lentMax, sizeOf(classes-1))
	for class := range classes {
		require.Equal(t, class, classOf(sizeOf(class)))
		if class > 0 {
			require.Equal(t, class-1, classOf(sizeOf(class)-1))
			require.Less(t, sizeOf(class-1), sizeOf(class))
		}
	}
}

func TestTakeHasRoomAndLittleMore(t *testing.T) {
	for _, p := range []*Pool{nil, {}} {
		for _, n := range []int{0, 1, lentMin - 1, lentMin, lentMin + 1, 3 << 20, 1 << 24, 1<<24 + 1} {
			b := p.Take(n)
			require.Empty(t, b)
			require.GreaterOrEqual(t, cap(b), n)
			require.LessOrEqual(t, cap(b), n+n/4+1)
			p.Put(&b)
			require.Len(t, *p.Get(n), n)
		}
	}
}

// A slice that was put has room for what it is taken for, whatever its capacity is: append makes odd ones.
func TestWhatIsPutIsTakenForNoMoreThanItHolds(t *testing.T) {
	p := &Pool{}
	for n := 1 << 16; n <= 1<<18; n += 12_345 {
		b := make([]byte, n)
		p.Put(&b)
	}
	for range 100 {
		require.GreaterOrEqual(t, cap(p.Take(1<<17)), 1<<17)
	}
}

// No two holders have the same slice: under -race a shared one shows, and so does a wrong byte.
func TestASliceHasOneHolder(t *testing.T) {
	p := &Pool{}
	var all sync.WaitGroup
	for id := range byte(4) {
		all.Go(func() {
			for range 200 {
				b := p.Take(1 << 16)
				for range 1 << 10 {
					b = append(b, id)
				}
				for _, got := range b {
					if got != id {
						t.Errorf("%d has got %d's bytes", id, got)
						return
					}
				}
				p.Put(&b)
			}
		})
	}
	all.Wait()
}
