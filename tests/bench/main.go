package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == execOnCommand {
		fmt.Fprintln(os.Stderr, "bench:", execOn(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == floorCommand {
		fmt.Fprintln(os.Stderr, "bench:", serveFloor(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once, and the kernel our servers
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are what a run is told.
type settings struct {
	row         *regexp.Regexp
	systems     []string
	without     []string
	runs        int
	measured    time.Duration
	warmup      time.Duration
	connections int // 0: what the row says
	bin         string
	data        string
	tmpfs       string
	profileTo   string // empty: no profiles
	out         string
	pin         bool
	serverCPU   int
	loadCPU     int
	list        bool
	verbose     bool
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	root, err := root()
	if err != nil {
		return s, err
	}
	row := set.String("row", "", "regular expression that a row's whole name matches; empty: all rows")
	systems := set.String("systems", strings.Join(append(systemNames(), floor), ","), "systems to measure, where a row has them")
	without := set.String("without", "", "processes of the split system that are not started, such as hub1,hub2; such results are not the system's")
	seconds := set.Float64("seconds", 5, "seconds that are measured in each run")
	warmup := set.Float64("warmup", 1, "seconds of load before that")
	set.IntVar(&s.runs, "runs", 5, "runs of each row on each system")
	set.IntVar(&s.connections, "connections", 0, "client connections; 0: as the row says")
	set.StringVar(&s.bin, "bin", filepath.Join(root, "bin"), "folder of the programs")
	set.StringVar(&s.data, "data", "", "folder for the servers' data; empty: the system's for temporary files")
	set.StringVar(&s.tmpfs, "tmpfs", "/dev/shm", "folder on a tmpfs, for the rows whose data does not lie on a disk")
	set.StringVar(&s.out, "out", filepath.Join(root, "bench-results.jsonl"), "file to which results are added")
	set.StringVar(&s.profileTo, "profile", "", "folder for profiles (processor, allocations) of all servers over the measured time; they cost time themselves")
	set.BoolVar(&s.pin, "pin", true, "pin the servers to one processor and the load to another")
	set.IntVar(&s.serverCPU, "server-cpu", 0, "processor of the servers")
	set.IntVar(&s.loadCPU, "load-cpu", 1, "processor of the load")
	set.BoolVar(&s.list, "list", false, "print the names of the rows and end")
	set.BoolVar(&s.verbose, "v", false, "print what the servers say")
	if err := set.Parse(args); err != nil {
		return s, err
	}
	if set.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	// A row's whole name: put-1 is not put-1000.
	if s.row, err = regexp.Compile("^(?:" + orAll(*row) + ")$"); err != nil {
		return s, fmt.Errorf("-row: %w", err)
	}
	s.systems, s.without = fields(*systems), fields(*without)
	s.measured, s.warmup = inSeconds(*seconds), inSeconds(*warmup)
	return s, s.check()
}

func (s settings) check() error {
	if s.runs < 1 || s.measured <= 0 || s.warmup < 0 || s.connections < 0 {
		return errors.New("-runs and -seconds must be positive, -warmup and -connections not negative")
	}
	for _, name := range s.systems {
		if _, err := systemNamed(name); err != nil {
			return err
		}
	}
	return nil
}

func orAll(row string) string {
	if row == "" {
		return ".*"
	}
	return row
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// root is the repository's folder: the nearest above with a go.work.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for parent := filepath.Dir(dir); ; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if parent == dir {
			return "", errors.New("no go.work here or above: run it inside the repository")
		}
	}
}

// run measures the chosen rows one after the other and prints the comparison.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	chosen := chooseRows(s.row)
	if s.list || len(chosen) == 0 {
		for _, r := range rows() {
			_, _ = fmt.Fprintf(stdout, "%-28s %s\n", r.name, r.about)
		}
		if len(chosen) == 0 {
			return fmt.Errorf("no row matches %v", s.row)
		}
		return nil
	}
	if err := checkPrograms(s, chosen); err != nil {
		return err
	}
	if s.pin {
		if err := pinSelf(s.loadCPU); err != nil {
			return fmt.Errorf("pin the load to processor %d (-pin=false measures without): %w", s.loadCPU, err)
		}
	}
	return compare(ctx, s, chosen, stdout, stderr)
}

// compare takes the measurements; what was measured before an error is printed all the same.
func compare(ctx context.Context, s settings, chosen []row, stdout, stderr io.Writer) (err error) {
	file, err := os.OpenFile(s.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var results []result
	defer func() { writeTable(stdout, results) }()
	for _, r := range chosen {
		if r.tmpfs && !isTmpfs(s.tmpfs) {
			_, _ = fmt.Fprintf(stdout, "%-24s left out: %s is no tmpfs (-tmpfs=FOLDER names one)\n", r.name, s.tmpfs)
			continue
		}
		for n := 1; n <= s.runs; n++ {
			for _, name := range r.systems(s.systems) {
				got, err := measure(ctx, s, r, name, n, stderr)
				if err != nil {
					return fmt.Errorf("%s, %s, run %d: %w", r.name, name, n, err)
				}
				if err := got.writeLine(file); err != nil {
					return err
				}
				_, _ = fmt.Fprintln(stdout, got)
				results = append(results, got)
			}
		}
	}
	return nil
}
