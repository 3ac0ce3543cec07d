package raftnode

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
)

// raftPanic carries what raft says before it panics, so that it ends Run with a reason instead of the process with a stack.
type raftPanic struct{ text string }

// raftLogger gives raft's log to slog. Raft has lines that come once per message or proposal when something is wrong; each format gets
// linesPerSecond, and the rest is counted.
type raftLogger struct {
	out *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	second time.Time
	lines  map[string]int // per format, in this second
}

const linesPerSecond = 8

var _ raft.Logger = (*raftLogger)(nil)

func newRaftLogger(out *slog.Logger) *raftLogger {
	return &raftLogger{out: out.With("part", "raft"), now: time.Now, lines: map[string]int{}}
}

func (l *raftLogger) log(level slog.Level, format string, args ...any) {
	if !l.out.Enabled(context.Background(), level) || !l.admit(format) {
		return
	}
	l.out.Log(context.Background(), level, fmt.Sprintf(format, args...))
}

func (l *raftLogger) admit(format string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.second) >= time.Second {
		l.second = now
		left := 0
		for _, n := range l.lines {
			left += max(0, n-linesPerSecond)
		}
		clear(l.lines)
		if left > 0 {
			l.out.Info("raft lines left out", "count", left)
		}
	}
	l.lines[format]++
	return l.lines[format] <= linesPerSecond
}

func (l *raftLogger) Debug(v ...any)            { l.log(slog.LevelDebug, "%s", fmt.Sprint(v...)) }
func (l *raftLogger) Debugf(f string, v ...any) { l.log(slog.LevelDebug, f, v...) }
func (l *raftLogger) Info(v ...any)             { l.log(slog.LevelInfo, "%s", fmt.Sprint(v...)) }
func (l *raftLogger) Infof(f string, v ...any) {
	level := slog.LevelInfo
	if strings.HasPrefix(f, "entry at index") {
		level = slog.LevelDebug // a late answer of the log, as comes with every load
	}
	l.log(level, f, v...)
}

func (l *raftLogger) Warning(v ...any) { l.log(slog.LevelWarn, "%s", fmt.Sprint(v...)) }
func (l *raftLogger) Warningf(f string, v ...any) {
	l.log(slog.LevelWarn, f, v...)
}
func (l *raftLogger) Error(v ...any)            { l.log(slog.LevelError, "%s", fmt.Sprint(v...)) }
func (l *raftLogger) Errorf(f string, v ...any) { l.log(slog.LevelError, f, v...) }
func (l *raftLogger) Fatal(v ...any)            { panic(raftPanic{fmt.Sprint(v...)}) }
func (l *raftLogger) Fatalf(f string, v ...any) { panic(raftPanic{fmt.Sprintf(f, v...)}) }
func (l *raftLogger) Panic(v ...any)            { panic(raftPanic{fmt.Sprint(v...)}) }
func (l *raftLogger) Panicf(f string, v ...any) { panic(raftPanic{fmt.Sprintf(f, v...)}) }
