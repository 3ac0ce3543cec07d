package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Choice is a pflag.Value that takes one of a few words.
type Choice struct {
	value string
	of    []string
}

// NewChoice makes a choice; the first word is the default.
func NewChoice(of ...string) *Choice { return &Choice{value: of[0], of: of} }

// Set takes one of the words.
func (c *Choice) Set(text string) error {
	if !slices.Contains(c.of, text) {
		return fmt.Errorf("it must be one of %s", strings.Join(c.of, ", "))
	}
	c.value = text
	return nil
}

// String is the word chosen.
func (c *Choice) String() string { return c.value }

// Type names the value in the help.
func (c *Choice) Type() string { return strings.Join(c.of, "|") }

// The two levels of etcd that slog has no name for. Both are above slog.LevelError.
const (
	LevelPanic = slog.LevelError + 4
	LevelFatal = slog.LevelError + 8
)

// NewLogLevel makes the value of --log-level with etcd's words; the default is info.
func NewLogLevel() *LogLevel {
	return &LogLevel{NewChoice("info", "debug", "warn", "error", "panic", "fatal")}
}

// LogLevel is the value of --log-level.
type LogLevel struct{ *Choice }

// Level is the lowest level that is logged.
func (l *LogLevel) Level() slog.Level {
	switch l.value {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	case "panic":
		return LevelPanic
	case "fatal":
		return LevelFatal
	}
	return slog.LevelInfo
}

// electionMsMax is etcd's bound: a cluster that waits longer has no use for a leader.
const electionMsMax = 50_000

// CheckElection makes etcd's checks on --heartbeat-interval and --election-timeout, both in milliseconds. The error is
// of kind failure.Config.
func CheckElection(heartbeatMs, electionMs uint) error {
	switch {
	case heartbeatMs == 0:
		return bad("--heartbeat-interval must be at least 1 (milliseconds)")
	case electionMs == 0:
		return bad("--election-timeout must be at least 1 (milliseconds)")
	case electionMs > electionMsMax:
		return bad("--election-timeout is %d ms: it must be at most %d", electionMs, electionMsMax)
	case electionMs/5 < heartbeatMs:
		return bad("--election-timeout is %d ms: it must be at least 5 times --heartbeat-interval (%d ms)",
			electionMs, heartbeatMs)
	}
	return nil
}
