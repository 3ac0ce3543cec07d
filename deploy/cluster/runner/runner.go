package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrUnknown is returned for a name that no process of the layout has.
var ErrUnknown = errors.New("no such process")

// ErrStopped is returned by calls that come after Stop began.
var ErrStopped = errors.New("the cluster is stopping")

// Options are how a Runner behaves; the zero value writes nothing.
type Options struct {
	// Output gets the processes' lines and the Runner's own; one Write per line, never
	// two at once. Nil: thrown away.
	Output io.Writer
	// Grace is how long each tier has to end after SIGTERM before SIGKILL; 0: 5 s.
	Grace time.Duration
	// Hint ends the report of a process that ended by itself; it may have one %s for
	// its name.
	Hint string
}

// Runner runs the processes of one Layout. Its methods may be called at the same
// time from several goroutines.
type Runner struct {
	layout  Layout
	options Options
	out     *output
	http    *http.Client

	life   context.Context // ends the processes the hard way
	cancel context.CancelFunc
	spawn  chan func() // to the thread that starts processes
	wg     sync.WaitGroup

	mu       sync.Mutex
	tiers    [][]Process // of the layout, and those added since
	procs    map[string]*proc
	stopping bool
	stopped  chan struct{}
}

// proc is a process of the layout through all its lives.
type proc struct {
	Process
	starting sync.Mutex // one StartAgain at a time
	run      *run       // the latest life; nil before the first
}

// Status is what a process does at the moment.
type Status struct {
	Name    string
	PID     int // of the latest life; 0 before the first
	Running bool
	Metrics string
}

// New makes a Runner; nothing runs before Start.
func New(layout Layout, options Options) *Runner {
	if options.Output == nil {
		options.Output = io.Discard
	}
	if options.Grace == 0 {
		options.Grace = 5 * time.Second
	}
	life, cancel := context.WithCancel(context.Background())
	r := &Runner{
		layout: layout, options: options, out: &output{w: options.Output},
		http: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		life: life, cancel: cancel, spawn: make(chan func()),
		procs: make(map[string]*proc), stopped: make(chan struct{}),
	}
	for _, tier := range layout.Tiers {
		r.tiers = append(r.tiers, slices.Clone(tier))
		for _, p := range tier {
			r.procs[p.Name] = &proc{Process: p}
		}
	}
	return r
}

// Start starts all tiers and returns when every process has answered its readiness
// URL. If one cannot be started, ends, or is not ready before ctx is done, all are
// stopped and the error names it. Start must be called once.
func (r *Runner) Start(ctx context.Context) error {
	r.wg.Go(r.spawner)
	for _, tier := range r.layout.Tiers {
		if err := r.startTier(ctx, tier); err != nil {
			return errors.Join(err, r.Stop(context.WithoutCancel(ctx)))
		}
	}
	return nil
}

// spawner starts all processes from one thread that lives as long as they do: the
// kernel ends a child when the thread that made it is gone, not the program.
func (r *Runner) spawner() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case f := <-r.spawn:
			f()
		case <-r.life.Done():
			return
		}
	}
}

func (r *Runner) startTier(ctx context.Context, tier []Process) error {
	for _, p := range tier {
		if _, err := r.startOne(p.Name); err != nil {
			return err
		}
	}
	for _, p := range tier {
		if err := r.waitReady(ctx, r.find(p.Name)); err != nil {
			return err
		}
	}
	return nil
}

// startOne begins a new life of the process.
func (r *Runner) startOne(name string) (*run, error) {
	type result struct {
		run *run
		err error
	}
	p := r.find(name)
	answer := make(chan result, 1)
	start := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.stopping {
			answer <- result{err: ErrStopped}
			return
		}
		life, err := begin(r.life, p.Process, r.out, func(l *run) { r.ended(p, l) })
		if err == nil {
			p.run = life
		}
		answer <- result{life, err}
	}
	select {
	case r.spawn <- start:
	case <-r.life.Done():
		return nil, ErrStopped
	}
	a := <-answer
	if a.err != nil {
		return nil, a.err
	}
	r.out.printf("%s pid %d metrics %s", name, a.run.pid, p.Metrics)
	return a.run, nil
}

