package mvcc

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// ranked is an entry by its number, with the bytes of its key that count at
// present: the eight behind what all keys of the list have in common, or fewer
// and zeros.
type ranked struct {
	head uint64
	at   uint32
}

const headBytes = 8

// order gives the entries in the order of their keys. It compares numbers and
// goes to the keys, which lie anywhere, once for each eight bytes in which they
// differ.
func (l *entries) order() []ranked {
	list := make([]ranked, l.count)
	for i := range list {
		list[i].at = uint32(i)
	}
	l.sort(list, make([]ranked, len(list)), 0)
	return list
}

// fewRanked is the length of a list for which comparing the keys is cheap enough.
const fewRanked = 32

// sort sorts a list whose keys agree up to from. scratch is as long as the list.
func (l *entries) sort(list, scratch []ranked, from int) {
	if len(list) <= fewRanked {
		slices.SortFunc(list, func(a, b ranked) int { return strings.Compare(l.at(a.at).key, l.at(b.at).key) })
		return
	}
	common, longest := l.common(list, from)
	if common >= longest { // they differ by the zeros at their ends
		slices.SortFunc(list, func(a, b ranked) int { return cmp.Compare(len(l.at(a.at).key), len(l.at(b.at).key)) })
		return
	}
	for i := range list {
		var head [headBytes]byte
		key := l.at(list[i].at).key
		copy(head[:], key[min(common, len(key)):])
		list[i].head = binary.BigEndian.Uint64(head[:])
	}
	sortByHead(list, scratch)
	for begin := 0; begin < len(list); {
		end := begin + 1
		for end < len(list) && list[end].head == list[begin].head {
			end++
		}
		if end-begin > 1 {
			l.sort(list[begin:end], scratch[begin:end], common+headBytes)
		}
		begin = end
	}
}

// common tells up to where the keys of a list agree, which they are known to do
// up to from, and how long the longest is. Where a key has ended, zeros count.
func (l *entries) common(list []ranked, from int) (n, longest int) {
	if len(list) == 0 {
		return from, from
	}
	first := l.at(list[0].at).key
	n = max(from, len(first))
	for _, r := range list {
		key := l.at(r.at).key
		longest = max(longest, len(key))
		n = min(n, max(from, len(key)))
		for i := from; i < n; i++ {
			if key[i] != first[i] {
				n = i
			}
		}
	}
	return n, longest
}

// sortByHead sorts by one byte after the other, the last first, where the list
// is long enough for that.
func sortByHead(list, scratch []ranked) {
	const long = 1 << 9
	if len(list) < long {
		slices.SortFunc(list, func(a, b ranked) int { return cmp.Compare(a.head, b.head) })
		return
	}
	const values = 256
	var counts [headBytes][values]uint32
	for _, r := range list {
		for digit := range counts {
			counts[digit][byte(r.head>>(8*digit))]++
		}
	}
	from, to := list, scratch
	for digit := range counts {
		places := &counts[digit]
		if places[byte(from[0].head>>(8*digit))] == uint32(len(list)) {
			continue // all have the same
		}
		sum := uint32(0)
		for value, count := range places {
			places[value] = sum
			sum += count
		}
		for _, r := range from {
			place := &places[byte(r.head>>(8*digit))]
			to[*place] = r
			*place++
		}
		from, to = to, from
	}
	if &from[0] != &list[0] {
		copy(list, from)
	}
}
