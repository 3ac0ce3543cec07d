package runner

import (
	"context"
	"fmt"
	"slices"
)

// Add adds a process to one of the tiers, starts it, and returns when it is ready. From then on it is like those of the layout; one that
// could not be started or is not ready before ctx is done is added all the same, and the error says so.
func (r *Runner) Add(ctx context.Context, tier int, p Process) error {
	r.mu.Lock()
	if r.procs[p.Name] != nil || tier < 0 || tier >= len(r.tiers) {
		r.mu.Unlock()
		return fmt.Errorf("add %s to tier %d of %d: the name is taken, or there is no such tier", p.Name, tier, len(r.tiers))
	}
	r.procs[p.Name] = &proc{Process: p}
	r.tiers[tier] = append(r.tiers[tier], p)
	r.mu.Unlock()
	_, err := r.StartAgain(ctx, p.Name)
	return err
}

// ExitCode tells how the latest life of a process ended; false while it runs, before its first life, and after its end by a signal.
func (r *Runner) ExitCode(name string) (int, bool) {
	p := r.find(name)
	if p == nil {
		return 0, false
	}
	life := r.latest(p)
	if life == nil || life.running() || life.cmd.ProcessState == nil {
		return 0, false
	}
	code := life.cmd.ProcessState.ExitCode()
	return code, code >= 0
}

// find gives a process by its name, or nil.
func (r *Runner) find(name string) *proc {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.procs[name]
}

// all are the tiers as they are now.
func (r *Runner) all() [][]Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	tiers := make([][]Process, len(r.tiers))
	for i, tier := range r.tiers {
		tiers[i] = slices.Clone(tier)
	}
	return tiers
}

// Replace changes what a process is started with from its next life on.
func (r *Runner) Replace(name string, change func(*Process)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.procs[name]; p != nil {
		change(&p.Process)
	}
}
