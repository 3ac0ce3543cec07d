package relay

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// names finds the child of this process that is at the other end of a connection, and what it is called. The kernel lists
// each connection with its socket's number, and each process's sockets.
type names struct {
	mu    sync.Mutex
	known map[int]string // by process id; a name or "" for what is none of ours
}

func newNames() *names { return &names{known: map[int]string{}} }

// Identifies tells whether the machine can tell processes apart by their connections.
func Identifies() bool { return true }

// of is the name of the process at the far end, or "".
func (s *names) of(remote net.Addr) string {
	address, ok := remote.(*net.TCPAddr)
	if !ok {
		return ""
	}
	socket := socketOf(address)
	if socket == "" {
		return ""
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return ""
	}
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if name := s.child(pid); name != "" && holds(dir, socket) {
			return name
		}
	}
	return ""
}

// socketOf is the number of the socket that is bound to the address, as /proc names it.
func socketOf(address *net.TCPAddr) string {
	ip := address.IP.To4()
	if ip == nil {
		return ""
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], address.Port)
	for line := range strings.Lines(string(table)) {
		// number: local remote state queues timer retransmits uid timeout inode
		if fields := strings.Fields(line); len(fields) > 9 && fields[1] == local && fields[9] != "0" {
			return "socket:[" + fields[9] + "]"
		}
	}
	return ""
}

// child is what a process calls itself, if this one started it.
func (s *names) child(pid int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.known[pid]; ok {
		return name
	}
	name, final := childName(pid)
	if final {
		s.known[pid] = name
	}
	return name
}

// childName is the name, and whether it stays: a child has its parent's arguments until it runs its own program.
func childName(pid int) (name string, final bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// pid (program) state parent ...; the program may hold blanks.
	_, after, ok := strings.Cut(string(status), ") ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
		return "", true
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", false
	}
	parts := bytes.Split(arguments, []byte{0})
	for i, part := range parts[:len(parts)-1] {
		if string(part) == "--name" {
			return string(parts[i+1]), true
		}
	}
	return "", false
}

// holds tells whether the process has the socket open.
func holds(dir, socket string) bool {
	files, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return false
	}
	for _, file := range files {
		if target, err := os.Readlink(dir + "/fd/" + file.Name()); err == nil && target == socket {
			return true
		}
	}
	return false
}
