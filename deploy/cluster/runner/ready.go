package runner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"syscall"
	"time"
)

// pollEvery is how often a process that is not ready is asked again.
const pollEvery = 50 * time.Millisecond

// waitReady returns when the process has answered its readiness URL with 200, with
// an error when it has ended or ctx is done before.
func (r *Runner) waitReady(ctx context.Context, p *proc) error {
	life := r.latest(p)
	if p.Ready == "" {
		return nil
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := r.askReady(ctx, p.Ready)
		if err == nil {
			err = errors.New("ready, but from another process") // what has ended below cannot have answered
			if life.running() {
				return nil
			}
		}
		select {
		case <-life.done:
			return fmt.Errorf("%s ended before it was ready: %s", p.Name, life.how())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (last answer: %w)", p.Name, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// askReady asks once.
func (r *Runner) askReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// killed says whether a process ended by SIGKILL.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
