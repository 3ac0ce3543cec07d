package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
)

// idle is the load of a row that has none.
func idle(ctx context.Context, _ *target, _ int, _ *meter) error {
	<-ctx.Done()
	return nil
}

// settled is how long the nodes have to write what they were given, before they are looked at.
const settled = 3 * time.Second

// answerTimeout bounds one try to get the first answer.
const answerTimeout = 200 * time.Millisecond

// restart measures what the nodes hold, kills one of them, a follower where there is one, and measures from its start to its first
// answer: a serializable read at its own address.
func restart(ctx context.Context, st *stage) error {
	if err := pause(ctx, settled); err != nil {
		return err
	}
	leader, err := st.nodes.leader(ctx, st.nodes.names)
	if err != nil {
		return err
	}
	name := leader
	if others := st.nodes.but(leader); len(others) > 0 {
		name = others[0]
	}
	held, err := st.heldAtRest(ctx)
	if err != nil {
		return err
	}
	if err := st.nodes.kill(ctx, name); err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	began := time.Now()
	group, starting := errgroup.WithContext(ctx)
	group.Go(func() error { return st.nodes.start(starting, name) })
	if err := await(starting, func() error { return st.firstAnswer(starting, name) }); err != nil {
		return errors.Join(err, group.Wait())
	}
	took := time.Since(began)
	st.meter.record(took)
	if err := group.Wait(); err != nil {
		return err
	}
	peak, err := st.held(name)
	if err != nil {
		return err
	}
	st.restarted = restarted{loadedBytes: held.residentBytes, start: took, peakBytes: peak.peakBytes}
	return st.shut()
}

// restarted is what restart saw.
type restarted struct {
	loadedBytes int64
	start       time.Duration
	peakBytes   int64
}

func (st *stage) firstAnswer(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := pb.NewKVClient(st.admin(name)).Range(ctx, &pb.RangeRequest{Key: keyAt(million - 1), Serializable: true})
	if err == nil && len(resp.GetKvs()) != 1 {
		err = fmt.Errorf("%s has lost a key", name)
	}
	return err
}
