// Package control lets a second command ask a running cluster to start one of its
// processes again, over a unix socket in the cluster's data folder.
//
// It knows one request, `start NAME`, and its answer: a line that begins with "ok "
// or "error ". It promises that only one cluster serves a socket, and that the
// socket of one that was killed does not stand in the way. It asks its caller for a
// path short enough for a socket (about 100 bytes).
package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// requestWait bounds how long a connection may take to say what it wants.
const requestWait = 5 * time.Second

// Start starts the named process again and returns its pid once it is ready.
type Start func(ctx context.Context, name string) (pid int, err error)

// Listen takes the socket. It fails if another cluster serves it.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("a cluster is running already with its data there (%s answers): stop it, or name another folder with --data-dir", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier run: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket for cluster-start: %w", err)
	}
	return l, nil
}

// Serve answers requests until ctx is done; then it closes the listener, ends the
// calls to start under way and returns.
func Serve(ctx context.Context, l net.Listener, start Start) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { answer(ctx, conn, start) })
	}
}

func answer(ctx context.Context, conn net.Conn, start Start) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(requestWait))
	line, err := bufio.NewReaderSize(conn, 256).ReadSlice('\n')
	if err != nil {
		return
	}
	verb, name, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	if verb != "start" || name == "" {
		_, _ = fmt.Fprintf(conn, "error unknown request %q\n", line)
		return
	}
	pid, err := start(ctx, name)
	if err != nil {
		_, _ = fmt.Fprintf(conn, "error %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	_, _ = fmt.Fprintf(conn, "ok %s pid %d\n", name, pid)
}

// Ask asks the cluster behind the socket to start a process again, and returns what
// it said once the process is ready.
func Ask(ctx context.Context, path, name string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("no cluster is running there (start one with `make cluster`): %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(conn, "start %s\n", name); err != nil {
		return "", fmt.Errorf("ask to start %s: %w", name, err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("no answer to start %s: %w", name, err)
	}
	line = strings.TrimSpace(line)
	if said, ok := strings.CutPrefix(line, "ok "); ok {
		return said, nil
	}
	return "", errors.New(strings.TrimPrefix(line, "error "))
}
