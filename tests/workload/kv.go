package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfastdb/holdfast/tests/history"
)

// keyCount is few, so that clients meet.
const keyCount = 8

// prefix of the keys that key-value clients share, and the end of their range.
const (
	prefix    = "k/"
	prefixEnd = "k0"
)

func sharedKey(rng *rand.Rand) string { return fmt.Sprintf("%s%d", prefix, rng.IntN(keyCount)) }

// kvClient makes requests of chance and remembers what it was told, for its conditions.
type kvClient struct {
	w     *Workload
	name  string
	rng   *rand.Rand
	known map[string]history.KV
	head  int64
}

// KV makes one request of chance after the other until ctx is done, with pause between them.
func (w *Workload) KV(ctx context.Context, c Client, pause time.Duration) {
	k := &kvClient{w: w, name: c.Name, rng: w.rand(c.Name), known: map[string]history.KV{}}
	for ctx.Err() == nil {
		op := w.Do(ctx, c, k.request())
		k.learn(&op)
		if !rest(ctx, pause/2+time.Duration(k.rng.Int64N(int64(pause)))) {
			return
		}
	}
}

func (k *kvClient) learn(op *history.Op) {
	if op.Outcome != history.Done {
		return
	}
	k.head = max(k.head, op.Response.Revision)
	if op.Request.Revision != 0 {
		return
	}
	for _, result := range op.Response.Results {
		for _, kv := range result.KVs {
			k.known[kv.Key] = kv
		}
	}
}

// request makes one of the kinds, the common ones more often.
func (k *kvClient) request() history.Request {
	kinds := []struct {
		weight int
		make   func() history.Request
	}{
		{24, k.put},
		{12, k.get},
		{10, k.getSerializable},
		{6, k.remove},
		{2, k.removeRange},
		{14, k.swap},
		{8, k.several},
		{5, k.mixed},
		{7, k.list},
		{6, k.listSerializable},
		{6, k.past},
	}
	total := 0
	for _, kind := range kinds {
		total += kind.weight
	}
	n := k.rng.IntN(total)
	for _, kind := range kinds {
		if n -= kind.weight; n < 0 {
			return kind.make()
		}
	}
	return k.get()
}

func (k *kvClient) newPut(key string) history.Action {
	return history.Action{Kind: history.Put, Key: key, Value: k.w.value(k.name), Prev: k.rng.IntN(3) == 0}
}

func one(a history.Action) history.Request { return history.Request{Then: []history.Action{a}} }

func (k *kvClient) put() history.Request { return one(k.newPut(sharedKey(k.rng))) }
func (k *kvClient) get() history.Request { return one(history.Action{Key: sharedKey(k.rng)}) }
func (k *kvClient) list() history.Request {
	return one(history.Action{Key: prefix, End: prefixEnd})
}

func (k *kvClient) remove() history.Request {
	return one(history.Action{Kind: history.Delete, Key: sharedKey(k.rng), Prev: k.rng.IntN(2) == 0})
}

func (k *kvClient) removeRange() history.Request {
	from := k.rng.IntN(keyCount - 2)
	return one(history.Action{Kind: history.Delete, Key: fmt.Sprintf("%s%d", prefix, from), End: fmt.Sprintf("%s%d", prefix, from+2), Prev: true})
}

func (k *kvClient) getSerializable() history.Request {
	r := k.get()
	r.Serializable = true
	return r
}

func (k *kvClient) listSerializable() history.Request {
	r := k.list()
	r.Serializable = true
	return r
}

// past reads at a revision of the last few.
func (k *kvClient) past() history.Request {
	r := k.list()
	const back = 100
	r.Revision = max(1, k.head-k.rng.Int64N(back))
	r.Serializable = k.rng.IntN(2) == 0
	return r
}

// swap puts a value if the key is as this client knew it last.
func (k *kvClient) swap() history.Request {
	key := sharedKey(k.rng)
	known := k.known[key]
	conditions := []history.Compare{
		{Key: key, Target: history.CompareMod, Number: known.Mod},
		{Key: key, Target: history.CompareVersion, Number: known.Version},
		{Key: key, Target: history.CompareCreate, Number: known.Create},
		{Key: key, Target: history.CompareValue, Value: known.Value},
	}
	return history.Request{
		Txn: true, Compares: conditions[k.rng.IntN(len(conditions)):][:1],
		Then: []history.Action{k.newPut(key)}, Else: []history.Action{{Key: key}},
	}
}

// several puts two keys at once and reads the others.
func (k *kvClient) several() history.Request {
	first, second := k.two()
	return history.Request{Txn: true, Then: []history.Action{
		k.newPut(first), k.newPut(second), {Key: prefix, End: prefixEnd},
	}}
}

// mixed deletes one key and puts another, or, if the other is not as it was known, puts the first.
func (k *kvClient) mixed() history.Request {
	first, second := k.two()
	return history.Request{
		Txn:      true,
		Compares: []history.Compare{{Key: second, Target: history.CompareMod, Number: k.known[second].Mod}},
		Then:     []history.Action{{Kind: history.Delete, Key: first, Prev: true}, k.newPut(second)},
		Else:     []history.Action{k.newPut(first), {Key: second}},
	}
}

func (k *kvClient) two() (first, second string) {
	first = sharedKey(k.rng)
	for second = first; second == first; {
		second = sharedKey(k.rng)
	}
	return first, second
}
