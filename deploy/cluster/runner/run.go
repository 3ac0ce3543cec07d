package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// run is one life of a process, from its start to its end.
type run struct {
	cmd  *exec.Cmd
	pid  int
	done chan struct{} // closed when it has ended and its output is written
	err  error         // how it ended; read after done
}

// pipeWait is how long the output of a process is waited for after its end, should
// something it left behind hold the pipe open.
const pipeWait = 2 * time.Second

// begin starts the process; life ends it the hard way.
func begin(life context.Context, p Process, out *output, ended func(*run)) (*run, error) {
	if err := prepare(p); err != nil {
		return nil, err
	}
	w := &prefixed{out: out, prefix: p.Name}
	cmd := exec.CommandContext(life, p.Path, p.Args...)
	cmd.Stdout, cmd.Stderr = w, w // equal: exec makes one pipe and one copier
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.SysProcAttr = ChildAttributes()
	cmd.WaitDelay = pipeWait
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	r := &run{cmd: cmd, pid: cmd.Process.Pid, done: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		w.flush()
		ended(r)
		close(r.done)
	}()
	return r, nil
}

// prepare makes the process's folder and writes its files.
func prepare(p Process) error {
	if p.Dir != "" {
		if err := os.MkdirAll(p.Dir, 0o700); err != nil {
			return fmt.Errorf("folder of %s: %w", p.Name, err)
		}
	}
	for path, text := range p.Files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("file of %s: %w", p.Name, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("file of %s: %w", p.Name, err)
		}
	}
	return nil
}

// running says whether the process has not ended yet.
func (r *run) running() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// signal sends s; a process that has ended already is no error.
func (r *run) signal(s os.Signal) error {
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end asks the process to end, and when patience is over makes it.
func (r *run) end(patience <-chan struct{}) {
	_ = r.signal(syscall.SIGTERM)
	_ = r.signal(syscall.SIGCONT) // one that was paused must wake up to hear it
	select {
	case <-r.done:
	case <-patience:
		_ = r.signal(syscall.SIGKILL)
		<-r.done
	}
}

// how says in words how the process ended.
func (r *run) how() string {
	if r.err == nil {
		return "exit status 0"
	}
	return r.err.Error()
}
