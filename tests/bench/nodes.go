package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// patience bounds each wait for a state of the nodes.
	patience = 60 * time.Second
	// statusTimeout is for one node's answer, and statusEvery how often the nodes are asked.
	statusTimeout = time.Second
	statusEvery   = 20 * time.Millisecond
)

// nodes are the members of a running system, to be asked, killed and started again by name. The functions are the system's, or
// a test's.
type nodes struct {
	names  []string
	status func(ctx context.Context, name string) (*pb.StatusResponse, error)
	kill   func(ctx context.Context, name string) error // kill -9; returns when the process has ended
	start  func(ctx context.Context, name string) error // with the data it had; returns when it is ready
}

// but are the names of all nodes without one.
func (n nodes) but(name string) []string {
	return slices.DeleteFunc(slices.Clone(n.names), func(other string) bool { return other == name })
}

// leader waits until the named nodes agree that one of them leads, and gives its name.
func (n nodes) leader(ctx context.Context, among []string) (leader string, err error) {
	err = await(ctx, func() error {
		leader, err = n.agreed(ctx, among)
		return err
	})
	return leader, err
}

// agreed asks once.
func (n nodes) agreed(ctx context.Context, among []string) (string, error) {
	ids, leads := map[uint64]string{}, uint64(0)
	for i, name := range among {
		status, err := n.ask(ctx, name)
		if err != nil {
			return "", err
		}
		if i > 0 && status.GetLeader() != leads {
			return "", errors.New("the nodes do not agree on a leader")
		}
		ids[status.GetHeader().GetMemberId()], leads = name, status.GetLeader()
	}
	if leads == 0 || ids[leads] == "" {
		return "", fmt.Errorf("none of %v leads", among)
	}
	return ids[leads], nil
}

// level waits until a node has applied what the leader had applied when it was last asked before: it is no further behind than
// the leader has come since.
func (n nodes) level(ctx context.Context, name, leader string) error {
	goal := uint64(0)
	return await(ctx, func() error {
		ahead, err := n.ask(ctx, leader)
		if err != nil {
			return err
		}
		before := goal
		goal = ahead.GetRaftAppliedIndex()
		status, err := n.ask(ctx, name)
		if err != nil {
			return err
		}
		if before == 0 || status.GetLeader() == 0 || status.GetRaftAppliedIndex() < before {
			return fmt.Errorf("%s has applied %d and its leader %d", name, status.GetRaftAppliedIndex(), goal)
		}
		return nil
	})
}

// beyond waits until the leader has applied so many entries more than at the index.
func (n nodes) beyond(ctx context.Context, leader string, index, more uint64) error {
	return await(ctx, func() error {
		status, err := n.ask(ctx, leader)
		if err != nil {
			return err
		}
		if at := status.GetRaftAppliedIndex(); at < index+more {
			return fmt.Errorf("%s has applied %d entries of %d", leader, at-min(at, index), more)
		}
		return nil
	})
}

func (n nodes) ask(ctx context.Context, name string) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	status, err := n.status(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", name, err)
	}
	return status, nil
}

// await asks again and again until there is no error; after its patience it returns the last one.
func await(ctx context.Context, ask func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v", patience))
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if pause(ctx, statusEvery) != nil {
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), err)
		}
	}
}