// ended reports a process that nobody asked to end.
func (r *Runner) ended(p *proc, l *run) {
	r.mu.Lock()
	expected := r.stopping
	r.mu.Unlock()
	if expected {
		return
	}
	hint := r.options.Hint
	if hint != "" {
		hint = "; " + fmt.Sprintf(hint, p.Name)
	}
	r.out.printf("%s pid %d ended: %s%s", p.Name, l.pid, l.how(), hint)
}

// StartAgain starts a process that has ended, with the arguments and data it had,
// and returns its new pid once it is ready. A process that was started but is not
// ready before ctx is done goes on running; the error says so.
func (r *Runner) StartAgain(ctx context.Context, name string) (int, error) {
	p := r.find(name)
	if p == nil {
		return 0, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	p.starting.Lock()
	defer p.starting.Unlock()
	if life := r.latest(p); life.running() {
		return 0, fmt.Errorf("%s is running, pid %d", name, life.pid)
	}
	life, err := r.startOne(name)
	if err != nil {
		return 0, err
	}
	return life.pid, r.waitReady(ctx, p)
}

// Kill sends the signal to the process. After SIGKILL it returns when the process
// has ended, so that StartAgain may follow; after any other at once. The end of a
// process by a signal from here is reported like any other.
func (r *Runner) Kill(ctx context.Context, name string, signal os.Signal) error {
	p := r.find(name)
	if p == nil {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	life := r.latest(p)
	if !life.running() {
		return fmt.Errorf("%s is not running", name)
	}
	if err := life.signal(signal); err != nil {
		return fmt.Errorf("signal %s: %w", name, err)
	}
	if signal != syscall.SIGKILL {
		return nil
	}
	return r.Wait(ctx, name)
}

// Wait returns when the latest life of the process has ended; at once if it has
// none.
func (r *Runner) Wait(ctx context.Context, name string) error {
	p := r.find(name)
	if p == nil {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	life := r.latest(p)
	if life == nil {
		return nil
	}
	select {
	case <-life.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended: %w", name, context.Cause(ctx))
	}
}

// Processes says what each process does, in the order of the layout.
func (r *Runner) Processes() []Status {
	var out []Status
	for _, tier := range r.all() {
		for _, p := range tier {
			s := Status{Name: p.Name, Metrics: p.Metrics}
			if life := r.latest(r.find(p.Name)); life != nil {
				s.PID, s.Running = life.pid, life.running()
			}
			out = append(out, s)
		}
	}
	return out
}

// Stop ends all processes, the last tier first: SIGTERM, then SIGKILL after the
// grace time, or at once when ctx is done. It returns when all have ended, and an
// error that names those that had to be killed. Called again, it waits for the
// first call.
func (r *Runner) Stop(ctx context.Context) error {
	r.mu.Lock()
	first := !r.stopping
	r.stopping = true
	r.mu.Unlock()
	if !first {
		<-r.stopped
		return nil
	}
	var errs []error
	for _, tier := range slices.Backward(r.all()) {
		errs = append(errs, r.stopTier(ctx, tier))
	}
	r.cancel()
	r.wg.Wait()
	close(r.stopped)
	return errors.Join(errs...)
}

func (r *Runner) stopTier(ctx context.Context, tier []Process) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.Grace)
	defer cancel()
	lives := make([]*run, len(tier))
	var wg sync.WaitGroup
	for i, p := range tier {
		if life := r.latest(r.find(p.Name)); life.running() {
			lives[i] = life
			wg.Go(func() { life.end(ctx.Done()) })
		}
	}
	wg.Wait()
	var errs []error
	for i, life := range lives {
		if life != nil && killed(life.err) {
			errs = append(errs, fmt.Errorf("%s did not end within %s and was killed", tier[i].Name, r.options.Grace))
		}
	}
	return errors.Join(errs...)
}

// Say writes a line between the lines of the processes.
func (r *Runner) Say(line string) { r.out.printf("%s", line) }

func (r *Runner) latest(p *proc) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.run
}
