package main

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// commitPoll is how often the databases are looked at: their commits are at least tens of milliseconds apart.
const commitPoll = time.Millisecond

// watchCommits tells the meter of each moment at which a node's database file was written, until ctx is done. Both sides keep their
// state in bbolt, which writes the file when it commits and only then; looking at its time of change takes nothing from the servers.
func watchCommits(ctx context.Context, databases []string, m *meter) {
	ticker := time.NewTicker(commitPoll)
	defer ticker.Stop()
	changed := make([]time.Time, len(databases))
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for i, path := range databases {
				info, err := os.Stat(path)
				if err != nil || info.ModTime().Equal(changed[i]) { // a node that is down, or one that is defragmented, has none for a moment
					continue
				}
				if !changed[i].IsZero() {
					m.committed(now)
				}
				changed[i] = info.ModTime()
			}
		}
	}
}

// databases are the files of the nodes' states, on all systems at the same place.
func (r *running) databases() (paths []string) {
	for _, name := range r.names {
		paths = append(paths, filepath.Join(r.data, name, "member", "snap", "db"))
	}
	return paths
}
