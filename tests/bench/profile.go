package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// profileFlag has a server show its profiles: etcd's name for it, and ours.
const profileFlag = "--enable-pprof"

// profiled are the profiles that are taken of each process over the measured time, by the end of their files' names.
func profiled(seconds int) map[string]string {
	return map[string]string{
		"cpu":    fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds),
		"allocs": fmt.Sprintf("/debug/pprof/allocs?seconds=%d", seconds),
	}
}

// profileLayout has all processes that can do so show their profiles, and tells the address of each by its name.
func profileLayout(layout runner.Layout) map[string]string {
	addresses := map[string]string{}
	for _, tier := range layout.Tiers {
		for i, p := range tier {
			if base, ok := strings.CutSuffix(p.Ready, "/health"); ok {
				addresses[p.Name] = base
				tier[i].Args = append(tier[i].Args, profileFlag)
			}
		}
	}
	return addresses
}

// profile takes the profiles of all processes, side by side, and returns when the last is written.
func (st *stage) profile(ctx context.Context) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for name, base := range st.profiles {
		for kind, path := range profiled(max(1, int(st.measured.Seconds()))) {
			file := filepath.Join(st.profileTo, fmt.Sprintf("%s-%s.%s.pprof", st.title, name, kind))
			all.Go(func() {
				if err := download(ctx, base+path, file); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("%s profile of %s: %w", kind, name, err))
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// download writes what a URL answers to a file.
func download(ctx context.Context, url, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read to its end, or of no more use
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return os.WriteFile(file, body, 0o600)
}
