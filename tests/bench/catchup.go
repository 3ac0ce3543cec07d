package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
)

// The logs of the row about a member that catches up reach back a little only, on both sides alike.
const (
	snapshotCount  = 200
	catchUpEntries = 100
	// lineTimeout is how long the line of a process may take to come here.
	lineTimeout   = 2 * time.Second
	missedEntries = 1000 // what the member misses at least: far more than any log holds
)

// shortLogs are the flags of such members.
func shortLogs() []string {
	return []string{
		"--snapshot-count", strconv.Itoa(snapshotCount), "--snapshot-catchup-entries", strconv.Itoa(catchUpEntries),
	}
}

// catchUp kills a follower, lets it miss more than the log holds, and opens the meter from its start until it is level again. Once a
// run: etcd keeps its log for half a minute after it has sent a snapshot, so that the next member to come would not need one.
func catchUp(ctx context.Context, st *stage) error {
	if err := pause(ctx, st.warmup); err != nil {
		return err
	}
	leader, err := st.nodes.leader(ctx, st.nodes.names)
	if err != nil {
		return err
	}
	if leader == st.away {
		return fmt.Errorf("%s, which is to be killed as a follower, has become the leader", leader)
	}
	before, err := st.nodes.ask(ctx, st.away)
	if err != nil {
		return err
	}
	if err := st.nodes.kill(ctx, st.away); err != nil {
		return err
	}
	if err := st.nodes.beyond(ctx, leader, before.GetRaftIndex(), missedEntries); err != nil {
		return err
	}
	installed := st.installed(st.away)
	if err := st.open(); err != nil {
		return err
	}
	// How soon a program says that it is ready is its own affair: what counts is that it is level.
	group, starting := errgroup.WithContext(ctx)
	group.Go(func() error { return st.nodes.start(starting, st.away) })
	group.Go(func() error {
		if err := st.nodes.level(starting, st.away, leader); err != nil {
			return err
		}
		return st.shut()
	})
	if err := group.Wait(); err != nil {
		return err
	}
	reading, cancel := context.WithTimeout(ctx, lineTimeout)
	defer cancel()
	return await(reading, func() error {
		if st.installed(st.away) == installed {
			return fmt.Errorf("%s is level, but not by a snapshot", st.away)
		}
		return nil
	})
}

// counter passes lines on and counts those with a phrase, by the process that wrote them.
type counter struct {
	to     io.Writer
	phrase string

	mu    sync.Mutex
	lines map[string]int
}

func newCounter(to io.Writer, phrase string) *counter {
	return &counter{to: to, phrase: phrase, lines: map[string]int{}}
}

// Write takes one line of a process, which begins with its name.
func (c *counter) Write(line []byte) (int, error) {
	if name, text, ok := bytes.Cut(line, []byte(" | ")); ok && bytes.Contains(text, []byte(c.phrase)) {
		c.mu.Lock()
		c.lines[string(bytes.TrimSpace(name))]++
		c.mu.Unlock()
	}
	return c.to.Write(line)
}

func (c *counter) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[name]
}

// saveAll takes a snapshot from one endpoint after the other, each on a connection of its own, as `etcdctl snapshot save` does;
// what comes is thrown away.
func saveAll(ctx context.Context, t *target) error {
	for _, endpoint := range t.endpoints {
		if err := save(ctx, endpoint); err != nil {
			return fmt.Errorf("snapshot from %s: %w", endpoint, err)
		}
	}
	return nil
}

func save(ctx context.Context, endpoint string) (err error) {
	t, err := connect(ctx, []string{endpoint}, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	stream, err := pb.NewMaintenanceClient(t.conn(0)).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return err
	}
	for last := uint64(1); ; {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && last == 0:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("it ends %d bytes too early", last)
		case err != nil:
			return err
		}
		last = resp.GetRemainingBytes()
	}
}
