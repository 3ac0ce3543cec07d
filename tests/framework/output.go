package framework

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// printedBytesMax bounds what a failed test prints of the processes' output; all of it stays in the file.
const printedBytesMax = 24 << 10

// output keeps what the processes of a cluster say in a file.
type output struct {
	mu    sync.Mutex
	file  *os.File
	ready map[string]int // ready lines, by process
	told  chan struct{}  // closed and made anew at each
}

// readyLine is what standalone says, with its clients' URLs, when all its parts answer.
const readyLine = " | holdfast: ready, clients at "

// Write appends; the Runner calls it once per line.
func (o *output) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name, _, ok := strings.Cut(string(line), readyLine); ok {
		o.ready[name]++
		close(o.told)
		o.told = make(chan struct{})
	}
	return o.file.Write(line)
}

// saidReady is how often the process has said that it is ready.
func (o *output) saidReady(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ready[name]
}

// waitReady waits until the process has said count times in all that it is ready.
func (o *output) waitReady(ctx context.Context, name string, count int) error {
	for {
		o.mu.Lock()
		said, told := o.ready[name], o.told
		o.mu.Unlock()
		if said >= count {
			return nil
		}
		select {
		case <-told:
		case <-ctx.Done():
			return fmt.Errorf("%s does not say that it is ready: %w", name, ctx.Err())
		}
	}
}

// text is all that was said so far.
func (o *output) text(tb testing.TB) string {
	tb.Helper()
	data, err := os.ReadFile(o.file.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// newOutput opens the file. When the test has failed, the end of it is printed and the file kept.
func newOutput(tb testing.TB, name string) *output {
	tb.Helper()
	pattern := fmt.Sprintf("holdfast-%s-%s-*.log", strings.NewReplacer("/", "-", " ", "-").Replace(tb.Name()), name)
	file, err := os.CreateTemp("", pattern) //nolint:usetesting // it outlives a test that fails
	if err != nil {
		tb.Fatal(err)
	}
	o := &output{file: file, ready: map[string]int{}, told: make(chan struct{})}
	tb.Cleanup(func() { o.finish(tb, name) })
	return o
}

func (o *output) finish(tb testing.TB, name string) {
	tb.Helper()
	defer func() { _ = o.file.Close() }()
	if !tb.Failed() {
		_ = os.Remove(o.file.Name())
		return
	}
	data, err := os.ReadFile(o.file.Name())
	if err != nil {
		tb.Log(err)
		return
	}
	if len(data) > printedBytesMax {
		data = data[len(data)-printedBytesMax:]
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			data = data[end+1:]
		}
	}
	tb.Logf("the last lines of %s, all of it in %s:\n%s", name, filepath.Clean(o.file.Name()), data)
}
